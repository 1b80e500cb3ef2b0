"""Configurations of runs from strangers: no code runs, and one line says what is wrong."""

import json
import os
import re
import sys
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

import envs
from envs.errors import UserError
from experiments import startup
from experiments.commands import train
from tests.agents.hostile.spoiling import ODD, contents, error_of, fresh, many, paths_of, replaced


@pytest.fixture
def command(monkeypatch, tmp_path):
    """`es-rl train`, which in place of training says with what."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for module in ("warp", "evil", "good"):
        marker = tmp_path / f"{module} ran"
        (tmp_path / "here" / f"{module}.py").write_text(f"open({str(marker)!r}, 'w')")
    monkeypatch.setattr(sys, "path", list(sys.path))
    reached = []
    monkeypatch.setattr(train, "train_and_report", lambda agent, *of, **_: reached.append(of) or 0)
    yield reached
    assert not list(tmp_path.glob("* ran"))
    assert not {"warp", "evil", "good"} & sys.modules.keys()
    assert os.getcwd() not in sys.path


@many
@given(data=st.data(), other=ODD)
def test_whatever_stands_in_a_configuration(run, place, command, data, other):
    folder = place[0]
    honest = json.loads((run.folder / "config.json").read_text())
    read = [p for p in paths_of(honest) if p[:1] not in {("versions",), ("git",), ("device",)}]
    path = data.draw(st.sampled_from(read))
    (folder / "config.json").write_text(json.dumps(replaced(honest, path, other)))
    command.clear()
    with suppress(UserError):
        train.main(["--resume", str(folder)])
        assert len(command) == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seed": -1}, "config.json: seed=-1: must be at least 0"),
        ({"eval_episodes": 10**9}, "config.json: eval_episodes=1000000000: must be at most 100000"),
        ({"seconds": 10**400}, "config.json: seconds=10+ .* must be at most 2147483647"),
        ({"env": "x\x1b[2J"}, "config.json: env must be printable"),
        ({"env_kwargs": {"a b": 1}}, "config.json: the keys of env_kwargs must be names"),
        ({"settings": {"name": "x"}}, "config.json: name='x': no such setting of eggroll"),
        ({"settings": {"population_size": 2**31 - 2}}, "must be at most 67108864"),
        ({"settings": {"devices": 10**6}}, "--devices 1000000: must be at most 1024"),
        ({"settings": {"hidden": [2**20] * 3}}, "GiB of weights: must be at most 4 GiB"),
        ({"settings": {"rank": 2**30}}, "GiB of noise for this network: must make at most"),
        ({"env": "gymnasium/evil:x/good"}, "the environment gymnasium/evil:x/good needs --import"),
        ({"env_kwargs": {"xml_file": "/x"}}, "xml_file='/x' must not be a path .*--trust"),
        ({"env_kwargs": {"deep": [["m:E"]]}}, "must not be a path or a module, unless.*--trust"),
        (
            {"train_env": "probe/policy_reward", "train_env_kwargs": {"xml_file": "/x"}},
            "xml_file='/x' must not be a path .*--trust",
        ),
        (
            {"train_env": "gymnasium/evil:x/good", "train_env_kwargs": {}},
            "it trains on gymnasium/evil:x/good, which must be made in Python",
        ),
        ({"train_env_kwargs": {}}, "train_env_kwargs must both be null, or neither"),
        (
            {"train_env": "probe/policy_reward", "train_env_kwargs": {"horizon": 3}},
            "config.json: train_env_kwargs: .*unexpected keyword argument 'horizon'",
        ),
    ],
)
def test_what_a_configuration_may_not_ask_for(run, place, command, capsys, change, says):
    folder = fresh(run, place)
    honest = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**honest, **change}))
    before = contents(folder)
    assert re.search(says, error_of(capsys, "train", "--resume", str(folder)))
    assert contents(folder) == before
    assert command == []


def test_the_module_that_is_checked_is_the_one_that_would_be_imported(run, place, command, capsys):
    folder = fresh(run, place)
    honest = json.loads((folder / "config.json").read_text())
    text = json.dumps({**honest, "env": "gymnasium/evil:x/good"})
    (folder / "config.json").write_text(text)
    says = error_of(capsys, "train", "--resume", str(folder), "--import", "good")
    assert "the environment gymnasium/evil:x/good needs --import evil" in says
    assert envs.registry.split_id("gymnasium/evil:x/good") == ("evil", "gymnasium/x/good")
    assert envs.registry.split_id("brax/evil:ant") == (None, "brax/evil:ant")


def test_a_run_that_is_trusted_may_name_files(run, place, command, capsys):
    folder = fresh(run, place)
    honest = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**honest, "env_kwargs": {"xml_file": "/x"}}))
    says = error_of(capsys, "train", "--resume", str(folder), "--trust")
    assert "unexpected keyword argument 'xml_file'" in says


def test_the_working_directory_is_searched_for_modules_that_are_typed_alone(command):
    startup.import_modules(())
    startup.import_modules((), "brax/ant")
    startup.import_modules((), "evil:Env-v0")
    assert os.getcwd() not in sys.path
    startup.import_modules((), "gymnasium/good:Env-v0")
    assert sys.path.pop() == os.getcwd()
