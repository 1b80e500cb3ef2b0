"""Files of policies from strangers: pickles, what is no file, and weights that are damaged."""

import os
import pickle
import struct
import tracemalloc

import numpy as np
import pytest
import safetensors.numpy

import agents
from tests.agents.hostile.spoiling import (
    POLICY_FILES,
    Bomb,
    header_of,
    refusal,
    with_header,
    write,
)


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("name", POLICY_FILES)
def test_a_pickle_is_not_unpickled(folder, tmp_path, name, protocol):
    marker = tmp_path / "marker"
    bomb = pickle.dumps(Bomb(marker), protocol)
    pickle.loads(bomb).close()
    assert marker.exists(), "it would go off"
    marker.unlink()
    write(folder, name, bomb)
    assert f"{name} is damaged" in refusal(folder)
    assert not marker.exists()


@pytest.mark.parametrize("name", POLICY_FILES)
@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: path.mkdir(), "cannot be read (Is a directory)"),
        (os.mkfifo, "is not a file: must be a regular one"),
        (lambda path: path.symlink_to("/dev/zero"), "is not a file: must be a regular one"),
        (lambda path: path.symlink_to(path), "cannot be read (Too many levels"),
        (lambda path: path.symlink_to("nowhere"), "there is no"),
    ],
)
def test_what_is_no_file(folder, name, spoil, says):
    (folder / name).unlink()
    spoil(folder / name)
    assert says in refusal(folder)


def test_links_to_files_are_followed(folder, tmp_path):
    for name in POLICY_FILES:
        (folder / name).rename(tmp_path / name)
        (folder / name).symlink_to(tmp_path / name)
    assert agents.load_policy(folder).agent == "eggroll"


def change(key, **fields):
    def spoil(header, data):
        return with_header({**header, key: {**header.get(key, {}), **fields}}, data)

    return spoil


MEAN = "observation/mean"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda header, data: b"", "is damaged (it has 0 bytes"),
        (lambda header, data: b"\x01" * 7, "is damaged (it has 7 bytes"),
        (lambda header, data: bytes(range(256)), "is damaged (it has 256 bytes"),
        (lambda header, data: struct.pack("<Q", 10**9) + data, "a header of 1000000000"),
        (lambda header, data: struct.pack("<Q", 2**63) + data, f"a header of {2**63}"),
        (lambda header, data: b"\xff" * 8 + data, f"a header of {2**64 - 1}"),
        (lambda header, data: with_header(b" " * (1 << 21)), "a header of at most 1 MiB"),
        (lambda header, data: with_header(b"", data), "is damaged (JSONDecodeError"),
        (lambda header, data: with_header([], data), "must be an object"),
        (lambda header, data: with_header(b"[" * 100_000, data), "nested too deeply"),
        (lambda header, data: with_header(b'{"a": 1, "a": 2}', data), "a key comes twice"),
        (
            lambda header, data: with_header({}, data),
            "observation/count is missing, must be F32 []",
        ),
        (lambda header, data: with_header({**header, "x": 1}, data), "x is no object, must be"),
        (change("../../x", dtype="F32", shape=[1]), "../../x is F32 [1], must be absent"),
        (change("__metadata__", a="b"), "__metadata__ is None None, must be absent"),
        (change(MEAN, dtype="F64"), f"{MEAN} is F64 [1], must be F32 [1]"),
        (change(MEAN, dtype="I32"), f"{MEAN} is I32 [1], must be F32 [1]"),
        (change(MEAN, shape=[10**12]), f"{MEAN} is F32 [1000000000000], must be F32 [1]"),
        (change(MEAN, shape=[]), f"{MEAN} is F32 [], must be F32 [1]"),
        (change(MEAN, data_offsets=[0, 10**12]), "is damaged"),
        (change(MEAN, data_offsets=[2**63, 2**63 + 4]), "is damaged"),
        (change(MEAN, data_offsets=[-4, 0]), "is damaged"),
        (change(MEAN, data_offsets=[0, 4]), "is damaged"),  # where another array lies
        (change(MEAN, data_offsets="x"), "is damaged"),
        (lambda header, data: with_header(header, data[:-1]), "is damaged"),
        (lambda header, data: with_header(header, data + b"\0"), "is damaged"),
    ],
)
def test_what_is_no_file_of_its_weights(folder, spoil, says):
    header, data = header_of((folder / "weights.safetensors").read_bytes())
    write(folder, "weights.safetensors", spoil(header, data))
    assert says in refusal(folder)


def test_a_file_that_is_too_large_is_not_read(folder):
    os.truncate(folder / "weights.safetensors", 3 << 30)  # of nothing: it takes no space
    tracemalloc.start()
    try:
        assert f"is damaged (it has {3 << 30} bytes)" in refusal(folder)
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", [MEAN, "observation/std", "params/params/Dense_0/kernel"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite(folder, name, value):
    flat = safetensors.numpy.load_file(folder / "weights.safetensors")
    flat[name] = np.full_like(flat[name], value)
    write(folder, "weights.safetensors", safetensors.numpy.save(flat))
    assert f"all of {name} must be finite" in refusal(folder)


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_a_deviation_that_is_none(folder, value):
    flat = safetensors.numpy.load_file(folder / "weights.safetensors")
    flat["observation/std"][:] = value
    write(folder, "weights.safetensors", safetensors.numpy.save(flat))
    assert "all of observation/std must be above 0" in refusal(folder)


def test_a_count_that_is_none(folder):
    flat = safetensors.numpy.load_file(folder / "weights.safetensors")
    flat["observation/count"] = np.full((), -1, np.float32)
    write(folder, "weights.safetensors", safetensors.numpy.save(flat))
    assert "observation/count must be at least 0" in refusal(folder)
