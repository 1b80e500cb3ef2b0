"""House rules: a folder imports only from those above it; modules and functions stay short."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "envs": {"envs"},
    "es_rl": {"es_rl", "envs.base", "envs.errors"},
    "agents": {"agents", "es_rl", "envs"},
    "experiments": {"experiments", "agents", "es_rl", "envs"},
    "examples": {"agents", "es_rl", "envs"},
}
OURS = {*MAY_IMPORT, "tests"}
MOST_LINES_OF_MODULE = 400
MOST_LINES_OF_FUNCTION = 60


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_a_folder_imports_only_from_those_above_it(folder):
    paths = sorted((ROOT / folder).rglob("*.py"))
    assert paths
    for path in paths:
        for module in imported_modules(path):
            if module.split(".")[0] in OURS:
                allowed = MAY_IMPORT[folder]
                assert module in allowed or module.split(".")[0] in allowed, f"{path}: {module}"


def asks_for_host_env(path):
    """Lines that ask whether something is a `HostEnv`, as a call or as a pattern."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Call(func=ast.Name(id="isinstance" | "issubclass"), args=[_, kinds]):
                asked = kinds
            case ast.MatchClass(cls=kinds):
                asked = kinds
            case _:
                continue
        names = {getattr(n, "id", getattr(n, "attr", None)) for n in ast.walk(asked)}
        if "HostEnv" in names:
            yield node.lineno


def test_only_the_stage_asks_whether_an_environment_steps_on_the_host():
    stage = ROOT / "es_rl" / "play" / "stage.py"
    assert list(asks_for_host_env(stage)), "which this test would find"
    for folder in ("es_rl", "agents", "experiments"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path != stage:
                assert not list(asks_for_host_env(path)), path


def _length(function):
    """How many lines a function has, without decorators."""
    return function.end_lineno - function.lineno + 1


@pytest.mark.parametrize("folder", sorted(OURS))
def test_modules_and_functions_are_short(folder):
    paths = sorted((ROOT / folder).rglob("*.py"))
    assert paths
    for path in paths:
        text = path.read_text()
        assert len(text.splitlines()) <= MOST_LINES_OF_MODULE, path
        nodes = ast.walk(ast.parse(text))
        functions = [n for n in nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
        long = [f.name for f in functions if _length(f) > MOST_LINES_OF_FUNCTION]
        assert not long, f"{path}: {long}"


_MODULES = "import sys, {}; print(*{{name.split('.')[0] for name in sys.modules}})"


def _imported(*modules):
    """The top-level packages that are imported in a new process, those of Python left out."""
    command = [sys.executable, "-c", _MODULES.format(", ".join(modules))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split()) - set(sys.stdlib_module_names)


def test_the_engine_imports_nothing_heavy():
    own = _imported("numpy", "jax", "flax.linen", "flax.nnx", "optax")
    assert {"numpy", "jax", "flax", "optax"} <= own
    found = _imported("es_rl")
    assert {"es_rl", "envs"} <= found
    assert found - own == {"es_rl", "envs"}


def test_the_command_and_the_contract_import_little():
    assert not {"jax", "envs", "gymnasium"} & _imported("experiments.cli")
    heavy = {"gymnasium", "mujoco", "brax", "orbax", "scipy", "matplotlib", "tyro"}
    assert not heavy & _imported("envs", "envs.base", "envs.errors")
