"""What the drawings of the documentation show is what the engine does."""

import numpy as np
import pytest

from docs import drawings
from tests.es_rl.test_rollout import JOBS, play


@pytest.mark.parametrize("lanes", [1, 6, 40])
def test_jobs_are_packed_as_lanes_play_them(lanes):
    played = play(JOBS, lanes=lanes)
    lengths = np.asarray(played.lengths).tolist()
    starts = drawings.packed(lengths, lanes)
    last = max(start + length for (_, start), length in zip(starts, lengths, strict=True))
    assert int(played.lane_steps.sum()) == lanes * last
    steps = {lane: set() for lane in range(lanes)}
    for (lane, start), length in zip(starts, lengths, strict=True):
        busy = set(range(start, start + length))
        assert not steps[lane] & busy
        steps[lane] |= busy


@pytest.mark.parametrize("rank", [1, 4, 16])
def test_the_density_of_noise_has_its_moments(rank):
    x = (np.arange(400_000) + 0.5) / 10_000
    of_half = drawings.density(x, rank) / 10_000
    moments = [2 * float(np.sum(of_half * x**power)) for power in (0, 2, 4)]
    # The sum misses a little at rank 1, whose density has no bound at 0.
    np.testing.assert_allclose(moments, [1, 1, 3 + 6 / rank], rtol=1e-4)


def test_the_drawings_are_up_to_date(tmp_path, monkeypatch):
    names = ("population", "forward", "generation")
    committed = [(drawings.ASSETS / f"{name}.svg").read_text() for name in names]
    monkeypatch.setattr(drawings, "ASSETS", tmp_path)
    for name, text in zip(names, committed, strict=True):
        getattr(drawings, name)()
        assert (tmp_path / f"{name}.svg").read_text() == text
