"""Values that no flag or file key of a type takes, and the check that a command refuses them."""

import contextlib
import io
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import jax
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir

import envs
from agents import list_agents
from experiments import cli
from experiments.comparison.suites import bundled, load

# Hypothesis makes a folder even without a database of examples.
set_hypothesis_home_dir(Path(tempfile.gettempdir(), "es-rl-hypothesis"))

ENV = "probe/policy_reward"
HUGE = 10**12
UNBOUNDED = {"env_steps"}
SIGNED = {"log_std_init", "target_return", "threshold"}
"""Fields where a negative number makes sense."""
LARGE = st.integers(HUGE, 10**30)

SAYS_WHAT_IS_ACCEPTED = (
    "must",
    "only",
    "did you mean",
    "`es-rl envs` lists",
    "add --agent",
    "there is no policy.json",
)

compiled: list[str] = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **_: compiled.append(event) if "backend_compile" in event else None
)


@dataclass(frozen=True)
class Case:
    """A bad command line, and a part of the one line that must come of it."""

    arguments: tuple[str, ...]
    names: str
    """The flag, file key or value that is wrong."""
    files: tuple[tuple[str, str], ...] = ()
    """(name, text) of files that are there before."""


def contents(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def refused(case):
    """Run the command in a folder of its own; what it complains."""
    out, err = io.StringIO(), io.StringIO()
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        folder = Path(name)
        (folder / "full").mkdir()
        (folder / "full" / "mine.txt").write_text("precious")
        for file, text in case.files:
            (folder / file).write_text(text)
        before, programs = contents(folder), len(compiled)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                cli.main(list(case.arguments))
            except SystemExit as ended:
                code = ended.code
            else:
                code = None
        assert code == 2
        assert contents(folder) == before
        assert len(compiled) == programs
    assert out.getvalue() == ""
    said = err.getvalue()
    assert said.endswith("\n")
    if said.startswith("es-rl "):
        assert len(said.splitlines()) == 1
        assert ": error: " in said
        assert any(words in said for words in SAYS_WHAT_IS_ACCEPTED), said
    # tyro breaks what is longer than a line, and draws a frame.
    assert packed(case.names) in packed(said), said


def packed(text):
    return "".join(c for c in text if not c.isspace() and c not in "│╭╮╰╯─")


def is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


words = st.text("abcxyzABC_.%/ é", min_size=1, max_size=12).filter(
    lambda text: text.strip() and not is_number(text) and "None" not in text
)


def plain(annotation):
    """The type without None."""
    options = [option for option in get_args(annotation) if option is not NoneType]
    return options[0] if NoneType in get_args(annotation) else annotation


def bad_numbers(name, kind):
    """Numbers (not text) that a number field does not take, whatever it is of."""
    if kind is int:
        bad = st.integers(-(10**30), -1)
        return bad if name in UNBOUNDED else bad | LARGE
    bad = st.sampled_from([float("nan"), float("inf"), -float("inf"), 1e39, -1e300, 1e-60])
    return bad if name in SIGNED else bad | st.floats(-1e30, -1e-30)


def bad_values(name, annotation):
    """Strategy of the words after a flag that its field does not take."""
    kind = plain(annotation)
    if name in NAMES:
        return NAMES[name]
    if kind is int:
        return one(words | st.just("") | st.just("1.5") | bad_numbers(name, int).map(str))
    if kind is float:
        return one(words | st.just("") | bad_numbers(name, float).map(repr))
    if get_origin(kind) is Literal:
        return one(words.filter(lambda word: word not in get_args(kind)))
    if get_origin(kind) is tuple:
        wrong = bad_values(name, get_args(kind)[0])
        return wrong if get_origin(get_args(kind)[0]) is Literal else wrong.map(lambda w: ("8", *w))
    raise AssertionError(f"{name}: how is a {annotation} wrong?")


def one(values):
    return values.map(lambda value: (value,))


def misspelt(names):
    """Strategy of names with one letter lost, doubled or changed."""
    names = list(names)

    def change(drawn):
        name, at, how = drawn
        at %= len(name)
        return (
            name[:at] + {"lost": "", "doubled": name[at] * 2, "changed": "q"}[how] + name[at + 1 :]
        )

    ways = st.sampled_from(["lost", "doubled", "changed"])
    changed = st.tuples(st.sampled_from(names), st.integers(2, 40), ways).map(change)
    return changed.filter(lambda name: name not in names and len(name) > 1)


FILES = st.sampled_from([("full/mine.txt",), ("full/mine.txt/under",), ("full",)])
NAMES: dict[str, Any] = {
    "env": one(misspelt(envs.list_ids())),
    "agent": one(misspelt(list_agents())),
    "agents": one(misspelt(list_agents())),
    "suite": one(misspelt(bundled())),
    "tasks": one(misspelt([entry.task.name for entry in load("classic").entries])),
    "run": one(words),
    "resume": one(words),
    "init_from": one(words),
    "settings_file": one(words),
    "space": one(words),
    "logger": one(words),
    "policy": one(words),
    "file": one(words),
    "backend": one(words),
    "info_keys": one(words),
    "coordinator": one(words),
    "env_kwargs": one(words),
    "train_env_kwargs": one(words),
    "modules": one(words.map(lambda word: f"no_such_{word}")),
    "out": FILES,
    "results": FILES,
    "video": FILES | one(words.map(lambda word: f"{word}.avi")),
    "html": FILES | one(words.map(lambda word: f"{word}.htm")),
    "json": st.sampled_from([("full",), ("nowhere/tables.json",)]),
}
