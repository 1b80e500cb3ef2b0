"""`es-rl doctor`: what it shows, and what it makes of things that do not work."""

import json
import shutil
import subprocess
import tomllib
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from agents.training import provenance
from envs.installing import pip_install
from experiments import cli
from experiments.commands import doctor

QUICK = {"computing": doctor.PROBES["computing"]}


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        cli.main(["doctor", *arguments])
    printed = capsys.readouterr()
    assert printed.err == ""
    return ended.value.code, printed.out


# imageio leaves the pipes of its ffmpeg to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_everything_that_is_required_works_here(capsys):
    code, said = run(capsys)
    assert code == 0, said
    shown, checked = said.strip().split("\n\n")
    facts = dict(line.split(maxsplit=1) for line in shown.splitlines())
    for library in ("python", "es-rl", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint"):
        assert facts[library][0].isdigit()
    for library in ("gymnasium", "brax", "mujoco", "numpy"):
        assert facts[library][0].isdigit()
    assert facts["jax"] == jax.__version__
    assert facts["devices"].startswith(f"{jax.device_count()} x ")
    assert {"system", "processor", "matmul", "git"} <= facts.keys()
    states = {line[8:31].strip(): line[:8].strip() for line in checked.splitlines()}
    assert {states[name] for name in doctor.PROBES if name != "drawing"} == {"ok"}
    extras = doctor._EXTRAS
    assert {states[f"extra {name}"] for name in extras} <= {"ok", "--"}
    assert len(states) == len(doctor.PROBES) + len(extras)


def test_json_says_the_same(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "PROBES", QUICK)
    code, said = run(capsys, "--json")
    told = json.loads(said)
    assert code == 0
    assert told.keys() == {"versions", "machine", "matmul_precision", "git", "checks", "works"}
    assert told["versions"]["jax"] == jax.__version__
    assert told["matmul_precision"] == {"es-rl": "float32", "jax": "default"}
    assert told["checks"][0]["name"] == "computing"
    assert all(check.keys() == {"name", "state", "says"} for check in told["checks"])
    assert told["works"] is True


def test_what_is_broken_is_one_line_and_exit_code_1(capsys, monkeypatch):
    def broken():
        raise OSError("no more\nprocesses")

    monkeypatch.setattr(doctor, "PROBES", {"host workers": broken, **QUICK})
    code, said = run(capsys)
    assert code == 1
    assert "\nfailed  host workers           OSError: no more processes\nok " in said
    code, said = run(capsys, "--json")
    assert code == 1
    assert json.loads(said)["works"] is False


def test_what_is_optional_and_missing_comes_with_how_to_get_it(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "PROBES", QUICK)
    monkeypatch.setitem(doctor._EXTRAS, "bench", ("no_such_module",))
    code, said = run(capsys)
    assert code == 0
    assert f"--      extra bench            no no_such_module ({pip_install('bench')})" in said


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    config = SimpleNamespace(
        jax_enable_compilation_cache=True,
        jax_compilation_cache_dir=str(tmp_path / "file" / "cache"),
    )
    monkeypatch.setattr(doctor.jax, "config", config)
    check = doctor._check("cache", doctor._keeps_what_is_compiled)
    assert check.state == "failed"
    assert "JAX_COMPILATION_CACHE_DIR" in check.says


def git(folder, *arguments):
    options = ("user.name=a", "user.email=a@b.c", "commit.gpgsign=false")
    command = [
        "git",
        *(word for option in options for word in ("-c", option)),
        "-C",
        str(folder),
        *arguments,
    ]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_git_state_is_that_of_the_checkout_alone(tmp_path, monkeypatch):
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    git(tmp_path, "init")
    assert provenance.git_state(checkout) is None, "a folder in somebody else's repository"
    git(checkout, "init")
    assert provenance.git_state(checkout) is None, "nothing is committed"
    (checkout / "file").touch()
    git(checkout, "add", "file")
    git(checkout, "commit", "-m", "first")
    commit = git(checkout, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))  # as in a hook
    assert provenance.git_state(checkout) == {"commit": commit, "uncommitted": False}
    (checkout / "another").touch()
    assert provenance.git_state(checkout) == {"commit": commit, "uncommitted": True}
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.git_state(checkout) is None, "git is not installed"


def test_every_extra_is_looked_for():
    project = Path(__file__).parents[2] / "pyproject.toml"
    extras = tomllib.loads(project.read_text())["project"]["optional-dependencies"]
    composed = {name for name, needs in extras.items() if any("es-rl[" in x for x in needs)}
    assert doctor._EXTRAS.keys() == extras.keys() - composed
