"""Helpers that spoil the files of an honest run and of an honest policy, for tests.

Where an edit is to get past a digest, the digest is made to agree: who can write the one can write
the other.
"""

import copy
import hashlib
import json
import os
import shutil
import struct
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

import agents
from agents.training.progress import Progress
from agents.training.run_folder import RunFolder, read_config
from experiments import cli

SECRET = b"a file of somebody else's\n"
POLICY_FILES = ("policy.json", "weights.safetensors")
few = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
many = settings(few, max_examples=200)

ODD = st.sampled_from(
    [None, True, False, -1, 0, 7, 0.5, -0.5, 1e300, 2**31 - 1, 2**31, 2**63, 10**30, 10**400]
    + ["", "text", "\x1b[2J", "x" * 5000, "../x", "gymnasium/evil:x/good", "evil:Env-v0"]
    + [[], {}, [1], [[1]], [None], ["x" * 3000] * 100, [10**9], {"a": 1}, {"\x1b": 1}, {"": {}}]
    + [{"xml_file": "/etc/passwd"}, {"name": "ppo"}, {"self": 1}, float("nan"), float("-inf")]
)


def inside_and_outside(folder):
    """(a place for copies of the run, a folder outside of it with a file)."""
    outside = folder / "outside"
    (outside / "folder").mkdir(parents=True)
    (outside / "file").write_bytes(SECRET)
    (outside / "folder" / "4").write_bytes(SECRET)
    (folder / "inside").mkdir()
    return folder / "inside", outside


def fresh(run, place):
    """A copy to be spoilt."""
    shutil.rmtree(place[0])
    return shutil.copytree(run.folder, place[0] / "run")


def contents(folder):
    return {
        p.relative_to(folder): None if p.is_dir() else p.read_bytes() for p in folder.rglob("*")
    }


def remove(path):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def go_on(folder, run):
    """All that a run does to its folder as it goes on; the generation that it goes on from."""
    read_config(folder)
    config = json.loads((folder / "config.json").read_text())
    opened = RunFolder(folder, config=config, resume=True)
    try:
        restored = opened.open(2, run.like)
        step = 0 if restored is None else restored.step
        metrics = {"generation": step, "env_steps": 64 * (step + 1), "return_mean": 1.0}
        opened.log(metrics)
        progress = json.loads(json.dumps(Progress(generation=step + 1).to_json()))
        opened.checkpoint(step + 1, run.like, progress)
        opened.wait()
        opened.checkpoint(step + 2, run.like, {**progress, "generation": step + 2})
        opened.wait()
    finally:
        opened.close()
    return step


def error_of(capsys, *arguments):
    """The one line that a command complains in."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(list(arguments))
    assert stopped.value.code == 2
    says = capsys.readouterr().err
    assert says.count("\n") == 1
    assert says.strip().isprintable()
    return says


def spoil(path, outside, how):
    """Put something else in the place of a file or a folder, if there is a place."""
    with suppress(FileNotFoundError, NotADirectoryError):
        remove(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    match how:
        case "file":
            path.symlink_to(outside / "file")
        case "folder":
            path.symlink_to(outside / "folder")
        case "nothing":
            path.symlink_to(outside / "new")
        case "itself":
            path.symlink_to(path)
        case "hard":
            os.link(outside / "file", path)
        case "pipe":
            os.mkfifo(path)
        case "emptied":
            path.mkdir()


def paths_of(value, path=()):
    """The places of all values within a JSON value."""
    yield path
    parts = value if isinstance(value, dict) else dict(enumerate(as_list(value)))
    for key, part in parts.items():
        yield from paths_of(part, (*path, key))


def as_list(value):
    return value if isinstance(value, list) else []


def replaced(value, path, other):
    if not path:
        return other
    changed = copy.copy(value)
    changed[path[0]] = replaced(value[path[0]], path[1:], other)
    return changed


def refusal(folder):
    with pytest.raises(ValueError, match="^policy ") as error:
        agents.load_policy(folder)
    says = str(error.value)
    assert says.isprintable()
    assert len(says) < 1000
    assert repr(str(folder)) in says
    return says


def write(folder, name, data):
    (folder / name).write_bytes(data)
    if name == "weights.safetensors":
        edit(folder, "weights_sha256", hashlib.sha256(data).hexdigest())


def edit(folder, key, value):
    path = folder / "policy.json"
    description = json.loads(path.read_text())
    *parents, last = key.split(".")
    place = description
    for parent in parents:
        place = place[parent]
    place[last] = value
    path.write_text(json.dumps(description))


def header_of(blob):
    (length,) = struct.unpack("<Q", blob[:8])
    return json.loads(blob[8 : 8 + length]), blob[8 + length :]


def with_header(header, data=b""):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(header)) + header + data


class Bomb:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")
