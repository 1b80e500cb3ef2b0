"""Files of an agent's settings, in the command and in suites."""

from pathlib import Path

import pytest

from agents.registry import configure
from envs.errors import UserError
from experiments import cli
from experiments.comparison import suites
from experiments.flags.settings_files import read_settings, settings_toml

ENV = "gymnasium/Pendulum-v1"
SUITE = """
[[agents]]
name = "tuned"
agent = "eggroll"
settings_file = "best.toml"
rank = 4
[[agents]]
name = "eggroll"
[[tasks]]
env = "gymnasium/Pendulum-v1"
threshold = -200
env_steps = 1000
seconds = 1
[tasks.settings.eggroll]
settings_file = "{file}"
"""


def test_settings_are_read_as_they_were_written(tmp_path):
    settings = vars(configure("eggroll", ENV, hidden=(3, 5), episode_steps=None, sigma=1e-5))
    path = tmp_path / "settings.toml"
    path.write_text(settings_toml("eggroll", [("all", settings)], ["one\ntwo"]))
    assert read_settings(path, "eggroll") == settings
    assert settings["episode_steps"] is None, "where the preset has a number"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sgima = 1", "--settings best.toml: the file: no 'sgima' is known; did you mean sigma?"),
        ("sigma = -1", "--settings best.toml: sigma=-1: must be greater than 0"),
        ('rank = "none"', "--settings best.toml: rank='none': must be a whole number"),
        (
            'agent = "ppo"',
            "--settings best.toml: holds settings of agent 'ppo': must be of eggroll",
        ),
        ("sigma = ", "--settings best.toml: is no TOML file, which it must be"),
    ],
)
def test_a_bad_file_is_refused(text, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("best.toml").write_text(text)
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", ENV, "--settings", "best.toml"])
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


def test_a_suite_may_name_a_file(tmp_path):
    (tmp_path / "best.toml").write_text('sigma = 0.7\nrank = 3\nepisode_steps = "none"')
    (tmp_path / "mine.toml").write_text(SUITE.format(file="best.toml"))
    suite = suites.load(str(tmp_path / "mine.toml"))
    (entry,) = suite.entries
    tuned, plain = map(entry.settings_of, suite.contestants)
    for settings, rank in ((tuned, 4), (plain, 3)):
        assert (settings["sigma"], settings["rank"]) == (0.7, rank)
        assert settings["episode_steps"] is None
        assert settings["population_size"] == 64, "from the preset"
    (tmp_path / "mine.toml").write_text(SUITE.format(file="none.toml"))
    with pytest.raises(UserError, match=r"settings of eggroll: settings_file 'none.toml': is no"):
        suites.load(str(tmp_path / "mine.toml"))
