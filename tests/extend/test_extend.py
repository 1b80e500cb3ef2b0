"""Each thing that users bring trains, saves, goes on after SIGKILL with the same bits, replays."""

import ast
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import agents
import envs
from experiments import cli
from tests.extend.train import OPTIONS, load

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
MODULES = sorted(path.stem for path in HERE.glob("own_*.py"))
TRAINED = [name for name in MODULES if name != "own_agent"]


def killed(command, out):
    """Start a run, and kill it once it has a checkpoint of its second generation."""
    process = subprocess.Popen([sys.executable, *command], cwd=HERE.parents[1])
    deadline = time.monotonic() + 120
    while not (out / "checkpoints" / "2").is_dir() and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (out / "checkpoints" / "2").is_dir()


def steps_of(folder, generation):
    """The env steps after a generation of a run."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return json.loads(lines[generation])["env_steps"]


def same(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(*pair) for pair in pairs)


def last_checkpoint(out):
    return max(int(path.name) for path in (out / "checkpoints").iterdir() if path.name.isdigit())


@pytest.mark.parametrize("name", MODULES)
def test_it_is_short_and_touches_nothing_of_ours(name):
    tree = ast.parse((HERE / f"{name}.py").read_text())
    ours = [node for node in tree.body if not isinstance(node, ast.Expr) or node.lineno > 1]
    assert len({line for node in ours for line in code_lines(node)}) <= 40
    for node in ast.walk(tree):
        for target in getattr(node, "targets", []):
            if isinstance(target, ast.Attribute):  # nothing of a module of ours is replaced
                assert getattr(target.value, "id", None) == "self"


def code_lines(node):
    """The lines on which expressions and statements begin, docstrings of fields left out."""
    for part in ast.walk(node):
        text = isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant)
        if hasattr(part, "lineno") and not text and not isinstance(part, ast.Constant):
            yield part.lineno


@pytest.mark.parametrize("name", TRAINED)
def test_it_trains_goes_on_after_a_kill_and_replays(name, tmp_path):
    module = load(name)
    given = getattr(module, "TRAIN", {})
    out = tmp_path / "killed"
    killed(["-m", "tests.extend.train", name, str(out)], out)
    with module.make_agent() as agent:
        steps = steps_of(out, last_checkpoint(out) - 1) + 1
        resumed = agents.train(agent, out=out, resume=True, env_steps=steps, **given)
    with module.make_agent() as agent:
        options = {**OPTIONS, "env_steps": steps}
        whole = agents.train(agent, out=tmp_path / "whole", **given, **options)
    assert resumed.generations == whole.generations >= 3
    assert same(resumed.policy.weights, whole.policy.weights)
    start = agent.snapshot(agent.init(jax.random.key(OPTIONS["seed"]))).weights.params
    assert not same(start, whole.policy.weights.params)
    options = {"network": module.network()} if hasattr(module, "network") else {}
    policy = agents.load_policy(out, **options)
    played = agents.evaluate(policy, envs.make(policy.spec.id), episodes=4)
    np.testing.assert_array_equal(played.returns, policy.evaluation["returns"])


def test_a_logger_is_told_of_every_generation_and_closed():
    from tests.extend import own_logger

    own_logger.LINES.clear()
    with own_logger.make_agent() as agent:
        result = agents.train(agent, env_steps=500, eval_episodes=2, **own_logger.TRAIN)
    assert [line[0] for line in own_logger.LINES[:-1]] == list(range(result.generations))
    assert own_logger.LINES[-1] == "closed"


def test_an_agent_has_its_flags_on_the_command_line(tmp_path, capsys):
    out = tmp_path / "run"
    common = ["--import", "tests.extend.own_agent"]
    new = ["train", "probe/policy_reward", *common, "--agent", "random_search", "--trials", "4"]
    new += ["--checkpoint-every", "1", "--eval-every", "1", "--eval-episodes", "4"]
    killed(["-m", "experiments.cli", *new, "--env-steps", "1000000", "--out", str(out)], out)
    budget = steps_of(out, last_checkpoint(out) - 1) + 1
    for folder, command in (
        (out, ["train", *common, "--resume", str(out)]),
        (tmp_path / "whole", [*new, "--out", str(tmp_path / "whole")]),
    ):
        with pytest.raises(SystemExit) as ended:
            cli.main([*command, "--env-steps", str(budget)])
        assert ended.value.code == 0, folder
    resumed, whole = (agents.load_policy(f) for f in (out, tmp_path / "whole"))
    assert same(resumed.weights, whole.weights)
    assert json.loads((out / "config.json").read_text())["settings"]["trials"] == 4
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main(["replay", str(out), "--episodes", "4", "--json"])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["returns"] == resumed.evaluation["returns"]
