"""`policy.json` from strangers: no code runs, and one line says what is wrong."""

import json
import shutil
import tracemalloc
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import agents
from envs.errors import UserError
from tests.agents.hostile.spoiling import ODD, edit, many, paths_of, refusal, replaced


def test_the_policy_that_is_spoilt_is_a_good_one(folder):
    policy = agents.load_policy(folder)
    assert (policy.agent, policy.training, policy.spec.kwargs) == ("eggroll", {"seed": 3}, {})
    assert float(policy.weights.std[0]) == 2.0


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "JSONDecodeError"),
        (b"null", "a JSON NoneType): must be an object"),
        (b"[]", "a JSON list): must be an object"),
        (bytes(range(256)), "UnicodeDecodeError"),
        (b'{"format": 2, "format": 2}', "a key comes twice"),
        (b'{"format": NaN}', "the number NaN is not finite"),
        (b'{"format": -Infinity}', "the number -Infinity is not finite"),
        (b'{"format": 1e999}', "the number 1e999 is not finite"),
        (b'{"format": %s}' % (b"9" * 10_000), "ValueError"),
        (b"[" * 1_000_000, "nested too deeply"),
        (b'{"a":' * 500_000, "nested too deeply"),
        (b"\x1b]0;title\x07", "policy.json is damaged"),
        (b'"' + b" " * (8 << 20) + b'"', "policy.json is larger than 8 MiB"),
    ],
)
def test_what_is_no_description(folder, data, says):
    (folder / "policy.json").write_bytes(data)
    assert says in refusal(folder)


@pytest.mark.parametrize("version", [1, 2, 3, 4, 5, 6, 8, "7", 7.5, None, [7] * 100_000])
def test_another_format(folder, version):
    edit(folder, "format", version)
    says = refusal(folder)
    assert f"written in format {version!r}"[:40] in says
    assert "this version reads 7" in says


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("actor.hidden", [10**9], "at most 1048576"),
        ("actor.hidden", [10**100], "policy.json is damaged (hidden="),
        ("actor.hidden", [2**20, 2**20], "4096.0 GiB of weights: must be at most 4 GiB"),
        ("actor.hidden", [2**20] * 64, "258048.3 GiB of weights: must be at most 4 GiB"),
        ("actor.hidden", [1] * 100_000, "hidden has 100000 layers: must be at most 64"),
        ("actor.hidden", [True], "policy.json is damaged (hidden="),
        ("actor.hidden", [2.0], "policy.json is damaged (hidden="),
        ("actor.hidden", "22", "policy.json is damaged (hidden="),
        ("actor.memory", 10**9, "memory=1000000000: must be at least 1, at most 1048576"),
        ("actor.memory", 0.5, "memory=0.5: must be"),
        ("actor.normalize_observations", "no", "must be true or false"),
        ("actor.activation", "os.system", "must be one of tanh"),
        ("actor.activation", ["tanh"], "must be one of tanh"),
        ("actor.\x1b[2J", 1, "unexpected keyword argument '?[2J'"),
        (
            "actor.kind",
            "agents.policies.actors:ZeroActor",
            "must be network, module, random or zero",
        ),
        ("actor", ["network"], "must be network, module, random or zero"),
        ("weights", "../../elsewhere", "it has no 'weights'"),
        ("agent", "[/red]", "agent='[/red]': must be a name"),
        ("agent", "<b>", "agent='<b>': must be a name"),
        ("agent", "eggroll\x1b[2J", "must be a name"),
        ("agent", 1, "policy.json is damaged"),
        ("training", 1, "policy.json is damaged"),
        ("evaluation", {"seed": 1, "returns": ["x"], "lengths": [1]}, "policy.json is damaged"),
        ("evaluation", [], "policy.json is damaged"),
        ("env", [], "policy.json is damaged"),
        ("env.id", 7, "policy.json is damaged"),
        ("env.id", "x" * 10_000, "must be as `es-rl envs` lists it"),
        ("env.max_episode_steps", "8", "policy.json is damaged"),
        ("env.kwargs", [1], "policy.json is damaged"),
        ("env.kwargs", {"a b": 1}, "must be a name"),
        ("env.observation_space", None, "policy.json is damaged"),
        ("env.observation_space.type", "os.system", "must be Box, Discrete, MultiDiscrete or"),
        ("env.observation_space.shape", [10**9], "at most 1048576 numbers"),
        ("env.observation_space.shape", [2**32, 2**32], "at most 1048576 numbers"),
        ("env.observation_space.shape", [10**30, 0], "at most 1048576 numbers"),
        ("env.observation_space.shape", [-1], "at most 1048576 numbers"),
        ("env.observation_space.shape", [1] * 100, "policy.json is damaged"),
        ("env.observation_space.dtype", "V2000000000", "must be one of bool, float16"),
        ("env.observation_space.dtype", "object", "must be one of bool, float16"),
        ("env.observation_space.dtype", {"names": ["a"]}, "must be one of bool, float16"),
        ("env.observation_space.low", "nan", "must be a number, 'inf' or '-inf'"),
        ("env.observation_space.low", 1e300, "overflow"),
        ("env.observation_space.low", 2, "no low of a Box may be above its high"),
        ("env.observation_space.low", [[1], [2, 3]], "policy.json is damaged"),
        ("env.action_space.n", 10**18, "at most 1048576"),
        ("env.action_space.n", 10**30, "must be integers"),
        ("env.action_space.n", -1, "must be at least 1"),
        ("env.action_space.n", [2], "must be integers"),
        ("env.action_space.start", 2**40, "between -2**30 and 2**30"),
    ],
)
def test_what_a_description_may_not_ask_for(folder, key, value, says):
    edit(folder, key, value)
    tracemalloc.start()
    try:
        assert says in refusal(folder)
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        ([2**20 + 1], "must be at least 1, and at most 1048576"),
        ([2**19, 2**19, 2**19], "must be at most 1048576 numbers in all"),
        ([1] * 5000 + [300], "5001 dimensions of up to 300 categories: must be at most 1048576"),
        ([], "must be integers"),
        ([[1], [2, 3]], "policy.json is damaged"),
    ],
)
def test_absurd_categories(folder, sizes, says):
    start = np.zeros_like(sizes).tolist() if says != "policy.json is damaged" else 0
    space = {"type": "MultiDiscrete", "nvec": sizes, "start": start, "dtype": "int64"}
    edit(folder, "env.action_space", space)
    assert says in refusal(folder)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"xml_file": "/tmp/x.xml"},
        {"xml_file": "../x.xml"},
        {"xml_file": "~"},
        {"xml_file": "\\\\server\\share"},
        {"env_id": "module:Env-v0"},
        {"deep": [0, {"er": ["../x"]}]},
        {"deep": {"../x": 0}},
    ],
)
def test_arguments_of_an_environment_name_no_files_unless_trusted(folder, kwargs):
    edit(folder, "env.kwargs", kwargs)
    assert "must not be a path or a module" in refusal(folder)
    assert agents.load_policy(folder, trusted=True).spec.kwargs == kwargs
    harmless = {"xml_file": "ant.xml", "map_name": "4x4", "desc": ["SF", "FG"], "gravity": -9.8}
    edit(folder, "env.kwargs", harmless)
    assert agents.load_policy(folder).spec.kwargs == harmless


def test_returns_that_are_not_finite_survive_saving(folder):
    policy = agents.load_policy(folder)
    returns = [1.5, float("inf"), float("-inf"), float("nan")]
    evaluation = {"seed": 0, "returns": returns, "lengths": [1, 2, 3, 4]}
    agents.Policy(policy.spec, policy.actor, policy.weights, "eggroll", evaluation=evaluation).save(
        folder
    )
    loaded = agents.load_policy(folder).evaluation
    np.testing.assert_array_equal(loaded["returns"], returns)
    assert loaded["lengths"] == [1, 2, 3, 4]


DISCRETE = {"type": "Discrete", "n": 2, "start": 0, "dtype": "int64"}


def nested_in(depth):
    space = DISCRETE
    for _ in range(depth):
        space = {"type": "Tuple", "spaces": [space]}
    return space


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (DISCRETE, "raw_observation_space must be a Dict or a Tuple"),
        ({"type": "Tuple", "spaces": [DISCRETE]}, "must be the flat one of raw_observation_space"),
        ({"type": "Tuple", "spaces": []}, "has 0 numbers when it is flat"),
        (nested_in(17), "nested at most 16 deep"),
        (nested_in(400), "nested at most 16 deep"),
        ({"type": "Tuple", "spaces": [DISCRETE] * 5000}, "at most 4096 parts"),
        (
            {"type": "Tuple", "spaces": [{"type": "Tuple", "spaces": []}] * 5000},
            "at most 4096 parts",
        ),
        ({"type": "Tuple", "spaces": [{**DISCRETE, "n": 2**20}] * 2}, "1048576 numbers when it is"),
        ({"type": "Dict", "spaces": [["a", DISCRETE], ["a", DISCRETE]]}, "texts that differ"),
        ({"type": "Dict", "spaces": [[1, DISCRETE]]}, "texts that differ"),
        ({"type": "Dict", "spaces": [[["a"], DISCRETE]]}, "texts that differ"),
        ({"type": "Dict", "spaces": {"a": DISCRETE}}, "policy.json is damaged"),
        ({"type": "Dict", "spaces": "ab"}, "policy.json is damaged"),
        ({"type": "Dict"}, "policy.json is damaged (KeyError"),
        (
            {"type": "Tuple", "spaces": [{"type": "Text"}]},
            "must be Box, Discrete, MultiDiscrete or",
        ),
        ([], "policy.json is damaged"),
    ],
)
def test_a_nested_space_of_any_kind(folder, raw, says):
    edit(folder, "env.raw_observation_space", raw)
    tracemalloc.start()
    assert says in refusal(folder)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100 << 20


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
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="policy.json is damaged"):
            agents.load_policy(folder)
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()
