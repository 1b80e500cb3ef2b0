"""A run that was stopped and resumed leaves what one that was not stopped leaves, bit by bit."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import jax
import numpy as np
import pytest

import agents
import envs
from agents.training.run_folder import RunFolder
from envs.errors import UserError
from es_rl.play.stage import HostStage
from tests.agents.resuming import Crash, crash_in, evaluator_of, metrics_of, weights_of

ES = {"population_size": 16, "hidden": (4,), "learning_rate": 0.1}
PPO = {"num_envs": 4, "num_steps": 16, "minibatch_size": 32, "num_epochs": 2, "hidden": (4,)}
CASES = {
    "evolution": ("eggroll", "probe/policy_reward", ES, 128),
    # A checkpoint of 4 generations is of one update and one generation that waits.
    "growing": ("eggroll", "probe/policy_reward", {**ES, "update_env_steps": 3 * 128}, 128),
    "evolution_host": ("eggroll", "gymnasium/CartPole-v1", ES, 300),
    "ppo": ("ppo", "gymnasium/phys2d/CartPole-v1", PPO, 64),
    "ppo_host": ("ppo", "gymnasium/CartPole-v1", PPO, 64),
}


@pytest.fixture(scope="module", params=CASES)
def case(request):
    name, env_id, settings, steps = CASES[request.param]
    short = {"max_episode_steps": 30, "workers": 1} if env_id == "gymnasium/CartPole-v1" else {}
    make = lambda: agents.make(name, envs.make(env_id, **short), **settings)  # noqa: E731
    agent = make()
    return (
        make,
        agent,
        {
            "env_steps": 9 * steps,
            "seed": 3,
            "eval_every": 3,
            "eval_episodes": 4,
            "checkpoint_every": 2,
            "evaluator": evaluator_of(agent),
        },
    )


def test_killed_and_resumed_is_as_never_stopped(case, tmp_path):
    make, agent, budget = case
    result = agents.train(agent, out=tmp_path / "whole", **budget)
    assert result.generations > 5
    expected = metrics_of(tmp_path / "whole")

    # On the host not the agent that knows where its simulators are: a new process has no such one.
    on_host = isinstance(agent.stage, HostStage)
    again = make if on_host else lambda: agent
    run = tmp_path / "stopped"
    # Before a checkpoint of its own, and after two.
    for generation in (4,) if on_host else (1, 4):
        with pytest.raises(Crash):
            agents.train(
                again(), out=run, resume=run.exists(), on_generation=crash_in(generation), **budget
            )
        assert len(metrics_of(run)) == generation + 1
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"generation": 5, "env_st')  # torn
    resumed = agents.train(again(), out=run, resume=True, **budget)
    assert metrics_of(run) == expected
    for name in ("policy", "best"):
        assert weights_of(run, name) == weights_of(tmp_path / "whole", name)
    assert resumed.env_steps == result.env_steps
    np.testing.assert_array_equal(resumed.evaluation.returns, result.evaluation.returns)
    agent.close()


@pytest.fixture(scope="module")
def agent():
    return agents.make("eggroll", envs.make("probe/policy_reward"), **ES)


@pytest.fixture(scope="module")
def budget(agent):
    evaluator = evaluator_of(agent)
    return {"env_steps": 6 * 128, "eval_every": 2, "eval_episodes": 4, "evaluator": evaluator}


def test_a_signal_leaves_a_checkpoint_to_go_on_from(agent, budget, tmp_path):
    agents.train(agent, out=tmp_path / "whole", **budget)

    def interrupt(metrics, snapshot):
        if metrics["generation"] == 2:
            signal.raise_signal(signal.SIGTERM)

    run = tmp_path / "run"
    stopped = agents.train(agent, out=run, on_generation=interrupt, **budget)
    assert stopped.checkpoint == run / "checkpoints" / "4"
    agents.train(agent, out=run, resume=True, **budget)
    assert weights_of(run) == weights_of(tmp_path / "whole")


def test_a_run_that_has_ended_goes_on_with_a_larger_budget(agent, budget, tmp_path):
    agents.train(agent, out=tmp_path / "whole", **budget)
    run = tmp_path / "run"
    agents.train(agent, out=run, **{**budget, "env_steps": 3 * 128})
    again = agents.train(agent, out=run, resume=True, **{**budget, "env_steps": 3 * 128})
    assert again.generations == 3
    assert len(metrics_of(run)) == 3
    agents.train(agent, out=run, resume=True, **budget)
    assert weights_of(run) == weights_of(tmp_path / "whole")


def test_what_a_run_began_with_is_kept(agent, budget, tmp_path):
    agents.train(agent, out=tmp_path, **{**budget, "env_steps": 3 * 128})
    path = tmp_path / "config.json"
    began = {**json.loads(path.read_text()), "versions": {"jax": "0.1"}, "git": None}
    path.write_text(json.dumps(began))
    for _ in range(2):
        agents.train(agent, out=tmp_path, resume=True, **{**budget, "env_steps": 3 * 128})
        config = json.loads(path.read_text())
        assert (config["versions"], config["git"]) == ({"jax": "0.1"}, None)
        (went_on,) = config["resumed"]
        assert went_on["versions"]["jax"] == jax.__version__
        assert went_on["device"] == config["device"]


def test_a_run_goes_on_with_other_devices_and_lanes(agent, budget, tmp_path):
    agents.train(agent, out=tmp_path / "whole", **budget)
    run = tmp_path / "run"
    elsewhere = agents.make("eggroll", agent.env, **ES, devices=1, lanes=3)
    options = {**budget, "evaluator": None}
    agents.train(elsewhere, out=run, **{**options, "env_steps": 3 * 128})
    agents.train(agent, out=run, resume=True, **budget)
    assert metrics_of(run)[3:] == metrics_of(tmp_path / "whole")[3:]
    assert weights_of(run) == weights_of(tmp_path / "whole")


def test_the_best_policy_is_kept(agent, budget, tmp_path):
    result = agents.train(agent, out=tmp_path, **{**budget, "eval_every": 1})
    means = [line["eval_return_mean"] for line in metrics_of(tmp_path)]
    best = agents.load_policy(tmp_path / "best")
    assert np.mean(best.evaluation["returns"]) == pytest.approx(max(means))
    assert means[best.training["generations"] - 1] == max(means)
    assert result.best.training == best.training


def test_a_damaged_checkpoint_falls_back_on_the_one_before(agent, budget, tmp_path, caplog):
    agents.train(agent, out=tmp_path / "whole", **budget)
    run = tmp_path / "run"
    agents.train(agent, out=run, checkpoint_every=2, **{**budget, "env_steps": 4 * 128})
    (run / "checkpoints" / "4" / "progress" / "metadata").write_bytes(b"")
    agents.train(agent, out=run, resume=True, **budget)
    assert "checkpoints/4 cannot be read, the one before is tried" in caplog.text
    assert (run / "checkpoints" / "damaged-4" / "state").is_dir()
    assert metrics_of(run) == metrics_of(tmp_path / "whole")
    assert weights_of(run) == weights_of(tmp_path / "whole")


def test_updates_that_fail_in_vain_end_the_run_with_the_best_policy_saved(
    agent, budget, tmp_path, monkeypatch
):
    """From the fourth generation on nothing is finite any more, evaluations neither."""
    step, evaluate = agent.step, budget["evaluator"]
    done = []

    def breaks(state, notify):
        state, metrics = step(state, notify)
        done.append(metrics)
        broken = {"return_mean": np.nan, "update_skipped": 1} if len(done) > 3 else {}
        return state, {**metrics, **broken}

    class Evaluate:
        compile = evaluate.compile

        def __call__(self, weights, **options):
            played = evaluate(weights, **options)
            return replace(played, returns=played.returns * np.nan) if len(done) > 3 else played

    monkeypatch.setattr(agent, "step", breaks)
    options = {**budget, "env_steps": 10**6, "eval_every": 1, "evaluator": Evaluate()}
    with pytest.raises(agents.Diverged, match="10 updates in a row were not finite.*/best"):
        agents.train(agent, out=tmp_path, **options)
    assert len(done) == 13
    best = agents.load_policy(tmp_path / "best")
    assert np.isfinite(best.evaluation["returns"]).all()
    assert best.training["generations"] <= 3
    assert np.isnan(agents.load_policy(tmp_path).evaluation["returns"]).all()


def test_what_a_process_leaves_that_was_killed_at_once_is_in_nobodys_way(agent, budget, tmp_path):
    (tmp_path / ".lock").touch()
    assert agents.train(agent, out=tmp_path, **budget).generations == 6


def test_no_checkpoints_where_none_are_wanted(agent, budget, tmp_path):
    result = agents.train(agent, out=tmp_path, checkpoint_seconds=None, **budget)
    assert result.checkpoint is None
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seed": 1}, "seed=1: must be 0, as the run began with it"),
        ({"eval_every": 3}, "eval_every=3: must be 2, as the run began with it"),
        ({"evl_every": 3}, "evl_every=3: no such option of a run; did you mean eval_every"),
        ({"out": "nowhere"}, "resume=nowhere: must be a run's folder: there is no config.json"),
        ({"out": None}, "out=None: must be the folder of a run"),
        ({"keep": 0}, "keep=0: must be at least 1"),
        ({"checkpoint_seconds": 0}, "checkpoint_seconds=0: must be a number of seconds above 0"),
    ],
)
def test_what_cannot_be_resumed(agent, budget, tmp_path, change, says):
    agents.train(agent, out=tmp_path / "run", **{**budget, "env_steps": 128})
    with pytest.raises(ValueError, match=says):
        agents.train(agent, **{**budget, "out": tmp_path / "run", "resume": True, **change})


CONFIG = json.dumps(
    {
        "format": 3,
        "env": "probe/policy_reward",
        "env_kwargs": {},
        "agent": "eggroll",
        "settings": {},
        "initial": None,
        "seed": 0,
        "env_steps": 9,
        "seconds": None,
        "target_return": None,
        "eval_every": 2,
        "evaluations": None,
        "eval_episodes": 4,
        "checkpoint_every": None,
        "checkpoint_seconds": 60.0,
        "keep": 2,
    }
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "must be a run's folder: config.json is damaged"),
        ("[]", "config.json is damaged .a JSON list.: must be an object"),
        ("[" * 10_000, "config.json is damaged .nested too deeply"),
        ('{"env": "probe/policy_reward"}', "is of format 1: this version goes on with runs of"),
        ('{"format": 99}', "is of format 99: this version goes on with runs of format 3"),
        ('{"format": 2}', "is of format 2: this version goes on with runs of format 3"),
        (
            CONFIG.replace('"env": "probe/policy_reward"', '"env": 3'),
            "config.json: env must be a text",
        ),
        (
            CONFIG.replace('"seed": 0', '"seed": "0"'),
            "config.json: seed=.*: must be a whole number",
        ),
        (
            CONFIG.replace('"seed": 0', '"seed": true'),
            "config.json: seed=.*: must be a whole number",
        ),
        (CONFIG.replace('"keep": 2', '"left": 2'), "config.json: keep must be there"),
        (
            CONFIG.replace('"initial": null', '"initial": "../policy"'),
            "config.json: initial must be a SHA-256 in hex, or null",
        ),
    ],
)
def test_a_config_that_is_not_ours(agent, budget, tmp_path, text, says):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=says):
        agents.train(agent, out=tmp_path, resume=True, **budget)
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"]


def test_one_process_at_a_time(agent, budget, tmp_path):
    agents.train(agent, out=tmp_path, **budget)
    holder = (
        "import fcntl, sys\n"
        "file = open(sys.argv[1], 'w')\n"
        "fcntl.flock(file, fcntl.LOCK_EX)\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", holder, str(tmp_path / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        with pytest.raises(ValueError, match="another process writes to this run"):
            agents.train(agent, out=tmp_path, resume=True, **budget)
        process.stdin.close()
    agents.train(agent, out=tmp_path, resume=True, **budget)


def test_a_folder_that_cannot_be_written(agent, budget, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="out=.*cannot be written|must be an empty or a new"):
        agents.train(agent, out=tmp_path / "file" / "run", **budget)


# Where one array cannot be written, Orbax leaves the errors of the others for nobody to ask for.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="mounting needs root")
def test_a_full_disk_ends_the_run_and_spares_the_last_checkpoint(agent, budget, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    with contextlib.ExitStack() as stack:
        stack.callback(subprocess.run, ["umount", "--lazy", str(disk)], check=True)
        run = disk / "run"
        checkpoints = run / "checkpoints"

        def fill(metrics, snapshot):
            if metrics["generation"] == 7:
                # Removing an old one later would make room again.
                while (checkpoints / "2").exists() or not (checkpoints / "6").exists():
                    time.sleep(0.01)
                with (
                    contextlib.suppress(OSError),
                    (disk / "filler").open("wb", buffering=0) as file,
                ):
                    while file.write(bytes(4096)) == 4096:
                        pass

        longer = {**budget, "env_steps": 50 * 128, "checkpoint_every": 2}
        says = "cannot be written any more .*; the last checkpoint is .*/checkpoints/6"
        with pytest.raises(UserError, match=says):
            agents.train(agent, out=run, on_generation=fill, **longer)
        (disk / "filler").unlink()
        budget = {**budget, "env_steps": 10 * 128}
        agents.train(agent, out=run, resume=True, **budget)
        agents.train(agent, out=tmp_path / "whole", **budget)
        assert metrics_of(run) == metrics_of(tmp_path / "whole")
        assert weights_of(run) == weights_of(tmp_path / "whole")


def test_a_run_folder_lets_go_of_its_lock(tmp_path):
    config = json.loads(CONFIG)
    first = RunFolder(tmp_path / "run", config=config, resume=False)
    with pytest.raises(ValueError, match="another process"):
        RunFolder(tmp_path / "run", config=config, resume=True)
    first.close()
    RunFolder(tmp_path / "run", config=config, resume=True).close()
