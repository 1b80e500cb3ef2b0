"""Policies from strangers: whatever their files hold, no code runs and one line says what is wrong.

Wherever the weights are changed, the digest in policy.json is made to agree: who can write the one
file can write the other.
"""

import hashlib
import json
import os
import pickle
import shutil
import struct
import sys
import tracemalloc

import jax
import numpy as np
import pytest
import safetensors.numpy

import agents
import envs
from agents.policies.network import Network, NetworkConfig, Weights
from experiments import cli

FILES = ("policy.json", "weights.safetensors")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    env = envs.make("probe/policy_reward")
    config = NetworkConfig(hidden=(2,))
    network = Network(env.spec.observation_space, env.spec.action_space, config)
    shapes = jax.eval_shape(network.init, jax.eval_shape(jax.random.key, 0))
    params = jax.tree.map(lambda x: np.full(x.shape, 0.5, x.dtype), shapes)
    weights = Weights(params, np.float32([0.25]), np.float32([2.0]))
    folder = tmp_path_factory.mktemp("saved")
    agents.Policy(env.spec, network, weights, agent="eggroll", training={"seed": 3}).save(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of an honest policy, to be spoilt."""
    return shutil.copytree(saved, tmp_path / "policy")


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


def test_the_policy_that_is_spoilt_is_a_good_one(folder):
    policy = agents.load_policy(folder)
    assert (policy.agent, policy.training, policy.spec.kwargs) == ("eggroll", {"seed": 3}, {})
    assert float(policy.weights.std[0]) == 2.0


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("name", FILES)
def test_a_pickle_is_not_unpickled(folder, tmp_path, name, protocol):
    marker = tmp_path / "marker"
    bomb = pickle.dumps(Bomb(marker), protocol)
    pickle.loads(bomb).close()
    assert marker.exists(), "it would go off"
    marker.unlink()
    write(folder, name, bomb)
    assert f"{name} is damaged" in refusal(folder)
    assert not marker.exists()


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


@pytest.mark.parametrize("version", [1, 2, 3, 4, 6, "5", 5.5, None, [5] * 100_000])
def test_another_format(folder, version):
    edit(folder, "format", version)
    says = refusal(folder)
    assert f"written in format {version!r}"[:40] in says
    assert "this version reads 5" in says


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


@pytest.mark.parametrize("name", FILES)
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
    for name in FILES:
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


def replay(folder, capsys):
    """What the command says, which must be all that it does."""
    before = sorted(folder.parent.rglob("*"))
    with pytest.raises(SystemExit) as stopped:
        cli.main(["replay", str(folder), "--episodes", "1"])
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("es-rl replay: error: ")
    assert sorted(folder.parent.rglob("*")) == before
    return printed.err


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working folder, which the command searches for modules."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


@pytest.mark.parametrize("name", ["gymnasium/bomb:Env-v0", "bomb:Env-v0", "bomb"])
def test_replay_imports_no_module_that_a_policy_names(folder, here, capsys, name):
    (here / "bomb.py").write_text(f"open({str(here / 'marker')!r}, 'w')")
    edit(folder, "env.id", name)
    assert name in replay(folder, capsys)
    assert "bomb" not in sys.modules


@pytest.mark.parametrize(
    ("name", "kwargs", "says"),
    [
        ("probe/recall", {"id": "ant"}, "unexpected keyword argument 'id'"),
        ("probe/recall", {"name": "x"}, "multiple values for argument 'name'"),
        ("probe/recall", {"max_episode_steps": "x"}, "must be an integer from 1"),
        ("probe/recall", {"max_episode_steps": 10**12}, "must be an integer from 1"),
        ("gymnasium/CartPole-v1", {"workers": "x"}, "must be at least 1"),
        ("gymnasium/CartPole-v1", {"step_timeout": "x"}, "must be a number of seconds"),
        ("gymnasium/CartPole-v1", {"disable_env_checker": False}, "must be left to es-rl"),
        ("gymnasium/CartPole-v1", {"entry_point": "os"}, "'entry_point'"),
    ],
)
def test_replay_of_arguments_that_the_environment_does_not_take(
    folder, here, capsys, name, kwargs, says
):
    edit(folder, "env.id", name)
    edit(folder, "env.kwargs", kwargs)
    assert says in replay(folder, capsys)


def test_replay_of_damaged_weights(folder, here, capsys):
    write(folder, "weights.safetensors", pickle.dumps(Bomb(here / "marker")))
    assert "weights.safetensors is damaged" in replay(folder, capsys)


@pytest.mark.parametrize("name", ["gymnasium/phys2d/Pendulum-v0", "gymnasium/CartPole-v1"])
def test_replay_in_another_environment_than_it_was_trained_in(folder, here, capsys, name):
    edit(folder, "env.id", name)
    assert "must be Box" in replay(folder, capsys)


def test_replay_imports_nothing_from_the_working_folder(folder, here, capsys):
    edit(folder, "agent", "<b>")
    replay(folder, capsys)
    assert str(here) not in sys.path


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
