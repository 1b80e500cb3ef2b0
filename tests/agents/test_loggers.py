"""Loggers of the user's: what they are told, and what becomes of a run whose logger fails."""

import json
import math
import os
import re
import struct
import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from tensorboardX.proto.event_pb2 import Event

import agents
import envs
from agents.training.event_log import EventLog
from agents.training.loggers import JsonLines, grouped
from agents.training.trackers import Tracker
from envs.errors import UserError
from envs.installing import pip_install

BUDGET = {"env_steps": 3 * 64, "eval_every": 2, "eval_episodes": 4}


class Kept:
    """Keeps what it is told; fails at one generation, if that is to be."""

    def __init__(self, fails_at=None):
        self.told, self.closed, self.fails_at = [], 0, fails_at

    def log(self, metrics):
        if metrics["generation"] == self.fails_at:
            raise ConnectionError("the service is gone")
        self.told.append(metrics)

    def close(self):
        self.closed += 1


@pytest.fixture(scope="module")
def agent():
    env = envs.make("probe/policy_reward")
    return agents.make("eggroll", env, population_size=8, hidden=())


def test_a_logger_is_told_what_the_run_writes(agent, tmp_path):
    logger, other = Kept(), Kept()
    agents.train(agent, out=tmp_path, loggers=[logger, other], **BUDGET)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 3
    told = [{k: v if math.isfinite(v) else None for k, v in m.items()} for m in logger.told]
    assert told == lines
    assert other.told == logger.told
    assert (logger.closed, other.closed) == (1, 1)


@pytest.mark.parametrize("through", ["loggers", "on_generation"])
def test_a_run_whose_logger_fails_goes_on_from_there(agent, tmp_path, through):
    whole = agents.train(agent, out=tmp_path / "whole", **BUDGET)
    failing = Kept(fails_at=1)
    told = {"loggers": [failing]}
    if through == "on_generation":
        told = {through: lambda metrics, snapshot: failing.log(metrics)}
    # A ConnectionError is an OSError, as those of a folder that cannot be written are.
    with pytest.raises(ConnectionError, match="the service is gone"):
        agents.train(agent, out=tmp_path / "run", **told, **BUDGET)
    assert (tmp_path / "run" / "checkpoints" / "2").is_dir()
    assert failing.closed == (through == "loggers")
    again = Kept()
    resumed = agents.train(agent, out=tmp_path / "run", resume=True, loggers=[again])
    assert [metrics["generation"] for metrics in again.told] == [2]
    assert resumed.evaluation.returns.tolist() == whole.evaluation.returns.tolist()
    for file in ("policy/weights.safetensors", "best/weights.safetensors"):
        assert (tmp_path / "run" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


@pytest.fixture
def service(monkeypatch):
    """A module that keeps the calls of its functions, in place of wandb and trackio."""
    calls = []
    made = SimpleNamespace(
        __spec__="is installed",
        init=lambda **given: calls.append(("init", given)),
        log=lambda metrics, step: calls.append(("log", step, {*metrics})),
        finish=lambda: calls.append(("finish",)),
    )
    for name in ("wandb", "trackio"):
        monkeypatch.setitem(sys.modules, name, made)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return calls


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_services_are_told_of_a_run(service, agent, tmp_path, name):
    run = tmp_path / "run"
    tracker = Tracker(name, run, {"agent": "eggroll"})
    assert service == []
    agents.train(agent, out=run, loggers=[tracker], **BUDGET)
    (first, given), *logged = service
    assert first == "init"
    shared = {"project": "es-rl", "name": "run", "config": {"agent": "eggroll"}}
    of_wandb = {"dir": str(run), "mode": "offline"}
    assert given == shared | (of_wandb if name == "wandb" else {})
    *lines, last = logged
    assert last == ("finish",)
    assert [line[:2] for line in lines] == [("log", 0), ("log", 1), ("log", 2)]
    assert {"train/return", "eval/return", "time/env_steps", "update/sigma"} <= lines[0][2]


def events(file):
    """The events in a file of TensorBoard's."""
    data = file.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        yield Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]


def test_tensorboard_shows_metrics_in_groups_with_the_return_first(agent, tmp_path):
    agents.train(agent, out=tmp_path, **BUDGET)
    (file,) = (tmp_path / "tensorboard").iterdir()
    found = {}
    for event in events(file):
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value.simple_value))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    in_groups = {}
    for tag in sorted(found):
        group, name = tag.split("/")
        in_groups.setdefault(group, []).append(name)
    assert list(in_groups) == ["eval", "time", "train", "update", "warnings"]
    assert in_groups["eval"] == ["return", "return_std"]
    assert in_groups["train"] == ["return", "return_max", "return_min", "return_std"]
    assert "steps_per_second" in in_groups["time"]
    assert {"sigma", "grad_norm", "learning_rate"} <= {*in_groups["update"]}
    assert "nonfinite_members" in in_groups["warnings"]
    for tag, name in (("train/return", "return_mean"), ("eval/return", "eval_return_mean")):
        wrote = [(x["env_steps"], pytest.approx(x[name])) for x in lines if name in x]
        assert found[tag] == wrote


def is_within(descriptor, folder):
    """Whether an open file is in a folder."""
    with suppress(OSError):
        return Path(f"/proc/self/fd/{descriptor}").readlink().is_relative_to(folder)
    return False


@pytest.mark.parametrize("kind", ["events", "lines"])
def test_a_file_on_a_full_disk_is_closed_all_the_same(tmp_path, kind):
    lines = tmp_path / "metrics.jsonl"
    log = EventLog(tmp_path / "log") if kind == "events" else JsonLines(lines, 0)
    descriptor = next(fd for fd in range(3, 999) if is_within(fd, tmp_path))
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, descriptor)  # from now on, what is written fails
    os.close(full)
    with suppress(OSError):  # it may be buffered
        log.log({"env_steps": 1.0, "return_mean": 2.0})
    with pytest.raises(OSError, match="No space left"):
        log.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("success_rate", "train/success_rate"),
        ("eval_success_rate", "eval/success_rate"),
        ("info_distance_mean", "train_info/distance_mean"),
        ("eval_info_distance_mean", "eval_info/distance_mean"),
        ("train_env_return_mean", "train_env/return"),
        ("train_env_info_x_mean", "train_env_info/x_mean"),
        ("policy_loss", "update/policy_loss"),
        ("update_skipped", "warnings/update_skipped"),
    ],
)
def test_metrics_of_every_kind_have_a_group(name, tag):
    assert grouped({name: 1.0}) == {tag: 1.0}


def test_wandb_uses_the_network_where_the_user_says_so(service, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "online")
    Tracker("wandb", tmp_path, {}).log({"generation": 0})
    assert service[0][1]["mode"] == "online"


def test_a_service_that_is_not_installed_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(
        UserError, match=rf"logger=trackio: .*\({re.escape(pip_install('trackio'))}\)"
    ):
        Tracker("trackio", tmp_path, {})
