"""Networks of the user's and built-in ones, on images: trained, saved, loaded and started from."""

import functools
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from gymnasium import spaces

import agents
import envs
from agents.policies import images
from agents.policies.network import BUILT_IN_SETTINGS, Network, NetworkConfig, resolved
from envs.errors import UserError
from tests.agents import own_networks
from tests.envs import image_envs

SMALL = {"population_size": 16, "learning_rate": 0.1, "sigma": 0.2, "lanes": 16}
PPO = {"num_envs": 4, "num_steps": 16, "minibatch_size": 32, "num_epochs": 2}
KINDS = ("linen", "nnx", "pair", "memory", "normalising")
DISCRETE = spaces.Discrete(3)


@functools.cache
def env():
    return envs.make("image/spot")


@functools.cache
def trained(kind, name="eggroll"):
    """A policy after two generations with a network of the user's."""
    settings = SMALL if name == "eggroll" else PPO
    agent = agents.make(name, env(), network=own_networks.of_kind(kind), **settings)
    state = agent.init(jax.random.key(0))
    before = agent.snapshot(state).weights.params
    for _ in range(2):
        state, metrics = agent.step(state)
    assert metrics["env_steps"] > 0
    policy = agent.snapshot(state)
    moved = jax.tree.map(lambda a, b: (a != b).any(), before, policy.weights.params)
    assert all(jax.tree.leaves(moved)), "every parameter is trained"
    return policy


@pytest.mark.slow
def test_networks_of_ones_own_train_and_act_the_same_when_loaded_in_a_new_process(tmp_path):
    folders = [tmp_path / kind for kind in KINDS]
    for folder in folders:
        trained(folder.name).save(folder)
    command = [sys.executable, "-m", "tests.agents.own_networks", *folders]
    subprocess.run(command, check=True, timeout=300)
    for folder in folders:
        returns = own_networks.returns_of(trained(folder.name))
        assert len(set(returns.tolist())) > 1
        np.testing.assert_array_equal(np.load(folder / "returns.npy"), returns)


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_of_ones_own_does_what_it_does_alone(kind):
    policy, module = trained(kind), own_networks.of_kind(kind)
    image = np.zeros((6, 6, 1), np.uint8)
    image[2, 3] = 255
    x, params = jnp.asarray(image / 255, jnp.float32), policy.weights.params
    network = policy.actor
    np.testing.assert_array_equal(network.observe(image, np.zeros(0), np.ones(0)), x)
    _, outputs = network.apply(params, network.memory, x)
    if kind == "nnx":
        flat = {
            tuple(int(k) if k.isdigit() else k for k in path): leaf for path, leaf in _flat(params)
        }
        state = nnx.state(module, nnx.Param)
        nnx.replace_by_pure_dict(state, _nested(flat))
        nnx.update(module, state)
        alone = module(x)
    elif kind == "pair":
        alone = module[1](params, x)
    elif kind == "memory":
        _, alone = module.apply(params, module.initial_memory(), x)
    elif kind == "normalising":
        statistics = module.init(jax.random.key(1), x)["batch_stats"]
        alone = module.apply({**params, "batch_stats": statistics}, x)
    else:
        alone = module.apply(params, x)
    np.testing.assert_allclose(outputs, alone, rtol=1e-5, atol=1e-6)


def _flat(tree):
    from flax.traverse_util import flatten_dict

    return flatten_dict(tree).items()


def _nested(flat):
    from flax.traverse_util import unflatten_dict

    return unflatten_dict(flat)


def test_names_of_saved_parameters(tmp_path):
    def names(kind):
        trained(kind).save(tmp_path / kind)
        blob = (tmp_path / kind / "weights.safetensors").read_bytes()
        return sorted(json.loads(blob[8 : 8 + int.from_bytes(blob[:8], "little")]))

    statistics = ["observation/count", "observation/mean", "observation/std"]
    assert names("pair") == [*statistics, "params/0", "params/1/bias"]
    layers = ("conv", "layers/0", "layers/1")
    leaves = [f"params/{layer}/{leaf}" for layer in layers for leaf in ("bias", "kernel")]
    assert names("nnx") == [*statistics, *leaves]


@pytest.mark.slow
def test_ppo_trains_a_network_of_ones_own_and_a_critic():
    assert trained("linen", "ppo").agent == "ppo"
    module = own_networks.Critic()
    agent = agents.make("ppo", env(), network=own_networks.Linen(), critic=module, **PPO)
    state = agent.init(jax.random.key(0))
    assert state.params["critic"]["params"]["Dense_0"]["kernel"].shape == (36, 1)
    _, metrics = agent.step(state)
    assert np.isfinite(metrics["value_loss"])


def test_ppo_trains_no_memory():
    with pytest.raises(UserError, match="network has a memory, which ppo does not train"):
        agents.make("ppo", env(), network=own_networks.Remembering(), **PPO)
    with pytest.raises(UserError, match="network=gru: must be mlp or cnn"):
        agents.make("ppo", env(), network="gru", **PPO)


def pair(apply, params=0.0):
    return lambda key, x: [jnp.asarray(params)], apply


@pytest.mark.parametrize(
    ("network", "says"),
    [
        (
            own_networks.Linen(outputs=3),
            r"Linen: gives float32\[3\] for one observation of shape \(6, 6, 1\): must give "
            r"float32\[2\]",
        ),
        (own_networks.Critic, "own_networks.Critic: must be a Flax linen module, a Flax NNX"),
        (3, "network=builtins.int: must be a Flax linen module"),
        (pair(lambda p, x: (x, x)), r"gives \(float32\[6,6,1\], float32\[6,6,1\]\) for one"),
        (pair(lambda p, x: jnp.ones(2) > 0), r"gives bool\[2\] for"),
        ((lambda key, x: [], lambda p, x: jnp.zeros(2)), "has no parameters"),
        (pair(lambda p, x: jnp.zeros(2), 1), "its parameter 0 is int32: must be float32"),
    ],
)
def test_a_network_that_does_not_fit_is_refused_at_once(network, says):
    with pytest.raises(UserError, match=says):
        agents.make("eggroll", env(), network=network)


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        (
            "eggroll",
            {"network": own_networks.Linen(), "hidden": (4,)},
            r"hidden=\(4,\): must not be",
        ),
        ("eggroll", {"critic": own_networks.Critic()}, "Critic: eggroll takes an object for"),
        ("ppo", {"critic": own_networks.Linen()}, r"gives float32\[2\] .* must give float32\[1\]"),
        (
            "ppo",
            {"shaping": len},
            "shaping=builtins.len: ppo takes an object for network or critic",
        ),
        ("random", {"network": own_networks.Linen()}, "random takes no object"),
    ],
)
def test_objects_that_an_agent_does_not_take_are_refused(name, settings, says):
    with pytest.raises(UserError, match=says):
        agents.make(name, env(), **settings)


def test_what_a_network_raises_keeps_its_place():
    def apply(params, x):
        return x @ params

    with pytest.raises(TypeError) as error:
        agents.make("eggroll", env(), network=(lambda key, x: jnp.zeros((5, 2)), apply))
    assert "float32 of shape (6, 6, 1)" in "".join(error.value.__notes__)
    assert error.traceback[-1].path or True
    assert any(entry.name == "apply" for entry in error.traceback)


def test_a_memory_that_changes_its_shape_is_refused():
    class Growing(own_networks.Remembering):
        @linen.compact
        def __call__(self, memory, x):
            memory, outputs = super().__call__(memory, x)
            return {**memory, "calls": jnp.zeros(2)}, outputs

    with pytest.raises(
        UserError, match=r"must give \(memory, outputs\) of \({calls: float32\[\], last: f"
    ):
        agents.make("eggroll", env(), network=Growing())


def test_loading_needs_the_network_and_imports_none(tmp_path):
    trained("linen").save(tmp_path)
    with pytest.raises(UserError, match="own_networks.Linen: must be loaded with it: agents.load"):
        agents.load_policy(tmp_path)
    with pytest.raises(UserError, match="weights.safetensors does not fit network=.*Linen: params/params/Conv_0/bias is F32 \\[4\\], must be F32 \\[5\\]"):  # fmt: skip # noqa: E501
        agents.load_policy(tmp_path, network=own_networks.Linen(width=5))
    with pytest.raises(UserError, match=r"gives float32\[3\]"):
        agents.load_policy(tmp_path, network=own_networks.Linen(outputs=3))
    description = json.loads((tmp_path / "policy.json").read_text())
    assert description["actor"] == {
        "kind": "module",
        "class": "tests.agents.own_networks.Linen",
        "squash": "tanh",
        "normalize_observations": True,
        "action_mask": True,
        "stochastic_evaluation": False,
        "matmul_precision": "float32",
    }
    description["actor"]["class"] = "nowhere.Bomb\x1b"
    (tmp_path / "policy.json").write_text(json.dumps(description))
    with pytest.raises(UserError, match=r"its network is of the user's own, nowhere.Bomb\?: must"):
        agents.load_policy(tmp_path)
    assert agents.load_policy(tmp_path, network=own_networks.Linen()).agent == "eggroll"


def test_a_built_in_network_is_loaded_without_one(tmp_path):
    agent = agents.make("eggroll", env(), **SMALL)
    agent.snapshot(agent.init(jax.random.key(0))).save(tmp_path)
    assert agents.load_policy(tmp_path).actor.name == "cnn"
    with pytest.raises(UserError, match="network=.*Linen: must not be given"):
        agents.load_policy(tmp_path, network=own_networks.Linen())


def test_a_run_with_objects_says_so_and_goes_on_in_python(tmp_path):
    def make():
        return agents.make("eggroll", env(), network=own_networks.Linen(), **SMALL)

    options = {"out": tmp_path, "eval_episodes": 4, "checkpoint_every": 1}
    agents.train(make(), env_steps=1, **options)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["settings"]["network"] == "tests.agents.own_networks.Linen"
    # What it makes void is left out.
    assert config["settings"].keys() & {*BUILT_IN_SETTINGS} == {"network"}
    assert config["settings"]["population_size"] == SMALL["population_size"]
    result = agents.train(make(), env_steps=200, resume=True, **options)
    whole = agents.train(make(), env_steps=200, eval_episodes=4)
    jax.tree.map(np.testing.assert_array_equal, result.policy.weights, whole.policy.weights)


def test_eggroll_learns_from_images():
    settings = {"population_size": 64, "learning_rate": 0.05, "sigma": 0.1, "hidden": (16,)}
    agent = agents.make("eggroll", env(), **settings)
    assert (agent.network.name, agent.network.statistics_size) == ("cnn", 0)
    result = agents.train(agent, env_steps=40_000, target_return=7.5, eval_every=5)
    assert result.evaluation.mean >= 7.5


@pytest.mark.parametrize("name", ["eggroll", pytest.param("ppo", marks=pytest.mark.slow)])
def test_images_on_the_host(name):
    assert image_envs.LIMIT == 8
    host = envs.make("gymnasium/Spot-v0", workers=1)
    settings = {"population_size": 4} if name == "eggroll" else PPO
    agent = agents.make(name, host, hidden=(8,), **settings)
    with agent:
        policy = agents.train(agent, env_steps=1, eval_episodes=4).policy
        again = agents.evaluate(policy, host, episodes=4).returns
    np.testing.assert_array_equal(again, policy.evaluation["returns"])


@pytest.mark.parametrize(
    ("shape", "arranged"),
    [
        ((84, 84), (84, 84, 1)),
        ((84, 84, 3), (84, 84, 3)),
        ((4, 84, 84), (84, 84, 4)),
        ((4, 84, 84, 3), (84, 84, 12)),
        ((7, 7, 3), (7, 7, 3)),
        ((11, 11, 20), (11, 11, 20)),
    ],
)
def test_frames_become_channels(shape, arranged):
    x = jnp.arange(np.prod(shape)).reshape(shape)
    found = images.arrange(x)
    assert found.shape == arranged == images.layout(shape)
    if len(shape) == 4:
        np.testing.assert_array_equal(found[:, :, 3:6], x[1])
    if shape == (4, 84, 84):
        np.testing.assert_array_equal(found[:, :, 1], x[1])


@pytest.mark.parametrize(
    ("shape", "dtype", "settings", "network", "cnn"),
    [
        ((84, 84, 4), np.uint8, {}, "cnn", "nature"),
        ((36, 36), np.uint8, {}, "cnn", "nature"),
        ((35, 36), np.uint8, {}, "cnn", "small"),
        ((84, 84, 4), np.uint8, {"cnn": "small"}, "cnn", "small"),
        ((84, 84, 4), np.uint8, {"network": "mlp"}, "mlp", None),
        ((2, 9, 3), np.uint8, {}, "mlp", None),
        ((128,), np.uint8, {}, "mlp", None),
        ((10, 10, 4), bool, {}, "mlp", None),
        ((10, 10, 4), bool, {"network": "cnn"}, "cnn", "small"),
        ((10, 10, 4), np.float32, {"cnn": "small"}, "cnn", "small"),
    ],
)
def test_which_network_there_is_unless_told(shape, dtype, settings, network, cnn):
    found = resolved(spaces.Box(0, 1, shape, dtype), NetworkConfig(**settings))
    assert (found.network, found.cnn) == (network, cnn)
    dense = {None: (64, 64), "nature": (512,), "small": (128,)}[cnn]
    assert (found.hidden, found.activation) == (dense, "relu" if cnn else "tanh")


def test_natures_network_has_natures_size():
    space = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    network = Network(space, spaces.Discrete(6), NetworkConfig())
    sizes = [leaf.size for leaf in jax.tree.leaves(network.functions.params)]
    # 8*8*4*32 + 4*4*32*64 + 3*3*64*64 + 7*7*64*512 + 512*6 weights, and a bias for each output.
    assert sum(sizes) == 8192 + 32768 + 36864 + 1605632 + 3072 + 32 + 64 + 64 + 512 + 6


def test_observations_keep_their_shape_and_only_numbers_have_statistics():
    box = spaces.Box(-1, 1, (2, 3), np.float64)
    network = Network(box, DISCRETE, NetworkConfig())
    x = network.observe(jnp.arange(6.0).reshape(2, 3), np.arange(6), np.full(6, 2.0))
    np.testing.assert_array_equal(x, np.zeros((2, 3)))
    assert network.statistics_size == 6
    assert network.statistics(x).shape == (6,)
    assert network.observe(np.ones((2, 3)), np.zeros(6), np.ones(6)).dtype == jnp.float32
    scalar = Network(spaces.Box(0, 1, ()), DISCRETE, NetworkConfig())
    assert scalar.apply(scalar.init(jax.random.key(0)), (), jnp.float32(0))[1].shape == (3,)
    for space in (spaces.Box(0, 1, (4, 4), bool), spaces.Discrete(4), spaces.Box(0, 255, (9, 9), np.uint8)):  # fmt: skip # noqa: E501
        assert Network(space, DISCRETE, NetworkConfig()).statistics_size == 0
