"""The benchmark over sizes of networks measures what its table says."""

import json
from pathlib import Path

import pytest

from experiments.benchmarks import networks
from experiments.benchmarks.networks import Size, markdown, measure, table

RESULTS = Path(__file__).parents[2] / "experiments" / "results" / "networks"


@pytest.mark.parametrize(("agent", "numbers"), [("eggroll", 1), ("open_es", 0)])
def test_a_generation_is_measured(agent, numbers):
    size = Size("gymnasium/phys2d/Pendulum-v0", 8, {"hidden": (16,)})
    found = measure(agent, size, rounds=2)
    assert found["parameters"] == 3 * 16 + 16 + 16 * 1 + 1
    assert len(found["seconds"]) == 2
    assert min(*found["seconds"], found["compile_seconds"]) > 0
    assert found["peak_bytes"] > 50e6
    # Four draws of float32: of full noise, or of factors of both matrices and noise of the biases.
    factors = (3 + 16) + (16 + 1) + (16 + 1)
    assert found["noise_bytes"] >= 4 * 4 * (factors if numbers else found["parameters"])
    assert found["noise_bytes"] < 1.5 * 4 * 4 * (factors if numbers else found["parameters"])


def test_the_committed_table_is_made_of_the_committed_figures():
    record = json.loads((RESULTS / "networks.json").read_text())
    assert set(record["found"]) == set(networks.SIZES)
    assert (RESULTS / "table.md").read_text() == markdown(table(record["found"]))
