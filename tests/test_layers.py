"""The house rule: data flows one way, and a folder imports only from those above it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "envs": {"envs"},
    "es_rl": {"es_rl", "envs.base", "envs.errors"},
    "agents": {"agents", "es_rl", "envs"},
    "experiments": {"experiments", "agents", "es_rl", "envs"},
}
OURS = {*MAY_IMPORT, "tests"}


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
