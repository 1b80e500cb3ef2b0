"""Bad input: a message that names what is wrong, exit code 2, nothing raised, written or compiled.

It is one line of ours, or what tyro prints where it cannot parse the command line.

It is made up from the fields that commands, agents and suites declare, so that a new field is
tested by being there. What is not of a plain type (folders, names) stands in `NAMES`.
"""

import contextlib
import io
import json
import sys
import tempfile
import tomllib
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import hypothesis
import jax
import pytest
from hypothesis import find
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir

import envs
from agents import list_agents
from agents.registry import config_type
from agents.training.run_config import RunConfig
from experiments import cli
from experiments.commands.train import TrainFlags
from experiments.comparison.results import Task
from experiments.comparison.suites import bundled

# It makes one even without a database of examples.
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


# Cases and where they are tried.


@dataclass(frozen=True)
class Case:
    """A bad command line, and a part of the one line that must come of it."""

    arguments: tuple[str, ...]
    names: str
    """The flag, file key or value that is wrong."""
    files: tuple[tuple[str, str], ...] = ()
    """(name, text) of files that are there before."""


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left_behind():
    jax.devices()  # before a command sees --devices: others count on those of conftest.py
    path, modules = list(sys.path), set(envs.list_ids())
    yield
    sys.path[:] = path
    assert set(envs.list_ids()) == modules


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


# Values that no field of a type takes.


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
    "run": one(words),
    "resume": one(words),
    "init_from": one(words),
    "logger": one(words),
    "policy": one(words),
    "file": one(words),
    "backend": one(words),
    "coordinator": one(words),
    "env_kwargs": one(words),
    "modules": one(words.map(lambda word: f"no_such_{word}")),
    "out": FILES,
    "video": FILES | one(words.map(lambda word: f"{word}.avi")),
    "html": FILES | one(words.map(lambda word: f"{word}.htm")),
    "json": st.sampled_from([("full",), ("nowhere/tables.json",)]),
}


# The flags of the commands.


@dataclass(frozen=True)
class Field:
    """A flag of a command, and the words before it."""

    command: tuple[str, ...]
    name: str
    kind: Any

    @property
    def flag(self):
        return "--" + {"modules": "import"}.get(self.name, self.name).replace("_", "-")

    @property
    def positional(self):
        return (
            self.name in ("env", "run", "suite", "sections", "policy", "file")
            and self.command[0] != "envs"
        )


def flags_of(command, cls, *, besides=()):
    hints = get_type_hints(cls)
    names = [field.name for field in fields(cls) if field.name not in besides]
    return [Field(command, name, hints[name]) for name in names]


def all_fields():
    configs = {config_type(agent): agent for agent in list_agents()}
    for config, agent in configs.items():
        if not any(issubclass(other, config) for other in configs if other is not config):
            yield from flags_of(("train", ENV, "--agent", agent), config)
    yield from flags_of(("train", ENV), TrainFlags, besides=("settings", "run"))
    yield from flags_of(("train", ENV), RunConfig)
    words_before = {
        "replay": ("replay", "nowhere"),
        "compare": ("compare", "classic"),
        "export": ("export", "nowhere", "policy.onnx"),
    }
    for command in cli.COMMANDS:
        if command != "train":
            module = import_module(cli.module_of(command))
            (cls,) = (value for name, value in vars(module).items() if name.endswith("Flags"))
            yield from flags_of(words_before.get(command, (command,)), cls)


ALL_FIELDS = list(all_fields())


def bad_flag(field):
    """Strategy of cases in which a flag has a value that it does not take."""
    if plain(field.kind) is bool:
        # tyro names what is left over.
        return words.map(lambda word: Case((*field.command, f"{field.flag}={word}"), word))
    values = bad_values(field.name, field.kind)
    if field.positional:
        at = {"sections": len(field.command), "file": 2}.get(field.name, 1)
        start, rest = field.command[:at], field.command[at + 1 :]
        return values.map(lambda value: Case((*start, *value, *rest), " ".join(value).strip()))
    return values.map(lambda value: Case((*field.command, field.flag, *value), field.flag))


def misspelt_flag(field):
    own = {f.flag for f in ALL_FIELDS} | {"--no-" + f.flag.removeprefix("--") for f in ALL_FIELDS}
    wrong = misspelt([field.flag]).filter(lambda flag: flag not in own and flag[:3] != "--q")
    return wrong.map(lambda flag: Case((*field.command, flag, "3"), flag))


# What does not go together.


def train(*flags, names, env=ENV):
    return Case(("train", env, *map(str, flags)), names)


def does_not_divide(drawn):
    return drawn[0] % drawn[1] != 0


together = st.one_of(
    st.tuples(st.integers(2, 500).map(lambda n: 2 * n), st.integers(1, 1200))
    .filter(does_not_divide)
    .map(lambda d: train("--population-size", d[0], "--group-size", d[1], names="--group-size")),
    st.integers(1, 10**6).map(lambda n: train("--noise-reuse", 2 * n + 1, names="--noise-reuse")),
    st.tuples(st.integers(2, 2000), st.integers(1, 20).map(lambda n: 2 * n))
    .filter(does_not_divide)
    .map(
        lambda d: train("--population-size", d[0], "--noise-reuse", d[1], names="--population-size")
    ),
    st.tuples(st.sampled_from(["ppo", "sbx_ppo"]), st.integers(65, 2047).map(lambda n: 2 * n + 1))
    .filter(lambda d: 2048 % d[1] != 0)
    .map(lambda d: train("--agent", d[0], "--minibatch-size", d[1], names="--minibatch-size")),
    st.integers(1, 9).map(lambda n: train("--agent", "ppo", "--memory", n, names="--memory")),
    st.sampled_from([3, 5, 6, 7]).map(
        lambda n: train("--agent", "ppo", "--devices", n, names="--devices")
    ),
    st.sampled_from(["--backend", "--workers", "--step-timeout"]).map(
        lambda flag: train(flag, "1", names=flag)
    ),
    st.just(train("brax/ant", names="brax/ant", env="--seed=1")),
    st.just(train("--resume", "full", names="--resume")),
    st.just(train("--env-kwargs", "horizon=3", names="horizon")),
    st.just(train("--env-kwargs", "max_episode_steps=x", names="--env-kwargs")),
    st.just(Case(("replay", "nowhere", "--env-kwargs", "a=1"), "--env-kwargs")),
    st.just(Case(("replay", ENV), ENV)),
    st.just(Case(("replay",), "RUN")),
    st.just(Case(("compare",), "SUITE")),
    st.just(Case(("compare", "classic", "--agents", "ppo", "ppo"), "--agents")),
    misspelt(cli.COMMANDS).map(lambda name: Case((name,), name)),
)


# Suites: files.

RIGHT: dict[str, Any] = {
    "agents": ["eggroll", "ppo"],
    "tasks": [{"env": ENV, "threshold": 8.0, "env_steps": 40_000, "seconds": 20.0}],
}
TASK_KINDS = {n: k for n, k in get_type_hints(Task).items() if n != "random_return"}
REQUIRED = tuple(RIGHT["tasks"][0])


def as_toml(value):
    """A value as TOML has it; tables inline."""
    match value:
        case dict():
            return "{" + ", ".join(f"{k} = {as_toml(v)}" for k, v in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(as_toml, value)) + "]"
        case float():
            return repr(value)
        case _:
            return json.dumps(value)


def suite_file(suite, names, *flags):
    text = "\n".join(f"{key} = {as_toml(value)}" for key, value in suite.items())
    tomllib.loads(text)
    return Case(("compare", "mine.toml", *flags), names, (("mine.toml", text),))


def with_task(names=None, **changes):
    return suite_file(
        {**RIGHT, "tasks": [{**RIGHT["tasks"][0], **changes}]}, names or [*changes][0]
    )


def wrong_toml(name, annotation):
    """Strategy of TOML values that a field does not take."""
    kind = plain(annotation)
    numbers = st.sampled_from([1, 1.5])
    others = [words.filter(lambda w: w not in get_args(kind)), st.booleans(), numbers, st.just([])]
    if kind in (int, float):
        return st.one_of(others[0], others[1], others[3], bad_numbers(name, kind))
    if kind is bool:
        return st.one_of(others[0], others[2], others[3])
    if get_origin(kind) is tuple:
        return st.one_of(*others[:3], words.map(lambda w: [8, w]), st.just([0]), st.just([1.5]))
    if get_origin(kind) is dict:
        return st.one_of(others)
    return st.one_of(others)


def wrong_setting(drawn):
    agent, field, data = drawn
    return with_task(field.name, settings={agent: {field.name: data}})


settings = st.sampled_from(
    [(agent, field) for agent in list_agents() for field in flags_of((), config_type(agent))]
).flatmap(
    lambda drawn: st.tuples(
        st.just(drawn[0]), st.just(drawn[1]), wrong_toml(drawn[1].name, drawn[1].kind)
    )
)
suites = st.one_of(
    settings.map(wrong_setting),
    st.sampled_from(sorted(TASK_KINDS.items()))
    .flatmap(lambda item: st.tuples(st.just(item[0]), wrong_toml(*item)))
    .filter(lambda drawn: drawn[0] != "threshold" or drawn[1] != 1)
    .filter(lambda drawn: drawn[0] != "name" or not isinstance(drawn[1], str))
    .map(lambda drawn: with_task(**{drawn[0]: drawn[1]})),
    st.sampled_from(REQUIRED).map(
        lambda key: suite_file(
            {**RIGHT, "tasks": [{k: v for k, v in RIGHT["tasks"][0].items() if k != key}]}, key
        )
    ),
    misspelt(TASK_KINDS).map(lambda key: with_task(**{key: 1})),
    misspelt(RIGHT).map(lambda key: suite_file({**RIGHT, key: []}, key)),
    st.sampled_from(list(RIGHT)).map(
        lambda key: suite_file({k: v for k, v in RIGHT.items() if k != key}, key)
    ),
    st.tuples(
        st.sampled_from(list(RIGHT)), st.sampled_from([[], 1, "all", {}, [1], [["ppo"]]])
    ).map(lambda drawn: suite_file({**RIGHT, drawn[0]: drawn[1]}, drawn[0])),
    misspelt(list_agents()).map(lambda name: suite_file({**RIGHT, "agents": [name]}, name)),
    misspelt(list_agents()).map(lambda name: with_task(name, settings={name: {"hidden": [8]}})),
    misspelt(["hidden", "sigma"]).map(lambda key: with_task(key, settings={"eggroll": {key: 1}})),
    misspelt(envs.list_ids()).map(lambda env: with_task(env, env=env)),
    st.just(with_task("max_episode_steps", env_kwargs={"max_episode_steps": "long"})),
    st.just(with_task("horizon", env_kwargs={"horizon": 3})),
    st.just(suite_file({**RIGHT, "tasks": RIGHT["tasks"] * 2}, "two tasks have one name")),
    FILES.map(lambda path: suite_file(RIGHT, "--out", "--out", *path)),
    words.map(
        lambda word: Case(("compare", "mine.toml"), "mine.toml", (("mine.toml", f"[{word}"),))
    ),
)


# The tests.


def words_of(field):
    return " ".join((*field.command, field.flag))


@pytest.mark.parametrize("field", ALL_FIELDS, ids=words_of)
def test_every_field_has_values_that_it_does_not_take(field):
    number = plain(field.kind) in (int, float, tuple[int, ...])
    once = hypothesis.settings(derandomize=True, database=None, phases=[hypothesis.Phase.generate])
    # Numbers out of range: text is refused before a command sees it.
    refused(
        find(bad_flag(field), lambda c: not number or is_number(c.arguments[-1]), settings=once)
    )


command_lines = st.sampled_from(ALL_FIELDS).flatmap(bad_flag)
misspelt_flags = st.sampled_from(ALL_FIELDS).flatmap(misspelt_flag)


@hypothesis.settings(derandomize=True, database=None, max_examples=200, deadline=None)
@hypothesis.given(st.one_of(command_lines, command_lines, suites, suites, together, misspelt_flags))
def test_bad_input_is_one_line_exit_code_2_and_nothing_written(case):
    refused(case)
