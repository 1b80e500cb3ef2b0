"""The help pages: what matters comes first, and nothing is missing."""

import re
from dataclasses import dataclass, fields

import pytest

import agents
from agents.registry import config_type
from agents.training.run_config import RunConfig
from experiments import cli
from experiments.commands.replay import ReplayFlags
from experiments.commands.train import TrainFlags
from experiments.commands.tune import TuneFlags

NAMES = {"modules": "import", "settings_file": "settings"}
FIRST = (
    *("env-steps", "seconds", "target-return", "seed", "out", "agent", "settings", "resume"),
    *("init-from", "env-kwargs", "evaluations", "video-every", "import"),
)


@pytest.fixture
def page(monkeypatch, capsys):
    """Shows the help page of a command: its first line, and the flags of each group."""

    def show(*arguments):
        monkeypatch.setenv("COLUMNS", "80")
        with pytest.raises(SystemExit) as ended:
            cli.main([*arguments, "--help"])
        assert ended.value.code == 0
        lines = capsys.readouterr().out.splitlines()
        groups = {}
        for line in lines:
            title = line.strip("╭╮─ ")  # with lines around it, or without in a plain encoding
            if title.endswith(("options", "positional arguments")):
                groups[title] = flags = []
            elif flag := re.match(
                r"(?:│|  ?)(?: ?-h,)? ?(?:--([a-z][a-z-]*)|([\[A-Z]+\]?))[ ,]", line
            ):
                flags.append(flag[1] or flag[2])
        return lines[0], groups, lines

    return show


def flags_of(*kinds):
    names = {each.name for kind in kinds for each in fields(kind)} - {"env", "run"}
    return {NAMES.get(name, name).replace("_", "-") for name in names}


def test_the_flags_of_training_that_matter_come_first(page):
    usage, groups, lines = page("train", "brax/ant")
    assert usage == "usage: es-rl train [-h] [OPTIONS] [ENV]"
    assert list(groups)[:3] == ["positional arguments", "options", "eggroll options"]
    assert groups["positional arguments"] == ["[ENV]"]
    assert groups["options"] == ["help", *FIRST]
    assert groups["eggroll options"][:3] == ["population-size", "sigma", "learning-rate"]
    assert groups["network options"][0] == "network"
    assert groups["distributed options"][0] == "distributed"
    assert groups["machine options"][:3] == ["lanes", "devices", "workers"]
    # Help is broken where the terminal ends, and not where a docstring is.
    assert any("and evaluation; None sets no limit. (default: None)" in line for line in lines)
    assert not any("(default: )" in line for line in lines)


@pytest.mark.parametrize("agent", ["eggroll", "ppo", "sbx_ppo", "random"])
@pytest.mark.parametrize(
    ("command", "kinds"), [("train", (TrainFlags, RunConfig)), ("tune", (TuneFlags,))]
)
def test_every_flag_is_in_one_group(page, command, kinds, agent):
    _, groups, _ = page(command, "brax/ant", "--agent", agent)
    del groups["positional arguments"]
    shown = [flag for flags in groups.values() for flag in flags]
    assert sorted(shown) == sorted({"help", *flags_of(*kinds, config_type(agent))})


def test_replay_begins_with_what_is_played_and_made(page):
    usage, groups, _ = page("replay")
    assert usage == "usage: es-rl replay [-h] [OPTIONS] RUN"
    assert groups["options"][:5] == ["help", "episodes", "seed", "video", "html"]
    shown = [flag for name, flags in groups.items() if name[0] != "p" for flag in flags]
    assert sorted(shown) == sorted({"help", *flags_of(ReplayFlags)})


@dataclass(frozen=True)
class OwnConfig:
    """Settings of a user's agent."""

    tries: int = 2
    """The number of policies that an
    iteration draws."""
    sigma: float = 1.0
    undocumented: bool = False


def test_an_agent_of_ones_own_has_a_group(page, monkeypatch):
    monkeypatch.setattr("agents.registry._AGENTS", dict(agents.registry._AGENTS))
    agents.register("own", OwnConfig, agents.registry.agent_type("random"))
    _, groups, lines = page("train", "brax/ant", "--agent", "own")
    assert groups["own options"] == ["sigma", "tries", "undocumented"]
    text = " ".join(line.strip("│ ") for line in lines)
    assert "The number of policies that an iteration draws. (default: 2)" in " ".join(text.split())
