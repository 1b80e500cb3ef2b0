"""Stages: devices and workers have one interface, and give the same kind of answers."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.errors import UserError
from es_rl.play.device_collector import DeviceCollector
from es_rl.play.device_player import DevicePlayer
from es_rl.play.host_collector import HostCollector
from es_rl.play.host_player import HostPlayer
from es_rl.play.jobs import Jobs, episode_keys
from es_rl.play.player import Behaviour, CollectionKeys, Collector, Player
from es_rl.play.stage import DeviceStage, HostStage, Stage, open_stage

NAMES = {"device": "gymnasium/phys2d/CartPole-v1", "host": "gymnasium/CartPole-v1"}
JOBS = Jobs(np.arange(10, dtype=np.int32), np.arange(10, dtype=np.int32) // 2)
KEYS = np.asarray(jax.random.key_data(episode_keys(jax.random.key(3), 5)))
SHARED = {"lean": jnp.linspace(-1.0, 1.0, 10)}
NUM_LANES, NUM_STEPS = 4, 30


def act(shared, selected, memory, obs, key):
    """Each member pushes where it leans to, or where the pole does."""
    push = selected + jnp.tanh(obs[2] * 10) + 2.0 * jax.random.normal(key)
    return (push > 0).astype(jnp.int32), memory + 1, obs


BEHAVIOUR = Behaviour(lambda shared, member: shared["lean"][member], jnp.float32(0), act)


def collecting(shared, obs, key):
    action = jax.random.bernoulli(key, 0.5, (len(obs),)).astype(jnp.int32)
    return action, {"obs": obs, "action": action}


def collection_keys(number):
    keys = jax.random.split(jax.random.key(number), 3)
    return CollectionKeys(*np.asarray(jax.random.key_data(keys))[:, None])


@pytest.fixture(scope="module", params=NAMES)
def env(request):
    here = {"workers": 1} if request.param == "host" else {}
    return envs.make(NAMES[request.param], max_episode_steps=25, **here)


@pytest.fixture(scope="module")
def stage(env):
    with open_stage(env, devices=1, jobs=10) as opened:
        yield opened


@pytest.fixture(scope="module")
def played(stage):
    player = stage.player(BEHAVIOUR, JOBS)
    shapes = player.shapes(SHARED, KEYS)
    player.compile(SHARED, KEYS)
    return shapes, player.play(SHARED, KEYS)


def public(kind):
    """What a class offers: the parameters of its methods by name, None for what is no method."""
    names = [name for name in dir(kind) if not name.startswith("_") or name == "__enter__"]
    members = {name: inspect.getattr_static(kind, name) for name in names}
    return {
        name: list(inspect.signature(member).parameters) if inspect.isfunction(member) else None
        for name, member in members.items()
    }


@pytest.mark.parametrize(
    ("interface", "kinds"),
    [
        (Stage, (DeviceStage, HostStage)),
        (Player, (DevicePlayer, HostPlayer)),
        (Collector, (DeviceCollector, HostCollector)),
    ],
)
def test_both_kinds_have_the_interface(interface, kinds):
    wanted = public(interface)
    assert len(wanted) > 3
    for kind in kinds:
        found = public(kind)
        assert {name: found[name] for name in wanted} == wanted


def test_a_stage_is_of_the_kind_of_its_environment(env, stage):
    assert isinstance(stage, HostStage if isinstance(env, envs.HostEnv) else DeviceStage)
    assert stage.mesh.size == 1


def test_jobs_are_played_to_their_ends(played):
    shapes, result = played
    np.testing.assert_array_equal(result.returns, result.lengths)
    assert len(np.unique(result.returns)) > 3
    assert np.min(result.lengths) > 0
    assert np.max(result.lengths) <= 25
    assert np.sum(result.lane_steps) >= np.sum(result.lengths)
    assert result.obs_sum.shape == (10, 4)
    assert (np.asarray(result.obs_squares) > 0).all()
    described = [(x.shape, x.dtype) for x in jax.tree.leaves(shapes)]
    assert described == [(x.shape, x.dtype) for x in jax.tree.leaves(result)]


def test_lanes_change_no_return(env, played):
    with open_stage(env, devices=2, jobs=10, lanes=3) as other:
        again = other.player(BEHAVIOUR, JOBS).play(SHARED, KEYS)
    np.testing.assert_array_equal(again.returns, played[1].returns)
    np.testing.assert_array_equal(again.obs_sum, played[1].obs_sum)


def test_evaluation_is_played_on_lanes_of_its_own(env):
    numbers = np.arange(5, dtype=np.int32)
    jobs = Jobs(np.zeros_like(numbers) + 4, numbers)
    found = []
    for options in ({"jobs": 10, "lanes": 3}, {}):
        with open_stage(env, **options) as stage:
            found.append(stage.player(BEHAVIOUR, jobs, evaluation=True).play(SHARED, KEYS))
    np.testing.assert_array_equal(found[0].returns, found[1].returns)
    np.testing.assert_array_equal(found[0].lengths, found[1].lengths)


def test_episodes_may_be_cut(stage):
    cut = stage.player(BEHAVIOUR, JOBS, max_steps=7).play(SHARED, KEYS)
    assert (np.asarray(cut.lengths) == 7).all()


def test_nothing_is_added_up_where_there_is_nothing(stage):
    silent = BEHAVIOUR._replace(act=lambda *given: (*act(*given)[:2], jnp.zeros(0)))
    result = stage.player(silent, JOBS, max_steps=7).play(SHARED, KEYS)
    assert result.obs_sum.shape == result.obs_squares.shape == (10, 0)


def test_steps_are_collected(stage):
    collector = stage.collector(collecting, NUM_LANES, NUM_STEPS)
    episodes, keys = collector.start(jax.random.key(1)), collection_keys(2)
    shapes = collector.shapes((), episodes, keys)
    collector.compile((), episodes, keys)
    episodes, collected, failed = collector.collect((), episodes, keys)
    assert failed == 0
    for wanted, found in zip(*map(jax.tree.leaves, (shapes, collected)), strict=True):
        assert found.shape == wanted.shape
        assert found.shape[:2] == (NUM_STEPS, NUM_LANES)
        assert found.dtype == wanted.dtype
    obs, ended = np.asarray(collected.record["obs"]), np.asarray(collected.ended)
    goes_on = ~ended[:-1]
    assert 0 < goes_on.sum() < goes_on.size
    np.testing.assert_array_equal(np.asarray(collected.next_obs)[:-1][goes_on], obs[1:][goes_on])
    restarted = obs[1:][~goes_on]
    assert (np.abs(restarted) <= 0.05).all(), "as start states of CartPole are"
    assert len(np.unique(restarted, axis=0)) == len(restarted)
    np.testing.assert_array_equal(np.isfinite(collected.totals), ended)
    # Each step earns 1: a return is the time since the end before.
    for lane in range(NUM_LANES):
        ends = np.flatnonzero(ended[:, lane])
        lengths = np.diff(ends, prepend=-1)
        np.testing.assert_array_equal(np.asarray(collected.totals)[ends, lane], lengths)


def test_lanes_that_were_saved_go_on_as_they_would_have(stage):
    collectors = [stage.collector(collecting, NUM_LANES, NUM_STEPS) for _ in range(2)]
    episodes, _, _ = collectors[0].collect(
        (), collectors[0].start(jax.random.key(1)), collection_keys(2)
    )
    saved = jax.tree.map(np.array, jax.device_get(episodes))
    _, wanted, _ = collectors[0].collect((), episodes, collection_keys(3))
    _, found, _ = collectors[1].collect((), saved, collection_keys(3))
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_states_may_hold_arrays_of_size_0_on_several_devices():
    with open_stage(envs.make("probe/policy_reward"), devices=2) as stage:
        collector = stage.collector(lambda shared, obs, key: (obs[:, 0] > 0, ()), 4, 3)
        episodes = collector.start(jax.random.key(1))
        keys = jax.tree.map(lambda x: np.concatenate([x, x]), collection_keys(2))
        collector.compile((), episodes, keys)
        for _ in range(2):
            episodes, collected, _ = collector.collect((), episodes, keys)
    assert episodes.state.inner["nothing"].shape == (4, 0)
    assert collected.reward.shape == (3, 4)


def test_a_stage_that_was_closed_opens_no_workers():
    stage = open_stage(envs.make(NAMES["host"], workers=1))
    stage.close()
    with pytest.raises(RuntimeError, match=r"CartPole-v1: the stage was closed"):
        stage.player(BEHAVIOUR, JOBS)


@pytest.mark.parametrize(
    ("name", "lanes", "says"),
    [
        ("device", 2, "lanes=2: .*CartPole-v1 does not step on the host: must not be given"),
        ("host", 0, "lanes=0: must be at least 1"),
    ],
)
def test_lanes_that_cannot_be_are_refused(name, lanes, says):
    with pytest.raises(UserError, match=says):
        open_stage(envs.make(NAMES[name]), lanes=lanes)
