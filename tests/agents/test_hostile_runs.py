"""Run folders from strangers: whatever lies in one, nothing outside is read or written, and no code
runs; the run goes on from an honest checkpoint, or ends with a message.

Where an edit is to get past a digest, the digest is made to agree: who can write the one can write
the other.
"""

import copy
import gc
import json
import os
import re
import shutil
import sys
import time
import tracemalloc
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import tensorstore
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import agents
import envs
from agents.training.evaluation import Evaluator
from agents.training.progress import Progress
from agents.training.run_folder import RunFolder, read_config
from envs.errors import UserError
from envs.suites import gymnasium_suite
from es_rl.checkpoints import Checkpoints
from experiments import cli, startup
from experiments.commands import train
from experiments.comparison.results import Task
from experiments.comparison.suites import Contestant, Entry
from experiments.comparison.trials import Trials

# Where one array cannot be read, Orbax leaves the errors of the others for nobody to ask for.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
SECRET = b"a file of somebody else's\n"
SMALL = {"population_size": 8, "hidden": ()}
few = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
many = settings(few, max_examples=200)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of four generations, with checkpoints after the second and the fourth."""
    agent = agents.make("eggroll", envs.make("probe/policy_reward"), **SMALL)
    actor = agent.snapshot(agent.init(jax.random.key(0))).actor
    budget = {
        "env_steps": 4 * 64,
        "eval_episodes": 4,
        "eval_every": 2,
        "checkpoint_every": 2,
        "evaluator": Evaluator(agent.env, actor, agent.stage),
    }
    folder = tmp_path_factory.mktemp("honest") / "run"
    agents.train(agent, out=folder, **budget)
    state = agent.init(jax.random.key(0))
    like = (state, agent.snapshot(state).weights)
    yield SimpleNamespace(folder=folder, agent=agent, budget=budget, like=like)
    # The errors that Orbax left are reported here, not in the tests of the next module.
    time.sleep(1.0)
    gc.collect()


@pytest.fixture
def place(tmp_path):
    """(a place for copies of the run, a folder outside of them with a file)."""
    outside = tmp_path / "outside"
    (outside / "folder").mkdir(parents=True)
    (outside / "file").write_bytes(SECRET)
    (outside / "folder" / "4").write_bytes(SECRET)
    (tmp_path / "inside").mkdir()
    return tmp_path / "inside", outside


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


def test_the_run_that_is_spoilt_is_a_good_one(run, place):
    folder = fresh(run, place)
    assert go_on(folder, run) == 4
    assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == ["5", "6"]
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 5
    assert not [p for p in folder.rglob("*") if p.name.endswith(".partial")]


# --- links ---------------------------------------------------------------------------------------

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


# --- config.json ---------------------------------------------------------------------------------

ODD = st.sampled_from(
    [None, True, False, -1, 0, 7, 0.5, -0.5, 1e300, 2**31 - 1, 2**31, 2**63, 10**30, 10**400]
    + ["", "text", "\x1b[2J", "x" * 5000, "../x", "gymnasium/evil:x/good", "evil:Env-v0"]
    + [[], {}, [1], [[1]], [None], ["x" * 3000] * 100, [10**9], {"a": 1}, {"\x1b": 1}, {"": {}}]
    + [{"xml_file": "/etc/passwd"}, {"name": "ppo"}, {"self": 1}, float("nan"), float("-inf")]
)


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


@pytest.fixture
def command(monkeypatch, tmp_path):
    """`es-rl train`, which in place of training says with what."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for module in ("warp", "evil", "good"):
        marker = tmp_path / f"{module} ran"
        (tmp_path / "here" / f"{module}.py").write_text(f"open({str(marker)!r}, 'w')")
    monkeypatch.setattr(sys, "path", list(sys.path))
    reached = []
    monkeypatch.setattr(train.runs, "run", lambda agent, *of, **_: reached.append(of) or 0)
    yield reached
    assert not list(tmp_path.glob("* ran"))
    assert not {"warp", "evil", "good"} & sys.modules.keys()
    assert os.getcwd() not in sys.path


@many
@given(data=st.data(), other=ODD)
def test_whatever_stands_in_a_configuration(run, place, command, data, other):
    folder = place[0]
    honest = json.loads((run.folder / "config.json").read_text())
    read = [p for p in paths_of(honest) if p[:1] not in {("versions",), ("git",), ("device",)}]
    path = data.draw(st.sampled_from(read))
    (folder / "config.json").write_text(json.dumps(replaced(honest, path, other)))
    command.clear()
    with suppress(UserError):
        train.main(["--resume", str(folder)])
        assert len(command) == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seed": -1}, "config.json: seed=-1: must be at least 0"),
        ({"eval_episodes": 10**9}, "config.json: eval_episodes=1000000000: must be at most 100000"),
        ({"seconds": 10**400}, "config.json: seconds=10+ .* must be at most 2147483647"),
        ({"env": "x\x1b[2J"}, "config.json: env must be printable"),
        ({"env_kwargs": {"a b": 1}}, "config.json: the keys of env_kwargs must be names"),
        ({"settings": {"name": "x"}}, "config.json: name='x': no such setting of eggroll"),
        ({"settings": {"population_size": 2**31 - 2}}, "must be at most 67108864"),
        ({"settings": {"devices": 10**6}}, "--devices 1000000: must be at most 1024"),
        ({"settings": {"hidden": [2**20] * 3}}, "GiB of weights: must be at most 4 GiB"),
        ({"settings": {"rank": 2**30}}, "GiB of noise for this network: must make at most"),
        ({"env": "gymnasium/evil:x/good"}, "the environment gymnasium/evil:x/good needs --import"),
        ({"env_kwargs": {"xml_file": "/x"}}, "xml_file='/x' must not be a path .*--trust"),
        ({"env_kwargs": {"deep": [["m:E"]]}}, "must not be a path or a module, unless.*--trust"),
    ],
)
def test_what_a_configuration_may_not_ask_for(run, place, command, capsys, change, says):
    folder = fresh(run, place)
    honest = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**honest, **change}))
    before = contents(folder)
    assert re.search(says, error_of(capsys, "train", "--resume", str(folder)))
    assert contents(folder) == before
    assert command == []


def test_the_module_that_is_checked_is_the_one_that_would_be_imported(run, place, command, capsys):
    folder = fresh(run, place)
    honest = json.loads((folder / "config.json").read_text())
    text = json.dumps({**honest, "env": "gymnasium/evil:x/good"})
    (folder / "config.json").write_text(text)
    says = error_of(capsys, "train", "--resume", str(folder), "--import", "good")
    assert "the environment gymnasium/evil:x/good needs --import evil" in says
    assert envs.registry.split_id("gymnasium/evil:x/good") == ("evil", "gymnasium/x/good")
    assert envs.registry.split_id("brax/evil:ant") == (None, "brax/evil:ant")


def test_a_run_that_is_trusted_may_name_files(run, place, command, capsys):
    folder = fresh(run, place)
    honest = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**honest, "env_kwargs": {"xml_file": "/x"}}))
    says = error_of(capsys, "train", "--resume", str(folder), "--trust")
    assert "unexpected keyword argument 'xml_file'" in says


def test_replay_names_trust_and_no_damage(run, place, capsys):
    folder = fresh(run, place)
    path = folder / "policy" / "policy.json"
    description = json.loads(path.read_text())
    description["env"]["kwargs"] = {"xml_file": "/x.xml"}
    path.write_text(json.dumps(description))
    says = error_of(capsys, "replay", str(folder))
    assert "xml_file='/x.xml' must not be a path" in says
    assert "--trust" in says
    assert "damaged" not in says


def test_the_working_directory_is_searched_for_modules_that_are_typed_alone(command):
    startup.import_modules(())
    startup.import_modules((), "brax/ant")
    startup.import_modules((), "evil:Env-v0")
    assert os.getcwd() not in sys.path
    startup.import_modules((), "gymnasium/good:Env-v0")
    assert sys.path.pop() == os.getcwd()


# --- checkpoints ---------------------------------------------------------------------------------


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


# --- metrics.jsonl -------------------------------------------------------------------------------


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


# --- policy.json ---------------------------------------------------------------------------------


@many
@given(data=st.data(), other=ODD)
def test_whatever_stands_in_a_description(run, place, data, other):
    folder = place[0] / "policy"
    shutil.copytree(run.folder / "policy", folder, dirs_exist_ok=True)
    honest = json.loads((run.folder / "policy" / "policy.json").read_text())
    path = data.draw(st.sampled_from(list(paths_of(honest))))
    (folder / "policy.json").write_text(json.dumps(replaced(honest, path, other)))
    with suppress(UserError):
        policy = agents.load_policy(folder)
        evaluation = policy.evaluation or {"returns": [], "lengths": []}
        assert len(evaluation["returns"]) == len(evaluation["lengths"])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("nvec", ["x" * 1_400_000, *[""] * 400]),
        ("nvec", ["x" * 3000] * 450),
        ("start", [["x" * 700_000], *[[""]] * 400]),
        ("nvec", [1.5] * 300_000),
        ("nvec", [[1]] * 100_000),
    ],
)
def test_a_description_costs_no_more_than_its_size(run, place, key, value):
    """NumPy makes rows of 1.4 million letters of these, one for each of 400 texts."""
    folder = shutil.copytree(run.folder / "policy", place[0] / "policy")
    description = json.loads((folder / "policy.json").read_text())
    space = {"type": "MultiDiscrete", "nvec": [1] * 400, "start": [0] * 400, key: value}
    description["env"]["observation_space"] = space
    (folder / "policy.json").write_text(json.dumps(description))
    began = time.monotonic()
    with pytest.raises(UserError, match="policy.json is damaged"):
        agents.load_policy(folder)
    assert time.monotonic() - began < 2
    tracemalloc.start()
    try:
        with suppress(UserError):
            agents.load_policy(folder)
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()


# --- comparisons ---------------------------------------------------------------------------------

KEPT = {
    "task": "probe/policy_reward",
    "agent": "eggroll",
    "kind": "eggroll",
    "seed": 0,
    "error": None,
    "returns": [8.0] * 128,
    "env_steps": 64,
    "seconds": 1.5,
    "compile_seconds": 2.0,
    "evaluation_seconds": 0.5,
    "devices": 2,
    "curve": [[32, 0.5, 4.0], [64, 1.5, None]],
    "policy": "runs/probe/policy_reward/eggroll/seed-0/policy",
}


@pytest.fixture
def trials(tmp_path):
    """Trials of which the first has been made."""
    entry = Entry(Task("probe/policy_reward", 8.0, 100, 1.0), {"eggroll": {"hidden": (4,)}})
    contestant = Contestant("eggroll", "eggroll")
    chosen = entry.settings_of(contestant)
    folder = tmp_path / "runs" / "probe" / "policy_reward" / "eggroll"
    (folder / "seed-0").mkdir(parents=True)
    return Trials(entry.task, None, contestant, chosen, tmp_path, folder)


def kept(trials, run):
    path = trials.folder / "seed-0" / "run.json"
    path.write_text(json.dumps(run))
    return trials._kept(0)


def honest_run(trials):
    from agents.registry import preset

    source = preset("eggroll", "probe/policy_reward").source
    return {**KEPT, "settings": json.loads(json.dumps(trials.settings)), "source": source}


def test_the_kept_run_that_is_spoilt_is_a_good_one(trials):
    run = kept(trials, honest_run(trials))
    assert run.return_mean == 8.0
    assert run.curve[0] == (32, 0.5, 4.0)
    assert np.isnan(run.curve[1].return_mean)


@many
@given(data=st.data(), other=ODD)
def test_whatever_stands_in_a_kept_run(trials, data, other):
    honest = honest_run(trials)
    path = data.draw(st.sampled_from(list(paths_of(honest))))
    with suppress(UserError):
        run = kept(trials, replaced(honest, path, other))
        assert (run.task, run.agent, run.seed, run.policy) == tuple(
            honest[name] for name in ("task", "agent", "seed", "policy")
        )
        assert np.isfinite(run.returns).all()
        assert run.first_reaching(4.0) is None or run.curve


@pytest.mark.parametrize("name", ["tasks.json", "results.json", "report.html", "figures", "runs"])
@pytest.mark.parametrize("how", ["file", "folder", "nothing", "pipe"])
def test_a_comparison_follows_no_link(place, capsys, name, how):
    inside, outside = place
    suite = outside / "small.toml"
    suite.write_text(
        'agents = ["random"]\n[[tasks]]\nenv = "probe/recall"\n'
        "threshold = 1\nenv_steps = 10\nseconds = 1\n"
    )
    before = contents(outside)
    spoil(inside / name, outside, how)
    says = error_of(capsys, "compare", str(suite), "--out", str(inside))
    assert f"must be a folder of a comparison: {name} is a" in says
    assert contents(outside) == before


def test_files_of_a_comparison_are_replaced(place):
    from experiments.comparison import figures, report, results, tables

    inside, outside = place
    found = results.Results("x", "x", (), (), (), {}, {})
    writers = {
        "results.json": lambda path: results.save(found, path),
        "results.csv": lambda path: tables.write_csv(found, path),
        "report.html": lambda path: report.write_report(found, path.parent, {}),
        "a.png": lambda path: figures._save(figures.Figure(), path),
    }
    for name, write in writers.items():
        for how in ("file", "hard"):
            spoil(inside / name, outside, how)
            write(inside / name)
            assert not (inside / name).is_symlink()
            assert (inside / name).read_bytes() != SECRET
            assert (outside / "file").read_bytes() == SECRET


def test_a_suite_of_a_users_own_environments(tmp_path, monkeypatch, capsys):
    from experiments.commands import compare
    from experiments.comparison import suites

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(gymnasium_suite, "_IMPORTED", [])  # or later workers look for it
    (tmp_path / "hostile_runs_envs.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('HostileRuns-v0', 'gymnasium.envs.classic_control:CartPoleEnv')\n"
    )
    (tmp_path / "small.toml").write_text(
        'agents = ["random"]\n[[tasks]]\nenv = "gymnasium/hostile_runs_envs:HostileRuns-v0"\n'
        "threshold = 1\nenv_steps = 10\nseconds = 1\n"
    )
    says = error_of(capsys, "compare", "small.toml")
    assert "needs modules = ['hostile_runs_envs'], or --import" in says
    assert "hostile_runs_envs" not in sys.modules
    assert list(tmp_path.glob("runs")) == []
    reached = []
    monkeypatch.setattr(compare, "_claim", lambda out, suite: reached.append(suite) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        compare.main(["small.toml", "--import", "hostile_runs_envs"])
    assert [entry.task.env for entry in reached[0].entries] == ["gymnasium/HostileRuns-v0"]
    assert suites.load("small.toml", ["hostile_runs_envs"]).entries == reached[0].entries
