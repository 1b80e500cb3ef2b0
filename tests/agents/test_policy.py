"""Saved policies: exact after loading, and clear about damage."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

import agents
import envs
from agents.policies.actors import RandomActor, ZeroActor
from agents.policies.network import Network, NetworkConfig, Weights
from agents.training.filming import film
from envs.base import EnvSpec


def make_policy(**config):
    env = envs.make("probe/policy_reward")
    network = Network(
        env.spec.observation_space, env.spec.action_space, NetworkConfig(hidden=(8,), **config)
    )
    params = jax.device_get(network.init(jax.random.key(0)))
    weights = Weights(params, np.float32([0.25]), np.float32([2.0]))
    return agents.Policy(env.spec, network, weights, agent="eggroll", training={"seed": 3})


def test_loaded_is_saved(tmp_path):
    policy = make_policy(activation="layer_norm_relu")
    policy.save(tmp_path / "p")
    loaded = agents.load_policy(tmp_path / "p")
    assert sorted(f.name for f in (tmp_path / "p").iterdir()) == [
        "policy.json",
        "weights.safetensors",
    ]
    jax.tree.map(np.testing.assert_array_equal, loaded.weights, policy.weights)
    assert loaded.spec == policy.spec
    assert loaded.actor.config == policy.actor.config
    assert (loaded.agent, loaded.training) == ("eggroll", {"seed": 3})
    obs = np.linspace(-1, 1, 5, dtype=np.float32)[:, None]
    np.testing.assert_array_equal(loaded(obs), policy(obs))


def test_a_save_that_fails_leaves_the_policy_that_was_there(tmp_path, monkeypatch):
    def fail(written):
        raise OSError("no space")

    one = make_policy()
    two = replace(one, weights=one.weights._replace(mean=np.float32([0.5])))
    one.save(tmp_path)
    assert two.digest != one.digest
    monkeypatch.setattr("agents.policies.policy._as_bytes", fail)
    with pytest.raises(OSError, match="no space"):
        two.save(tmp_path)
    assert agents.load_policy(tmp_path).digest == one.digest


def test_a_stochastic_policy_draws_its_actions(tmp_path):
    policy = make_policy(stochastic_evaluation=True)  # with equal logits, as it is not trained
    policy.save(tmp_path)
    loaded = agents.load_policy(tmp_path)
    obs = np.ones((64, 1), np.float32)
    drawn = loaded(obs, key=jax.random.key(1))
    np.testing.assert_array_equal(drawn, policy(obs, key=jax.random.key(1)))
    assert 16 < drawn.sum() < 48
    assert (drawn != loaded(obs, key=jax.random.key(2))).any()
    assert len(np.unique(make_policy()(obs))) == 1
    with pytest.raises(ValueError, match="draws its actions: must be without stochastic_eval"):
        policy.export_onnx(tmp_path / "policy.onnx")


def test_one_observation_or_a_batch_numpy_in_and_out():
    policy = make_policy()
    batch = policy(np.float32([[1], [-1], [1]]))
    assert isinstance(batch, np.ndarray)
    assert batch.shape == (3,)
    assert policy(np.float32([1])).shape == ()
    assert policy(np.float32([1])) == batch[0] == batch[2]
    with pytest.raises(ValueError, match=r"obs has shape \(2,\): must be \(1,\) or \(n, 1\)$"):
        policy(np.zeros(2))


def test_a_policy_with_a_memory_is_stepped(tmp_path):
    policy = make_policy(network="gru", memory=4)
    policy.save(tmp_path)
    loaded = agents.load_policy(tmp_path)
    with pytest.raises(ValueError, match=r"has a memory: call policy.step\(obs, memory\)"):
        loaded(np.float32([1]))
    obs = np.float32([[1], [-1]])
    first, memory = loaded.step(obs)
    assert first.shape == (2,)
    assert memory.shape == (2, 4)
    again, alone = loaded.step(obs[0])
    assert again == first[0]
    np.testing.assert_allclose(alone, memory[:1], rtol=1e-6)
    _, later = loaded.step(obs, memory)
    assert (np.abs(later - memory) > 1e-3).any()


@pytest.mark.parametrize(
    "name",
    [
        "gymnasium/CartPole-v1",
        pytest.param("gymnasium/phys2d/CartPole-v1", marks=pytest.mark.slow),
    ],
)
def test_a_film_of_a_policy_with_a_memory_shows_the_episode_of_the_evaluation(name):
    env = envs.make(name)
    agent = agents.make("eggroll", env, population_size=4, hidden=(8,), network="gru", memory=4)
    policy = agent.snapshot(agent.init(jax.random.key(3)))
    evaluation = agents.evaluate(policy, env, episodes=10)
    assert film(policy, env).episode_return == evaluation.returns[0]
    assert len(set(evaluation.returns.tolist())) > 1
    np.testing.assert_array_equal(
        agents.evaluate(policy, env, episodes=3).returns, evaluation.returns[:3]
    )


def test_the_normaliser_is_applied():
    policy = make_policy()
    network, weights = policy.actor, policy.weights

    def forward(memory, x):
        return memory, x * jnp.ones(2)

    x = network.observe(jnp.array([1.25]), weights.mean, weights.std)
    np.testing.assert_allclose(x, 0.5)
    np.testing.assert_allclose(network.statistics(x), 0.5)
    np.testing.assert_allclose(network.clipped(jnp.array([1e6])), 10)
    far, memory = network.action(forward, (), jnp.array([1e6]), jax.random.key(0))
    assert int(far) == 0
    assert memory == ()
    raw = Network(
        network.observation_space, network.action_space, NetworkConfig(normalize_observations=False)
    )
    np.testing.assert_allclose(raw.observe(jnp.array([1.25]), weights.mean, weights.std), 1.25)
    assert raw.statistics(x).shape == (0,)
    assert network.apply(weights.params, (), x)[1].shape == (2,)


@pytest.mark.parametrize("actor", [RandomActor, ZeroActor])
@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(np.float32([-1, 2]), np.float32([1, 4])),
        spaces.Box(-np.inf, np.inf, (3,), np.float32),
        spaces.Discrete(4, start=1),
        spaces.MultiDiscrete([3, 5]),
        spaces.MultiDiscrete([[3, 5]], dtype=np.uint8),
        spaces.MultiBinary((2, 2)),
    ],
)
def test_untrained_actors_fill_every_space_and_survive_saving(actor, space, tmp_path):
    spec = EnvSpec("own/x", spaces.Discrete(3), space, 10)
    empty = np.zeros(0, np.float32)
    policy = agents.Policy(spec, actor(space), Weights({}, empty, empty), agent="random")
    policy.save(tmp_path)
    loaded = agents.load_policy(tmp_path)
    actions = loaded(np.zeros(200, np.int64), jax.random.key(0))
    np.testing.assert_array_equal(actions, policy(np.zeros(200, np.int64), jax.random.key(0)))
    assert all(map(space.contains, actions))
    assert (len(np.unique(actions, axis=0)) > 1) == (actor is RandomActor)


def damaged(tmp_path, change):
    make_policy().save(tmp_path)
    change(tmp_path)
    with pytest.raises(ValueError, match="policy ") as error:
        agents.load_policy(tmp_path)
    assert "\n" not in str(error.value)
    return str(error.value)


def edit(key, value):
    def change(folder):
        path = folder / "policy.json"
        description = json.loads(path.read_text())
        *parents, last = key.split(".")
        place = description
        for parent in parents:
            place = place[parent]
        if value is None:
            del place[last]
        else:
            place[last] = value
        path.write_text(json.dumps(description))

    return change


def test_missing_files(tmp_path):
    with pytest.raises(ValueError, match="there is no policy.json in it"):
        agents.load_policy(tmp_path / "nowhere")
    says = damaged(tmp_path, lambda folder: (folder / "weights.safetensors").unlink())
    assert "there is no weights.safetensors" in says


@pytest.mark.parametrize("keep", [0, 4, 60, -1])
@pytest.mark.parametrize("name", ["policy.json", "weights.safetensors"])
def test_truncated_files(tmp_path, name, keep):
    def cut(folder):
        (folder / name).write_bytes((folder / name).read_bytes()[:keep])

    if name == "policy.json" and keep == -1:
        keep = -2  # the last byte is a newline
    assert f"{name} is damaged" in damaged(tmp_path, cut)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("format", 99, "written in format 99, this version reads 7"),
        ("actor.hidden", [16], "does not fit policy.json: params/params/Dense_0/bias is"),
        ("actor.kind", "code", "policy.json is damaged"),
        ("actor.activation", "os.system", "policy.json is damaged"),
        ("actor.hidden", [-4], "policy.json is damaged"),
        ("actor", None, "policy.json is damaged (KeyError: 'actor')"),
        ("env.observation_space.type", "Dict", "policy.json is damaged"),
        ("env.observation_space.shape", [10**9], "policy.json is damaged"),
        ("env.extra", 1, "policy.json is damaged"),
        ("weights_sha256", "0", "is not the file that policy.json was written with"),
    ],
)
def test_wrong_descriptions(tmp_path, key, value, says):
    assert says in damaged(tmp_path, edit(key, value))


def test_a_flipped_bit_in_the_weights_is_noticed(tmp_path):
    def flip(folder):
        path = folder / "weights.safetensors"
        blob = bytearray(path.read_bytes())
        blob[-3] ^= 1
        path.write_bytes(blob)

    assert "is not the file" in damaged(tmp_path, flip)
