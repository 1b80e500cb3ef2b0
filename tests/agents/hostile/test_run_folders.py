"""Run folders from strangers: whatever lies in one, nothing outside is read or written.

Links lead to other places, and metrics hold lines that are none; the run goes on from an honest
checkpoint, or ends with a message.
"""

import os
import time
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.training.run_folder import RunFolder, read_config
from envs.errors import UserError
from tests.agents.hostile.spoiling import SECRET, contents, few, fresh, go_on, spoil

# Where one array cannot be read, Orbax leaves the errors of the others for nobody to ask for.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("errors_reported"),
]


def test_the_run_that_is_spoilt_is_a_good_one(run, place):
    folder = fresh(run, place)
    assert go_on(folder, run) == 4
    assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == ["5", "6"]
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 5
    assert not [p for p in folder.rglob("*") if p.name.endswith(".partial")]


OWN = (
    *(".lock", "config.json", "metrics.jsonl", "checkpoints", "tensorboard", "policy", "best"),
    *("videos", "videos/generation-000002.mp4", "config.json.partial", "metrics.jsonl.partial"),
    *("checkpoints/4", "checkpoints/5", "checkpoints/6", "checkpoints/damaged-5"),
    *("checkpoints/4/state", "checkpoints/4/state/d", "checkpoints/4/state/manifest.ocdbt"),
    *("checkpoints/4/state/_METADATA", "checkpoints/4/_CHECKPOINT_METADATA"),
    *("checkpoints/4/progress", "checkpoints/4/progress/metadata"),
    *("checkpoints/5.orbax-checkpoint-tmp", "policy/policy.json", "best/weights.safetensors"),
    *("policy/policy.json.partial", "tensorboard/x", "elsewhere", "checkpoints/metadata"),
)


@few
@given(
    name=st.sampled_from(OWN),
    how=st.sampled_from(("file", "folder", "nothing", "itself", "hard", "pipe", "emptied")),
)
def test_nothing_outside_is_touched_whatever_a_name_leads_to(run, place, name, how):
    folder = fresh(run, place)
    outside = place[1]
    before = contents(outside)
    spoil(folder / name, outside, how)
    with suppress(UserError):
        assert go_on(folder, run) in (0, 2, 4)
    assert contents(outside) == before


@pytest.mark.parametrize("name", [n for n in OWN if "partial" not in n and n != "elsewhere"])
@pytest.mark.parametrize("how", ["file", "folder", "nothing"])
def test_links_are_refused_and_named(run, place, name, how):
    folder = fresh(run, place)
    spoil(folder / name, place[1], how)
    with pytest.raises(UserError, match=rf"resume=.*{name} is a link: must be a fi?"):
        read_config(folder)


def test_a_lock_that_is_a_link_is_refused_in_a_new_run_too(run, place):
    inside, outside = place
    for how in ("file", "nothing", "hard"):
        before = contents(outside)
        spoil(inside / ".lock", outside, how)
        with pytest.raises(UserError, match=r"\.lock is .*: must be a file"):
            RunFolder(inside, config={}, resume=False)
        assert contents(outside) == before


def test_a_link_to_the_whole_run_is_the_users_own(run, place, tmp_path):
    fresh(run, place)
    (tmp_path / "latest").symlink_to(place[0] / "run")
    assert go_on(tmp_path / "latest", run) == 4


def test_films_replace_what_has_their_name(place):
    from agents.training.filming import Film
    from experiments.videos import write_video

    inside, outside = place
    recorded = Film(list(np.zeros((2, 64, 64, 3), np.uint8)), 30.0, 0.0)
    for name in ("a.mp4", "a.gif"):
        for how in ("file", "hard"):
            spoil(inside / name, outside, how)
            write_video(inside / name, recorded)
            assert (outside / "file").read_bytes() == SECRET
            assert not (inside / name).is_symlink()
            assert (inside / name).stat().st_size > 100
    assert len(list(inside.iterdir())) == 2


@pytest.mark.parametrize(
    "line",
    [
        *(b"[" * 100_000, b"{", b"1", b"null", b"[]", b'{"generation": "2"}', b"\xff" * 9),
        *(b'{"generation": {"a": 1}}', b'{"generation": %s}' % (b"9" * 9999), b" " * (2 << 20)),
    ],
)
def test_metrics_end_before_a_line_that_is_none(run, place, line):
    folder = fresh(run, place)
    path = folder / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], line + b"\n", *lines[3:]]))
    go_on(folder, run)
    written = path.read_bytes().splitlines(keepends=True)
    assert written[:2] == lines[:2]
    assert len(written) == 3


def test_a_giant_among_metrics_is_not_read(run, place):
    folder = fresh(run, place)
    os.truncate(folder / "metrics.jsonl", 0)
    os.truncate(folder / "metrics.jsonl", 8 << 30)
    began = time.monotonic()
    go_on(folder, run)
    assert time.monotonic() - began < 5
    assert (folder / "metrics.jsonl").stat().st_size < 1000
