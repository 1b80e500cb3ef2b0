"""Bad suites of comparisons, made up from the fields of tasks and the settings of agents."""

import json
import tomllib
from typing import Any, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

import envs
from agents import list_agents
from agents.registry import config_type
from experiments.comparison.results import Task
from tests.experiments.bad_flags import flags_of
from tests.experiments.bad_values import ENV, FILES, Case, bad_numbers, misspelt, plain, words

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
    st.just(with_task("train_env_kwargs", train_env_kwargs={"horizon": 3})),
    st.just(suite_file({**RIGHT, "tasks": RIGHT["tasks"] * 2}, "two tasks have one name")),
    FILES.map(lambda path: suite_file(RIGHT, "--out", "--out", *path)),
    words.map(
        lambda word: Case(("compare", "mine.toml"), "mine.toml", (("mine.toml", f"[{word}"),))
    ),
)
