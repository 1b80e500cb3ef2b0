"""ONNX models of policies, run by onnxruntime beside the policies themselves."""

import json

import jax
import numpy as np
import onnxruntime
import pytest
from flax import nnx

import agents
import envs
from envs.errors import UserError
from experiments import cli
from tests.agents import own_networks
from tests.envs import image_envs  # noqa: F401 - registers them

pytestmark = pytest.mark.slow

PENDULUM, CART_POLE = "gymnasium/phys2d/Pendulum-v0", "gymnasium/phys2d/CartPole-v1"
SMALL = {"population_size": 32, "hidden": (8,)}


def policy_of(env_id, **settings):
    """A policy whose weights and statistics are random, so that nothing of it is neutral."""
    settings = {k: v for k, v in {**SMALL, **settings}.items() if v is not None}
    agent = agents.make("eggroll", envs.make(env_id), **settings)
    policy = agent.snapshot(agent.init(jax.random.key(0)))
    rng = np.random.default_rng(2)
    weights = jax.tree.map(
        lambda x: x + rng.normal(0, 1.0, np.shape(x)).astype(np.float32), policy.weights
    )
    count = np.abs(weights.num_observations)
    weights = weights._replace(std=np.abs(weights.std) + 0.5, num_observations=count)
    return type(policy)(policy.spec, policy.actor, weights, policy.agent)


def session(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def observations(policy, count):
    """Elements of the observation space, of a size that a simulator shows."""
    space = policy.spec.observation_space
    rng = np.random.default_rng(1)
    if np.issubdtype(space.dtype, np.floating):
        return rng.normal(0, 2, (count, *space.shape)).astype(space.dtype)
    space.seed(1)
    found = np.stack([space.sample() for _ in range(count)])
    return found if found.dtype == np.uint8 else found.astype(np.int32)


@pytest.mark.parametrize(
    ("env_id", "settings"),
    [
        (PENDULUM, {}),
        (PENDULUM, {"squash": "clip", "activation": "layer_norm_relu", "hidden": (8, 8)}),
        (PENDULUM, {"normalize_observations": False, "hidden": ()}),
        (CART_POLE, {}),
        ("gymnasium/tabular/CliffWalking-v0", {}),
        ("image/spot", {}),
        ("image/spot", {"network": own_networks.Linen(), "hidden": None}),
        ("image/spot", {"network": own_networks.Nnx(nnx.Rngs(0)), "hidden": None}),
    ],
)
def test_a_model_acts_as_its_policy(env_id, settings, tmp_path):
    policy = policy_of(env_id, **settings)
    policy.export_onnx(tmp_path / "policy.onnx")
    model = session(tmp_path / "policy.onnx")
    obs = observations(policy, 1000)
    acted = np.stack([model.run(["action"], {"obs": np.asarray(row)})[0] for row in obs])
    expected = policy(obs)
    np.testing.assert_allclose(acted, expected, atol=1e-5)
    assert len(np.unique(expected)) > 1  # else anything would do
    space = policy.spec.action_space
    if np.issubdtype(space.dtype, np.floating):
        assert acted.dtype == np.float32
        assert ((acted >= space.low) & (acted <= space.high)).all()


def test_a_model_remembers_as_its_policy(tmp_path):
    policy = policy_of(PENDULUM, network="gru", memory=6)
    policy.export_onnx(tmp_path / "policy.onnx")
    model, remembered, memory = session(tmp_path / "policy.onnx"), np.zeros(6, np.float32), None
    for obs in observations(policy, 1000):
        expected, memory = policy.step(obs, memory)
        acted, remembered = model.run(
            ["action", "next_memory_0"], {"obs": obs, "memory_0": remembered}
        )
        np.testing.assert_allclose(acted, expected, atol=1e-5)


def test_a_model_says_what_it_is_for(tmp_path):
    policy_of(PENDULUM).export_onnx(tmp_path / "policy.onnx")
    told = session(tmp_path / "policy.onnx").get_modelmeta().custom_metadata_map
    assert (told["env"], told["agent"]) == (PENDULUM, "eggroll")
    assert json.loads(told["action_space"])["high"] == 2.0


def test_the_command_exports_a_run(tmp_path, capsys):
    policy_of(CART_POLE).save(tmp_path / "run" / "policy")
    path = tmp_path / "models" / "policy.onnx"
    with pytest.raises(SystemExit) as ended:
        cli.main(["export", str(tmp_path / "run"), str(path)])
    assert ended.value.code == 0
    assert str(path) in capsys.readouterr().out
    assert session(path).get_inputs()[0].shape == [4]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere", "a.onnx"], "there is no policy.json"),
        (["nowhere", "a.txt"], "export: error: FILE a.txt: must end in .onnx"),
    ],
)
def test_what_cannot_be_exported_is_refused(arguments, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        cli.main(["export", *arguments])
    assert ended.value.code == 2
    assert says in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_random_policy_has_no_model(tmp_path):
    agent = agents.make("random", envs.make(PENDULUM))
    with pytest.raises(UserError, match="agent=random: draws its actions"):
        agent.snapshot(agent.init(jax.random.key(0))).export_onnx(tmp_path / "policy.onnx")
