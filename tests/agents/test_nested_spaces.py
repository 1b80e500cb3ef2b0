"""Dict and Tuple observations: trained, saved, loaded, called, exported and replayed."""

import json

import jax
import numpy as np
import onnxruntime
import pytest
from gymnasium import spaces
from gymnasium.vector.utils import batch_space

import agents
import envs
from agents.policies import nested
from envs.errors import UserError
from envs.host.nested import flat_space
from experiments.commands import replay
from tests.envs.nested_envs import ROOMS, Unsorted

envs.import_module("tests.envs.nested_envs")

TINY = {"population_size": 4, "hidden": ()}
SPACES = [
    ROOMS,
    Unsorted.observation_space,
    spaces.Tuple((spaces.Discrete(32), spaces.Discrete(11), spaces.Discrete(2))),
    spaces.Dict(
        a=spaces.Dict(b=spaces.Tuple((spaces.Box(-1, 1, ()), spaces.Discrete(1)))), c=ROOMS
    ),
]


def policy_of(name, agent="eggroll", **settings):
    """A policy whose weights and statistics are random, so that nothing of it is neutral."""
    made = agents.make(agent, envs.make(name, workers=1), **{**TINY, **settings})
    policy = made.snapshot(made.init(jax.random.key(0)))
    made.close()
    rng = np.random.default_rng(2)
    weights = jax.tree.map(
        lambda x: x + rng.normal(0, 1.0, np.shape(x)).astype(np.float32), policy.weights
    )
    space = policy.spec.observation_space
    weights = weights._replace(
        mean=(space.low + space.high) / 2,
        std=np.abs(weights.std) + 0.5,
        num_observations=np.float32(9),
    )
    return type(policy)(policy.spec, policy.actor, weights, policy.agent)


def elements(space, count):
    space.seed(1)
    return [space.sample() for _ in range(count)]


@pytest.mark.parametrize("space", SPACES)
def test_a_flat_observation_is_that_of_gymnasium(space):
    flatten = jax.jit(lambda parts: nested.flatten(space, parts))
    obs = elements(space, 20)
    for one in obs:
        parts, batched = nested.parts_of(space, one)
        assert not batched
        expected = np.asarray(spaces.flatten(space, one), np.float32)
        np.testing.assert_array_equal(flatten(parts), expected)
        assert flat_space(space).contains(expected)


@pytest.mark.parametrize("space", SPACES)
def test_a_space_comes_back_from_its_description_in_the_same_order(space):
    read = nested.from_json(json.loads(json.dumps(nested.to_json(space))))
    assert read == space
    assert nested.names(read) == nested.names(space)
    assert len(set(nested.names(space))) == len(nested.empty_parts(space)) > 1


@pytest.mark.parametrize("name", ["eggroll", pytest.param("ppo", marks=pytest.mark.slow)])
def test_what_was_trained_replays(name, tmp_path, capsys):
    settings = {"num_envs": 2, "num_steps": 10, "minibatch_size": 10, "hidden": ()}
    env = envs.make("gymnasium/Rooms-v0", workers=1)
    agent = agents.make(name, env, **(TINY if name == "eggroll" else settings))
    policy = agents.train(agent, env_steps=60, eval_episodes=2, checkpoint_seconds=None).policy
    agent.close()
    policy.save(tmp_path)
    assert agents.load_policy(tmp_path).spec == policy.spec == env.spec
    assert policy.spec.raw_observation_space == ROOMS
    assert replay.main([str(tmp_path), "--episodes", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["returns"] == policy.evaluation["returns"]


def test_a_policy_acts_on_one_observation_and_on_a_batch_of_parts(tmp_path):
    policy_of("gymnasium/Rooms-v0").save(tmp_path)
    policy = agents.load_policy(tmp_path)
    obs = elements(ROOMS, 30)
    singly = [policy(one) for one in obs]
    flat = np.stack([spaces.flatten(ROOMS, one) for one in obs]).astype(np.float32)
    np.testing.assert_array_equal(singly, policy(flat))
    assert set(np.unique(singly)) == {0, 1}
    stacked = batch_space(ROOMS, 30)
    assert isinstance(stacked["pose"], spaces.Tuple)
    batch = {
        **{k: np.stack([one[k] for one in obs]) for k in ("room", "season", "doors")},
        "pose": tuple(np.stack([one["pose"][i] for one in obs]) for i in (0, 1)),
    }
    assert stacked.contains({**batch, "season": batch["season"].astype(np.int64)})
    np.testing.assert_array_equal(singly, policy(batch))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"room": np.zeros(3)}, r"obs\['room'\] has shape \(3,\): must be \(2, 2\) or \(n, 2"),
        ({"pose": (np.zeros(2, int),)}, r"obs\['pose'\]\[1\] is missing"),
        ({"room": np.zeros((5, 2, 2))}, r"obs\['room'\] has shape \(5, 2, 2\): must be of as many"),
    ],
)
def test_an_observation_of_other_parts_is_refused(change, says):
    policy = policy_of("gymnasium/Rooms-v0")
    (obs,) = elements(ROOMS, 1)
    with pytest.raises(UserError, match=says):
        policy({**obs, **change})
    with pytest.raises(UserError, match=r"obs\['doors'\] is missing"):
        policy({"room": obs["room"]})


@pytest.mark.parametrize(("name", "distinct"), [("Rooms", 2), ("Turning", 1000)])
def test_a_model_takes_the_parts_by_name(name, distinct, tmp_path):
    policy = policy_of(f"gymnasium/{name}-v0", hidden=(8,))
    policy.export_onnx(tmp_path / "policy.onnx")
    model = onnxruntime.InferenceSession(
        tmp_path / "policy.onnx", providers=["CPUExecutionProvider"]
    )
    types = {"tensor(float)": np.float32, "tensor(int32)": np.int32, "tensor(uint8)": np.uint8}
    types["tensor(int8)"] = np.int8
    kinds = {given.name: types[given.type] for given in model.get_inputs()}
    assert list(kinds) == ["obs_doors", "obs_pose_0", "obs_pose_1", "obs_room", "obs_season"]
    acted, seen = [], elements(ROOMS, 1000)
    expected = policy(np.stack([spaces.flatten(ROOMS, obs) for obs in seen], dtype=np.float32))
    for obs in seen:
        parts = {
            **{f"obs_{k}": obs[k] for k in ("room", "season", "doors")},
            **{f"obs_pose_{i}": obs["pose"][i] for i in (0, 1)},
        }
        given = {name: np.asarray(part, kinds[name]) for name, part in parts.items()}
        acted.append(model.run(["action"], given)[0])
    np.testing.assert_allclose(acted, expected, atol=1e-5)
    assert len(np.unique(expected)) >= distinct  # else anything would do
    told = model.get_modelmeta().custom_metadata_map
    assert nested.from_json(json.loads(told["raw_observation_space"])) == ROOMS


def test_parts_of_the_same_name_have_no_model():
    space = spaces.Dict(a_b=spaces.Discrete(2), a=spaces.Dict(b=spaces.Discrete(2)))
    with pytest.raises(UserError, match="obs_a_b, obs_a_b: names must differ|names must differ"):
        nested.names(space)


def test_sbx_sees_flat_observations():
    env = envs.make("gymnasium/Rooms-v0", workers=1)
    single = env.single()
    obs, _ = single.reset(seed=3)
    assert obs.dtype == np.float32
    assert single.observation_space == env.spec.observation_space
    assert single.observation_space.contains(obs)


def test_blackjack_trains_and_replays(tmp_path, capsys):
    agent = agents.make("eggroll", envs.make("gymnasium/Blackjack-v1", workers=1), **TINY)
    policy = agents.train(agent, env_steps=20, eval_episodes=3, checkpoint_seconds=None).policy
    agent.close()
    policy.save(tmp_path)
    assert policy((14, 7, 0)) in (0, 1)
    assert policy(tuple(np.array([[14, 20], [7, 2], [0, 1]]))).shape == (2,)
    assert replay.main([str(tmp_path), "--episodes", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["returns"] == policy.evaluation["returns"]
