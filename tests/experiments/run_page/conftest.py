"""Runs that left a folder, of which tests make pages of copies."""

import json
import shutil

import pytest

from experiments.commands import train

CART_POLE = "gymnasium/phys2d/CartPole-v1"


@pytest.fixture(scope="session")
def cart_pole(tmp_path_factory):
    """The folder of a finished run, with films."""
    out = tmp_path_factory.mktemp("cart_pole") / "run"
    assert train.main([CART_POLE, "--video-every", "5", "--out", str(out)]) == 0
    return out


@pytest.fixture
def run(cart_pole, tmp_path):
    """A copy of that folder."""
    return shutil.copytree(cart_pole, tmp_path / "run")


@pytest.fixture
def config_of(run):
    """Change values in the config.json of the copy."""

    def change(**values):
        path = run / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


@pytest.fixture
def metrics_of(run):
    """Replace the metrics of the copy by generations with these values."""

    def replace(*lines):
        path = run / "metrics.jsonl"
        path.write_text(
            "".join(json.dumps(counted(i, line)) + "\n" for i, line in enumerate(lines))
        )

    return replace


def counted(generation, values):
    return {"generation": generation, "env_steps": 100 * (generation + 1), **values}
