"""Several processes train what one trains, bit by bit, and end when one of them does."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import agents
import envs
from experiments.cli import main
from experiments.commands.launch import free_address

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "experiments.cli")
SMALL = ("--population-size", "20", "--hidden", "4", "--eval-every", "3", "--eval-episodes", "10")
# Bits depend on the number of lanes on a device where XLA multiplies larger blocks in another way.
ACCELERATOR = ("gymnasium/phys2d/CartPole-v1", *SMALL, "--devices", "1", "--env-steps", "20000")
ENDLESS = (*ACCELERATOR[:-2], "--env-steps", "1000000000", "--target-return", "1e9")
ENDLESS += ("--checkpoint-every", "4")
HOST = ("gymnasium/CartPole-v1", *SMALL, "--workers", "1", "--env-steps", "3000")
# What depends on time, or on who played what.
APART = ("wall_seconds", "evaluation_seconds", "steps_per_second", "lane_utilization")


def es_rl(*arguments, **environment):
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def outcome(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    metrics = [{k: v for k, v in line.items() if k not in APART} for line in lines]
    return metrics, (run / "policy" / "weights.safetensors").read_bytes()


def exchanged(hlo):
    """What devices exchange in a compiled program: (operation, its arrays)."""
    operations = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-[a-z]+|ragged-[a-z-]+"
    pattern = rf"^.* = (.*) ({operations})(?:-start)?\("
    found = re.findall(pattern, hlo, re.MULTILINE)
    return [(operation, re.findall(r"\w+\[[\d,]*\]", arrays)) for arrays, operation in found]


@pytest.mark.parametrize(
    ("task", "one", "two"),
    [(ACCELERATOR, ("--lanes", "8"), ("--lanes", "16")), (HOST, (), ())],
    ids=["accelerator", "host"],
)
def test_two_processes_train_what_one_trains(task, one, two, tmp_path):
    alone = es_rl("train", *task, *one, "--out", str(tmp_path / "one"))
    assert alone.returncode == 0, alone.stderr
    together = es_rl(
        *("launch", "-n", "2", "--", "train", *task, *two, "--out", str(tmp_path / "two")),
        XLA_FLAGS=f"--xla_dump_to={tmp_path / 'hlo'}",
        JAX_ENABLE_COMPILATION_CACHE="false",
    )
    assert together.returncode == 0, together.stderr
    first, second = outcome(tmp_path / "one"), outcome(tmp_path / "two")
    assert first == second
    assert len(first[0]) >= 5
    assert together.stdout.count("evaluation return") == 1
    if task == ACCELERATOR:
        for part, expected in (
            ("_start_generation", [[]]),
            ("_start_play", [[], []]),
            # Of the 20 training and the 10 evaluation episodes, and of the lanes' steps of each
            # device: return, length and, in training, two sums of 4 numbers.
            (
                "_advance_play",
                [[("all-gather", ["s32[12,2]"])], [("all-gather", ["s32[22,10]"])]],
            ),
            ("_finish_generation", [[]]),
        ):
            programs = (tmp_path / "hlo").glob(f"*jit_{part}.*after_optimizations.txt")
            found = sorted(exchanged(text) for text in {path.read_text() for path in programs})
            assert {part: found} == {part: expected}


class Pair:
    """Two processes that train."""

    def __init__(self, run, *arguments):
        self.run = run
        self.said = [run.parent / f"said-{number}" for number in range(2)]
        together = ("--coordinator", free_address(), "--num-processes", "2")
        command = [*COMMAND, "train", *arguments, *together, "--heartbeat-seconds", "5"]
        self.running = []
        for number, said in enumerate(self.said):
            with said.open("w") as file:
                whole = [*command, "--out", str(run), "--process-id", str(number)]
                self.running.append(
                    subprocess.Popen(whole, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=file)
                )

    def generations(self):
        metrics = self.run / "metrics.jsonl"
        return len(metrics.read_text().splitlines()) if metrics.exists() else 0

    @property
    def advice(self):
        return f"go on with: es-rl train --resume {self.run}"

    def loses(self, victim):
        """Kill one; -> the last line of the other, which has to end soon."""
        self.running[victim].kill()
        self.running[victim].wait()
        assert self.running[1 - victim].wait(30) != 0
        return self.said[1 - victim].read_text().splitlines()[-1]

    def wait_for(self, generations):
        deadline = time.monotonic() + 120
        while self.generations() < generations and time.monotonic() < deadline:
            assert [process.poll() for process in self.running] == [None, None], self.said
            time.sleep(0.05)


def test_when_one_is_killed_the_other_ends_and_one_goes_on(tmp_path):
    pair = Pair(tmp_path / "run", *ENDLESS, "--lanes", "16")
    pair.wait_for(12)
    assert pair.loses(1) == f"es-rl: process 1 of 2 ended or fell silent; {pair.advice}"
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    budget = ("--env-steps", str(json.loads(lines[-1])["env_steps"] + 2000))
    budget += ("--lanes", "8")  # the same on the device of each process
    resumed = es_rl("train", "--resume", str(tmp_path / "run"), *budget)
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads((tmp_path / "run" / "config.json").read_text())["settings"]["lanes"] == 8
    alone = (*ENDLESS, *budget, "--out", str(tmp_path / "alone"))
    assert es_rl("train", *alone).returncode == 0
    assert outcome(tmp_path / "run") == outcome(tmp_path / "alone")


def test_when_process_0_is_killed_the_other_ends(tmp_path):
    pair = Pair(tmp_path / "run", *ENDLESS)
    pair.wait_for(1)
    assert f"as process 0 cannot be reached; {pair.advice}" in pair.loses(0)


def test_a_signal_to_one_stops_both_with_a_checkpoint(tmp_path):
    pair = Pair(tmp_path / "run", *ENDLESS)
    pair.wait_for(3)
    pair.running[1].send_signal(signal.SIGTERM)
    assert [process.wait(60) for process in pair.running] == [143, 143]
    assert (tmp_path / "run" / "checkpoints" / str(pair.generations())).is_dir()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("launch", "train"), "Unrecognized options: train"),
        (("launch", "-n", "0", "--", "train"), "--num-processes 0: must be at least 1"),
        (("launch", "-n", "x", "--", "train"), "invalid literal"),
        (("launch", "-n", "2", "--", "replay"), "COMMAND replay: must be a train command after --"),
        (
            ("train", "brax/ant", "--coordinator", "h:1"),
            "must come with --num-processes and --process-id",
        ),
        (
            ("train", "brax/ant", "--process-id", "0"),
            "must come with --coordinator and --num-processes",
        ),
        (
            ("train", "brax/ant", "--coordinator=x", "--num-processes=2", "--process-id=0"),
            "--coordinator x: must be HOST:PORT",
        ),
        (
            ("train", "brax/ant", "--coordinator=x:1", "--num-processes=2", "--process-id=2"),
            "--process-id 2: must be from 0 to 1",
        ),
        (
            ("train", "brax/ant", "--distributed", "--num-processes", "2"),
            "--distributed True: finds out itself, so no --num-processes",
        ),
        (("train", "brax/ant", "--heartbeat-seconds", "0"), "must be at least 1"),
    ],
)
def test_what_cannot_be_is_refused(arguments, says, capsys):
    with pytest.raises(SystemExit) as refused:
        main(arguments)
    assert refused.value.code == 2
    assert says in capsys.readouterr().err


def test_an_evaluation_has_an_episode_for_every_process(monkeypatch, tmp_path):
    agent = agents.make("eggroll", envs.make("gymnasium/CartPole-v1"), population_size=8)
    monkeypatch.setattr("es_rl.processes.count", lambda: 4)
    with pytest.raises(ValueError, match="eval_episodes=3: must be at least 4, the number of"):
        agents.train(agent, env_steps=1, eval_episodes=3, out=tmp_path / "run")
    with pytest.raises(ValueError, match="population_size=2: must be at least 4, the number of"):
        agents.make("eggroll", agent.env, population_size=2)


def test_what_only_processes_find_out_is_refused_too(tmp_path):
    out = ("--out", str(tmp_path / "run"))
    refused = es_rl("launch", "--", "train", "probe/policy_reward", "--agent", "ppo", *out)
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert line.endswith("--agent ppo: trains in one process only: must be one of eggroll, open_es")
    assert not (tmp_path / "run").exists()
