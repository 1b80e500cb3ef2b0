"""Checkpoints come back bit by bit, or not at all."""

import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from es_rl.checkpoints import Checkpoints, placed


def state(value):
    return {
        "key": jax.random.key(value),
        "params": (jnp.full((3, 2), value, jnp.float32), jnp.zeros((0, 4))),
        "seeds": np.arange(5, dtype=np.int64) + value,
        "generation": jnp.int32(value),
    }


def bits(tree):
    data = jax.tree.map(
        lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x,
        tree,
    )
    return [(x.dtype, x.shape, np.asarray(x).tobytes()) for x in jax.tree.leaves(data)]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with the checkpoints of steps 2 and 3 out of three."""
    folder = tmp_path_factory.mktemp("checkpoints")
    checkpoints = Checkpoints(folder, keep=2)
    for step in (1, 2, 3):
        checkpoints.save(step, state(step), {"env_steps": step * 10, "mean": 0.1})
    checkpoints.close()
    return folder


def test_the_latest_comes_back_as_it_was(saved):
    checkpoints = Checkpoints(saved)
    assert checkpoints.steps == [2, 3]
    restored = checkpoints.restore(state(0))
    assert (restored.step, restored.progress) == (3, {"env_steps": 30, "mean": 0.1})
    assert bits(restored.state) == bits(state(3))
    assert jax.tree.structure(restored.state) == jax.tree.structure(state(3))
    assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves(restored.state))
    again = placed(restored.state, state(0))
    assert again["key"].dtype == state(0)["key"].dtype
    assert isinstance(again["seeds"], np.ndarray)
    assert again["params"][0].sharding == state(0)["params"][0].sharding
    assert bits(again) == bits(state(3))
    checkpoints.close()


def test_nothing_saved_is_nothing_restored(tmp_path):
    checkpoints = Checkpoints(tmp_path / "new")
    assert checkpoints.restore(state(0)) is None
    checkpoints.close()


def test_what_is_saved_may_be_donated_at_once(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    x = jnp.arange(100_000.0)
    double = jax.jit(lambda x: x * 2, donate_argnums=0)
    checkpoints.save(1, {"x": x}, {})
    double(x).block_until_ready()
    checkpoints.wait()
    restored = checkpoints.restore({"x": jnp.zeros(100_000)})
    np.testing.assert_array_equal(restored.state["x"], np.arange(100_000.0))
    checkpoints.close()


FILES = ("state/_METADATA", "state/manifest.ocdbt", "state/d/*", "progress/metadata")


# Where one array cannot be read, Orbax leaves the errors of the others for nobody to ask for.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("damage", ["deleted", "truncated", "emptied", "overwritten"])
def test_damage_to_any_file_is_noticed_or_harmless(saved, tmp_path, caplog, damage):
    names = [p.relative_to(saved) for p in (saved / "3").rglob("*") if p.is_file()]
    noticed = set()
    for name in names:
        folder = tmp_path / "copy"
        shutil.copytree(saved, folder)
        path = folder / name
        content = path.read_bytes()
        middle = len(content) // 2
        match damage:
            case "deleted":
                path.unlink()
            case "truncated":
                path.write_bytes(content[:middle])
            case "emptied":
                path.write_bytes(b"")
            case "overwritten":
                other = bytes([content[middle] ^ 0xFF])
                path.write_bytes(content[:middle] + other + content[middle + 1 :])
        checkpoints = Checkpoints(folder)
        caplog.clear()
        restored = checkpoints.restore(state(0))
        checkpoints.close()
        said = [m for m in caplog.messages if "cannot be read" in m]
        assert bits(restored.state) == bits(state(restored.step))
        assert bool(said) == (restored.step == 2)
        if said:
            noticed.add(name)
            assert f"checkpoint {folder / '3'} cannot be read, the one before is tried" in said[0]
        shutil.rmtree(folder)
    for pattern in FILES:
        assert any(name.match("3/" + pattern) for name in noticed), pattern


def test_where_none_can_be_read_it_says_so(saved, tmp_path, caplog):
    folder = tmp_path / "copy"
    shutil.copytree(saved, folder)
    for step in ("2", "3"):
        (folder / step / "progress" / "metadata").write_bytes(b"garbage")
    checkpoints = Checkpoints(folder)
    with pytest.raises(ValueError, match="none of the checkpoints there can be read"):
        checkpoints.restore(state(0))
    assert len(caplog.messages) == 2
    checkpoints.close()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"params": (jnp.zeros((4, 2)), jnp.zeros((0, 4)))}, r"\['params'\]\[0\]"),
        ({"seeds": np.zeros(5, np.int32)}, r"\['seeds'\] is .*int64.*, must be .*int32"),
        ({"more": np.zeros(1)}, r"\['more'\] is None"),
    ],
)
def test_arrays_of_another_shape_are_not_read(saved, caplog, change, says):
    checkpoints = Checkpoints(saved)
    with pytest.raises(ValueError, match="none of the checkpoints"):
        checkpoints.restore({**state(0), **change})
    assert re.search(says, caplog.text)
    checkpoints.close()


def test_an_unfinished_checkpoint_is_passed_over(saved, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(saved, folder)
    shutil.copytree(folder / "3", folder / "4.orbax-checkpoint-tmp")
    (folder / "4.orbax-checkpoint-tmp" / "state" / "_METADATA").unlink()
    checkpoints = Checkpoints(Path(folder))
    assert checkpoints.restore(state(0)).step == 3
    checkpoints.close()
