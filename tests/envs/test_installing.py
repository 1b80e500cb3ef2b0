"""Messages about missing packages say how they are installed here."""

from pathlib import Path

import pytest

import envs
from envs import available, installing
from envs.installing import pip_install


def test_in_a_checkout_extras_are_installed_from_it(monkeypatch, tmp_path):
    root = Path(envs.__file__).parent.parent
    monkeypatch.chdir(tmp_path)
    assert pip_install("atari") == f'pip install -e "{root}[atari]"'
    monkeypatch.chdir(root)
    assert pip_install("atari") == 'pip install -e ".[atari]"'


def test_elsewhere_they_are_installed_by_their_name(monkeypatch, tmp_path):
    monkeypatch.setattr(installing, "_ROOT", tmp_path)  # as site-packages, without a pyproject.toml
    assert pip_install("atari") == 'pip install "es-rl[atari]"'
    monkeypatch.setattr(available, "find_spec", lambda name: None)
    assert available.obstacle("jumanji/Snake-v1") == 'needs jumanji: pip install "es-rl[jumanji]"'


def test_all_messages_say_it_alike():
    """None of them names the package itself, which would be wrong in a checkout."""
    root = Path(envs.__file__).parent.parent
    for folder in ("agents", "envs", "es_rl", "experiments"):
        for path in sorted((root / folder).rglob("*.py")):
            if path != Path(installing.__file__) and path.name != "kinetix_suite.py":
                assert "es-rl[" not in path.read_text(), path


@pytest.mark.parametrize("named", ["mine/reacher", "gymnasium/Reacher-v99"])
def test_an_unknown_environment_may_be_ones_own(named):
    with pytest.raises(envs.UserError, match="--import MODULE brings in your own"):
        envs.make(named)
