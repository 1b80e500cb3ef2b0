"""Each example runs from any folder, and prints what it promises."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import agents
import envs
import es_rl

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.py"))
PUBLIC = {"agents": agents, "envs": envs, "es_rl": es_rl}


def run(name, *flags, cwd, blocked=()):
    """What an example prints in a process of its own, in which some packages are not installed."""
    for package in blocked:
        (cwd / f"{package}.py").write_text(f"raise ImportError('{package} is blocked')")
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / f"{name}.py", *flags],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(cwd), str(ROOT)])},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    return done.stdout


def numbers(pattern, text):
    """The numbers that a pattern captures, in the order of the text."""
    found = [float(number.replace(",", "")) for number in re.findall(pattern, text)]
    assert found, text
    return found


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_short_public_and_listed(name):
    text = (ROOT / "examples" / f"{name}.py").read_text()
    assert len(text.splitlines()) <= 60
    assert f"    python examples/{name}.py" in text
    assert f"[`{name}.py`]({name}.py)" in (ROOT / "examples" / "README.md").read_text()
    assert f"test_{name}" in globals()
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Import(names=names):
                assert all("." not in n.name for n in names if n.name.split(".")[0] in PUBLIC)
            case ast.ImportFrom(module=module):
                assert module.split(".")[0] not in PUBLIC
            case ast.Attribute(value=ast.Name(id=root), attr=attribute) if root in PUBLIC:
                assert attribute in PUBLIC[root].__all__


def test_ask_tell(tmp_path):
    accuracies = numbers(r"new points ([\d.]+)%", run("ask_tell", cwd=tmp_path))
    assert accuracies[0] < 70
    assert accuracies[-1] > 95


@pytest.mark.slow
def test_own_network(tmp_path):
    text = run("own_network", "--out", "policy", cwd=tmp_path)
    assert numbers(r"return of policy: ([\d.]+)", text)[0] > 450
    assert (tmp_path / "policy" / "weights.safetensors").exists()


@pytest.mark.slow
def test_own_environment(tmp_path):
    text = run("own_environment", cwd=tmp_path)
    assert numbers(r"return ([\d.-]+) of 50", text)[0] > 40
    assert "replays exactly: True" in text
    heights = [float(height) for height in text.split("height in m:")[1].split()]
    assert abs(heights[0] - 1) > 0.5
    assert abs(heights[-1] - 1) < 0.2
    command = ["replay", "runs/own_environment", "--import", "own_environment", "--episodes", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "experiments.cli", *command],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "examples")])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "mine/balloon" in done.stdout


@pytest.mark.slow
def test_own_environment_jax(tmp_path):
    text = run("own_environment_jax", cwd=tmp_path)
    assert numbers(r"return ([\d.-]+) of 50", text)[0] > 45
    assert numbers(r"([\d,]+) env steps per second", text)[0] > 0


@pytest.mark.slow
def test_own_fitness(tmp_path):
    text = run("own_fitness", cwd=tmp_path)
    mean, cvar, careful = numbers(r": mean +([\d.]+)", text)
    worst = numbers(r"worst quarter +([\d.]+)", text)
    assert mean > max(cvar, careful)
    assert worst[0] < min(worst[1:])


@pytest.mark.slow
def test_pixels(tmp_path):
    text = run("pixels", cwd=tmp_path)
    returns = numbers(r"generation +\d+: +([\d.-]+)", text)
    assert returns[0] < 0
    assert numbers(r"return ([\d.-]+) after", text)[0] > 0.5
    assert len(re.findall(r"^[.#]{5}( +[.#]{5})+$", text, re.MULTILINE)) == 10


@pytest.mark.slow
def test_fine_tune_after_ppo(tmp_path):
    text = run("fine_tune_after_ppo", "--env-steps", "200000", cwd=tmp_path)
    before, after = numbers(r": +([\d.-]+) ±", text)
    assert after > before


@pytest.mark.slow
def test_sweep_with_plot(tmp_path):
    flags = ["--sigmas", "0.3", "--rates", "0.01", "1.0", "--seeds", "2", "--out", "sweep"]
    text = run("sweep_with_plot", *flags, cwd=tmp_path)
    low, high = ([float(x) for x in line.split()] for line in re.findall(r"rate .*: (.*)", text))
    assert len(low) == len(high) == 2
    assert sum(low) < sum(high)
    assert (tmp_path / "sweep" / "sweep.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_deploy_without_jax(tmp_path):
    run("deploy_without_jax", "train", cwd=tmp_path)
    ours = ("jax", "flax", "optax", *PUBLIC)
    text = run("deploy_without_jax", "play", "--episodes", "2", cwd=tmp_path, blocked=ours)
    assert min(numbers(r"episode \d: return (\d+)", text)) > 450
    assert "JAX was imported: False" in text
