"""Checkpoints from strangers: what is damaged or forged is passed over for the one before."""

import json
import re
import time
import tracemalloc
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import tensorstore
from hypothesis import given
from hypothesis import strategies as st

import agents
from agents.training.progress import Progress
from envs.errors import UserError
from es_rl.checkpoints import Checkpoints
from tests.agents.hostile.spoiling import ODD, fresh, go_on, many, paths_of, remove, replaced

# Where one array cannot be read, Orbax leaves the errors of the others for nobody to ask for.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("errors_reported"),
]


def test_an_edit_of_the_progress_is_noticed(run, place, caplog):
    folder = fresh(run, place)
    path = folder / "checkpoints" / "4" / "progress" / "metadata"
    honest = path.read_text()
    assert '"env_steps": 256' in honest
    path.write_text(honest.replace('"env_steps": 256', '"env_steps": 56'))
    assert go_on(folder, run) == 2
    assert "checkpoints/4 cannot be read, the one before is tried" in caplog.text
    assert "what it holds is not what was saved" in caplog.text


def test_a_checkpoint_under_another_number_is_noticed(run, place):
    folder = fresh(run, place)
    checkpoints = folder / "checkpoints"
    (checkpoints / "4").rename(checkpoints / "47")
    assert go_on(folder, run) == 2
    assert (checkpoints / "damaged-47").is_dir()


@pytest.mark.parametrize("name", ["00004", "\u0664", "99999999999", "47", "7"])
def test_names_that_are_no_numbers_of_ours_are_put_aside(run, place, name):
    folder = fresh(run, place)
    path = folder / "checkpoints" / name
    if name == "7":
        path.write_bytes(b"a file")
        (folder / "checkpoints" / "damaged-7").write_bytes(b"a file")
    else:
        path.mkdir()
    assert go_on(folder, run) == 4
    assert not path.exists()
    kept = sorted(p.name for p in (folder / "checkpoints").iterdir())
    assert kept == ["5", "6", f"damaged-{name}"]


def test_what_is_too_large_is_not_read(run, place, caplog):
    for name in ("progress/metadata", "state/_METADATA", "state/manifest.ocdbt", "state/new"):
        folder = fresh(run, place)
        with (folder / "checkpoints" / "4" / name).open("ab") as file:
            file.truncate(3 << 30)  # of nothing: it takes no space
        tracemalloc.start()
        try:
            assert go_on(folder, run) == 2
            assert tracemalloc.get_traced_memory()[1] < 100e6
        finally:
            tracemalloc.stop()
        assert "bytes: must be at most" in caplog.text
        caplog.clear()


def arrays_of(folder):
    """The latest checkpoint's arrays, as they lie in its files, and their keys."""
    base = f"file://{folder}/checkpoints/4/state/"
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result()
    return store, store.list().result()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"chunks": [10**5, 10**5]}, "is kept in parts of"),
        ({"shape": [10**5, 10**5]}, r"is \(\(100000, 100000\)"),
        ({"dtype": "<f8"}, "float64"),
    ],
)
def test_arrays_are_read_in_no_other_way_than_they_were_written(run, place, caplog, change, says):
    folder = fresh(run, place)
    store, keys = arrays_of(folder)
    name = next(k for k in keys if k.endswith(b"['kernel']/.zarray"))
    described = json.loads(store.read(name).result().value)
    store.write(name, json.dumps({**described, **change})).result()
    assert go_on(folder, run) == 2
    assert re.search(says, caplog.text)


def zeros(size):
    """So many zeros as Zstandard packs them: blocks of 128 KiB, each one byte that is repeated."""
    block = 1 << 17
    header = 0xFD2FB528.to_bytes(4, "little") + b"\xe0" + size.to_bytes(8, "little")
    kinds = [block << 3 | 1 << 1] * (size // block)
    kinds[-1] |= 1  # the last one
    return header + b"".join(kind.to_bytes(3, "little") + b"\0" for kind in kinds)


def test_a_compressed_giant_is_not_unpacked(run, place, caplog):
    folder = fresh(run, place)
    store, keys = arrays_of(folder)
    store.write(next(k for k in keys if not k.endswith(b".zarray")), zeros(64 << 30)).result()
    began = time.monotonic()
    assert go_on(folder, run) == 2
    assert time.monotonic() - began < 5
    assert re.search("too much memory|End of data expected", caplog.text)


def test_a_checkpoint_counts_once_it_was_read_back(place, monkeypatch):
    """Brackets and backslashes in paths are patterns and separators to Orbax and TensorStore."""
    state = {"x": np.arange(3.0)}
    for name in ("plain", "[b]", "back\\slash", "gs:", "new\nline", "per%20cent", "\udcff", "a*"):
        folder = place[0] / name / "checkpoints"
        checkpoints = Checkpoints(folder, keep=1)
        for step in (1, 2):
            checkpoints.save(step, state, {})
        checkpoints.close()
        again = Checkpoints(folder)
        assert again.steps == [2]
        np.testing.assert_array_equal(again.restore(state).state["x"], state["x"])
        again.close()
    checkpoints = Checkpoints(folder)

    def fails(step, kinds):
        raise ValueError("nothing there")

    monkeypatch.setattr(checkpoints, "_check_arrays", fails)
    checkpoints.save(3, state, {})
    with pytest.raises(OSError, match="nothing there"):
        checkpoints.wait()
    assert checkpoints.steps == [2]
    checkpoints.close()


@many
@given(data=st.data(), other=ODD)
def test_whatever_stands_in_the_progress(run, data, other):
    path = run.folder / "checkpoints" / "4" / "progress" / "metadata"
    honest = json.loads(path.read_text())["progress"]
    place = data.draw(st.sampled_from(list(paths_of(honest))))
    with suppress(UserError):
        progress = Progress.from_json(replaced(honest, place, other))
        for name in ("evaluation", "best_evaluation"):
            evaluation = getattr(progress, name)
            assert evaluation.returns.shape == evaluation.lengths.shape
            assert evaluation.returns.dtype == np.float64
        assert 0 <= progress.best_env_steps <= progress.env_steps <= 2**62
        assert 0 <= progress.best_generation <= progress.evaluated_generation
        assert progress.evaluated_generation <= progress.generation
        assert 0 <= progress.evaluation_seconds <= progress.wall_seconds < 1e39


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"generation": 5}, "its generation is 5, must be 4"),
        ({"generation": 3}, "evaluated_generation of its progress must be at most 3"),
        ({"env_steps": 2**63}, "env_steps of its progress must be at most"),
        ({"env_steps": "256"}, "env_steps of its progress must be a whole number"),
        ({"skipped": -1}, "skipped of its progress must be at least 0"),
        ({"wall_seconds": float("nan")}, "wall_seconds of its progress must be finite"),
        ({"more": 1}, "progress must be an object of"),
        ({"evaluation": None}, "must be all there or none"),
        ({"evaluation": {"seed": 0, "returns": [1.0], "lengths": []}}, "must be lists of 1 to"),
        ({"evaluation": {"seed": 0, "returns": [1.0], "lengths": [1, 2]}}, "must be as many"),
        ({"evaluation": {"seed": 0, "returns": ["1"], "lengths": [1]}}, "must be numbers"),
        ({"best_generation": 5}, "best_generation of its progress must be at most"),
    ],
)
def test_a_forged_progress_is_passed_over(run, place, caplog, change, says):
    folder = fresh(run, place)
    checkpoints = Checkpoints(folder / "checkpoints")
    restored = checkpoints.restore(run.like)
    remove(folder / "checkpoints" / "4")
    checkpoints.close()
    checkpoints = Checkpoints(folder / "checkpoints")
    checkpoints.save(4, restored.state, {**restored.progress, **change})
    checkpoints.close()
    assert go_on(folder, run) == 2
    assert says in caplog.text


def test_training_goes_on_from_the_checkpoint_before(run, place):
    folder = fresh(run, place)
    (folder / "checkpoints" / "4" / "progress" / "metadata").write_text("[" * 100_000)
    agents.train(run.agent, out=folder, resume=True, **run.budget)
    for name in ("policy", "best"):
        weights = Path(name, "weights.safetensors")
        assert (folder / weights).read_bytes() == (run.folder / weights).read_bytes()
