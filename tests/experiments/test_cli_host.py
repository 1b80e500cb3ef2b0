"""The command on environments that step on the host, and what it leaves running: nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "experiments.cli")
SMALL = ("--population-size", "8", "--hidden", "4", "--workers", "2")
IMPORT = ("--import", "tests.envs.faulty")


def workers(folder):
    """The processes that have left their number there, and still run."""
    running = []
    for path in folder.iterdir():
        stat = Path("/proc", path.name, "stat")
        # A zombie that its new parent has not reaped yet runs no more.
        if int(path.name) != os.getpid() and stat.exists() and ") Z " not in stat.read_text():
            running.append(int(path.name))
    return running


def eventually(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


@pytest.fixture
def training(tmp_path):
    """Starts `es-rl train` on an environment that goes wrong; -> process, folder of workers."""
    started = []

    def start(kind, *arguments, wait_for=2):
        pids = tmp_path / "pids"
        pids.mkdir()
        process = subprocess.Popen(
            [
                *(*COMMAND, "train", "gymnasium/Faulty-v0", *IMPORT, *SMALL, *arguments),
                *("--env-kwargs", f"kind={kind}", f"pids={pids}", "every=3"),
                *("--out", str(tmp_path / "run")),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        started.append(process)
        # Two workers, and the process itself, which asks for the spaces.
        assert eventually(lambda: len(list(pids.iterdir())) > wait_for, 60)
        return process, pids

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_failures_are_counted_and_training_goes_on(training, tmp_path):
    process, pids = training("raise", "--env-steps", "300", "--eval-every", "100")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    lines = [json.loads(x) for x in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    failed = [line["failed_episodes"] for line in lines]
    assert sum(failed) > 0
    assert [line["nonfinite_members"] for line in lines] == failed
    assert "seed" in err
    assert "step 17: ArithmeticError: the sum is wrong; played once more" in err
    assert workers(pids) == []


def test_ctrl_c_ends_with_the_policy_saved_and_no_worker_left(training, tmp_path):
    process, pids = training("none", "--env-steps", "100000000")
    assert eventually((tmp_path / "run/metrics.jsonl").exists)
    assert eventually(lambda: (tmp_path / "run/metrics.jsonl").stat().st_size > 0, 60)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert (tmp_path / "run/policy/policy.json").exists()
    assert workers(pids) == []


@pytest.mark.parametrize("kind", ["none", "hang"])
def test_workers_die_with_a_parent_that_is_killed(training, kind):
    process, pids = training(kind, "--env-steps", "100000000", "--step-timeout", "1000")
    time.sleep(2.0)  # into the run, or into an environment that sleeps for ever
    assert len(workers(pids)) == 3, "with the process itself"
    process.kill()
    process.wait()
    assert eventually(lambda: workers(pids) == [])


def test_kwargs_and_modules_come_back_with_a_replay(tmp_path):
    def es_rl(*arguments):
        return subprocess.run(
            [*COMMAND, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT, timeout=120
        )

    run = tmp_path / "run"
    name = "gymnasium/tests.envs.faulty:Faulty-v0"
    trained = es_rl(
        *("train", name, *SMALL, "--env-steps", 100, "--env-kwargs", "max_episode_steps=5"),
        *("--out", run),
    )
    assert trained.returncode == 0, trained.stderr
    config = json.loads((run / "config.json").read_text())
    assert config["env"] == "gymnasium/Faulty-v0"
    assert config["env_kwargs"] == {"max_episode_steps": 5}
    replay = f"es-rl replay {run} {' '.join(IMPORT)}"
    assert f"replay: {replay}\n" in trained.stdout
    assert (
        f"resume: es-rl train --resume {run} {' '.join(IMPORT)} --env-steps 200\n" in trained.stdout
    )
    replayed = es_rl(*replay.split()[1:], "--json", "--episodes", 3)
    assert json.loads(replayed.stdout)["returns"] == [5.0, 5.0, 5.0]
    unknown = es_rl("replay", run)
    assert unknown.returncode == 2
    assert "--import MODULE brings in your own" in unknown.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--env-kwargs", "length"), "--env-kwargs length: must be name=value"),
        (("--env-kwargs", "a=1", "a=2"), "--env-kwargs a=2: a is given twice"),
        (("--env-kwargs", "colour=1"), "unexpected keyword argument 'colour'"),
        (("--import", "no_such_module"), "--import no_such_module: must be a module"),
        (("--workers", "0"), "--workers 0: must be at least 1"),
        (("--step-timeout", "-1"), "--step-timeout -1.0: must be a number of seconds above 0"),
        (("--lanes", "0"), "--lanes 0: must be at least 1"),
    ],
)
def test_bad_input_is_one_line(arguments, message, tmp_path):
    done = subprocess.run(
        [*COMMAND, "train", "gymnasium/CartPole-v1", *arguments, "--out", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()
