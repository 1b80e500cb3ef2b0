"""Environments on the accelerator: one contract, whichever suite they come from."""

import copy
import functools
from dataclasses import replace

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.experimental.functional import FuncEnv

import envs
from envs.errors import UserError

IDS = [
    "gymnasium/phys2d/CartPole-v1",
    "gymnasium/phys2d/Pendulum-v0",
    "gymnasium/tabular/CliffWalking-v0",
    "gymnasium/tabular/Blackjack-v0",
    "brax/inverted_pendulum",
    "brax/fast",
    "probe/random_length",
]


@functools.cache
def make(name, **kwargs):
    return envs.make(name, **kwargs)


def action_of(env, seed=0):
    env.spec.action_space.seed(seed)
    return jnp.asarray(env.spec.action_space.sample())


@pytest.mark.parametrize("name", IDS)
def test_keeps_the_contract_under_jit_and_vmap(name):
    env = make(name)
    assert isinstance(env, envs.Env)
    assert not isinstance(env, envs.HostEnv)
    assert env.spec.id == name
    keys = jax.random.split(jax.random.key(0), 3)
    state = jax.jit(jax.vmap(env.reset))(keys)
    following = jax.jit(jax.vmap(env.step, in_axes=(0, None, 0)))(state, action_of(env), keys)

    def described(tree):
        return jax.tree.map(lambda x: (x.shape, x.dtype), tree)

    assert described(state) == described(following)
    assert following.reward.dtype == jnp.float32
    assert following.terminated.dtype == following.truncated.dtype == bool
    np.testing.assert_array_equal(state.steps, 0)
    np.testing.assert_array_equal(following.steps, 1)
    for obs in (state.obs[0], following.obs[2]):
        assert env.spec.observation_space.contains(np.asarray(obs)) or isinstance(
            env.spec.observation_space, spaces.Discrete
        )


def test_reset_is_a_function_of_the_key():
    env = make("gymnasium/phys2d/CartPole-v1")
    one, same, other = (env.reset(jax.random.key(s)).obs for s in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("name", ["gymnasium/phys2d/Pendulum-v0", "probe/delayed_reward"])
def test_a_time_limit_truncates(name):
    env = make(name, max_episode_steps=3)
    assert env.spec.kwargs == {"max_episode_steps": 3}
    state = env.reset(jax.random.key(0))
    for step in range(3):
        assert not state.truncated
        state = env.step(state, action_of(env), jax.random.key(step))
    assert state.truncated
    assert not state.terminated


def test_the_tasks_own_end_terminates():
    env = make("gymnasium/phys2d/CartPole-v1")
    state = env.reset(jax.random.key(0))
    step = jax.jit(env.step)
    while not state.terminated:
        assert not state.truncated
        assert state.steps < 50
        state = step(state, jnp.int32(1), jax.random.key(0))
    assert abs(state.obs[2]) > 0.2


def test_termination_on_the_last_step_is_not_truncation():
    env = make("probe/random_length", max_episode_steps=1)
    state = env.step(env.reset(jax.random.key(0)), jnp.int32(0), jax.random.key(0))
    assert state.terminated
    assert not state.truncated


def test_integer_boxes_are_discrete():
    cliff, blackjack = make(IDS[2]).spec, make(IDS[3]).spec
    assert cliff.observation_space == spaces.Discrete(48)
    assert cliff.action_space == spaces.Discrete(4)
    assert isinstance(blackjack.observation_space, spaces.MultiDiscrete)


def test_dynamics_are_those_of_the_suite():
    """CartPole's functional environment against Gymnasium's own NumPy one."""
    env = make("gymnasium/phys2d/CartPole-v1")
    state = env.reset(jax.random.key(3))
    reference = gymnasium.make("CartPole-v1")
    reference.reset(seed=0)
    # Gymnasium 1.4's functional CartPole adds mass and length of the pole where this multiplies.
    reference.unwrapped.polemass_length = 0.1 + 0.5
    reference.unwrapped.state = np.asarray(state.obs, np.float64)
    for action in (1, 0, 0, 1, 1):
        state = env.step(state, jnp.int32(action), jax.random.key(0))
        want, reward, *_ = reference.step(action)
        np.testing.assert_allclose(state.obs, want, atol=1e-5)
        assert float(state.reward) == reward
    reference.close()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Brax System")
def test_brax_follows_brax():
    import brax.envs

    env = make("brax/inverted_pendulum")
    plain = brax.envs.get_environment("inverted_pendulum")
    state = jax.jit(env.reset)(jax.random.key(5))
    want = jax.jit(plain.reset)(jax.random.PRNGKey(5))
    np.testing.assert_array_equal(state.obs, want.obs)
    state = jax.jit(env.step)(state, jnp.array([0.3]), jax.random.key(0))
    want = jax.jit(plain.step)(want, jnp.array([0.3]))
    np.testing.assert_allclose(state.obs, want.obs, rtol=1e-6)


@pytest.mark.parametrize("backend", ["spring", "positional", "mjx"])
def test_every_backend_builds(backend):
    env = make("brax/inverted_pendulum", backend=backend)
    assert env.spec.kwargs == {"backend": backend}


def broken_step(self, state, action):
    raise TypeError("a_min\nand more")


def test_what_cannot_run_says_so(monkeypatch):
    with pytest.raises(ValueError, match="backend='sprng': must be one of generalized, spring"):
        envs.make("brax/ant", backend="sprng")
    monkeypatch.setattr("brax.envs.inverted_pendulum.InvertedPendulum.step", broken_step)
    says = r"brax/inverted_pendulum, backend='spring' cannot run with jax [\d.]+: TypeError: a_min$"
    with pytest.raises(UserError, match=says):
        envs.make("brax/inverted_pendulum", backend="spring")


@pytest.mark.slow
def test_swimmer_runs():
    env = envs.make("brax/swimmer")
    state = jax.jit(env.step)(env.reset(jax.random.key(0)), jnp.ones(2), jax.random.key(0))
    assert jnp.isfinite(state.obs).all()


def own_brax():
    from brax.envs.inverted_pendulum import InvertedPendulum

    class Mine(InvertedPendulum):
        """A class of a user's own."""

    return Mine


def test_what_is_registered_with_brax_is_one_of_its_environments():
    import brax.envs

    with pytest.raises(UserError, match="unknown environment.*brings in your own"):
        envs.make("brax/mine")
    brax.envs.register_environment("mine", own_brax())
    assert "brax/mine" in envs.list_ids("brax")
    env = envs.make("brax/mine", backend="spring")
    assert (env.spec.id, env.spec.kwargs) == ("brax/mine", {"backend": "spring"})


@pytest.mark.filterwarnings("ignore:Brax System")
def test_a_brax_environment_of_ones_own():
    made = own_brax()(backend="spring")
    env = envs.from_brax(made, id="mine/pendulum", max_episode_steps=7, reward_threshold=5)
    assert isinstance(env, envs.Env)
    spec = env.spec
    assert (spec.id, spec.max_episode_steps, spec.reward_threshold) == ("mine/pendulum", 7, 5)
    known = envs.make("brax/inverted_pendulum", backend="spring")
    state, want = (x.reset(jax.random.key(3)) for x in (env, known))
    np.testing.assert_array_equal(state.obs, want.obs)
    with pytest.raises(UserError, match="mine/broken cannot run with jax"):
        envs.from_brax(object(), id="mine/broken")


class Walk(FuncEnv):
    """A user's own environment: an integer walk whose step is the action."""

    observation_space = spaces.Box(-100, 100, (1,), np.float32)
    action_space = spaces.MultiDiscrete([2, 3])

    def initial(self, rng, params=None):
        return 0

    def transition(self, state, action, rng, params=None):
        return state + action[0] + action[1]

    def observation(self, state, rng, params=None):
        return jnp.array([state], jnp.float32)

    def reward(self, state, action, next_state, rng, params=None):
        return next_state - state

    def terminal(self, state, rng, params=None):
        return state >= 5


def test_a_functional_environment_of_ones_own():
    env = envs.from_func_env(Walk(), id="own/walk", max_episode_steps=4)
    state = env.reset(jax.random.key(0))
    state = env.step(state, jnp.array([1, 2]), jax.random.key(0))
    assert float(state.reward) == 3
    state = env.step(state, jnp.array([0, 2]), jax.random.key(0))
    assert state.terminated
    with pytest.raises(UserError, match="Walk has no picture"):
        env.render([state])


def test_programs_share_one_trace_of_an_environment():
    traced = []

    class Counting(Walk):
        def reward(self, state, action, next_state, rng, params=None):
            traced.append("step")
            return super().reward(state, action, next_state, rng)

        def observation(self, state, rng, params=None):
            traced.append("reset or step")
            return super().observation(state, rng)

    env = envs.from_func_env(Counting(), id="own/counting", max_episode_steps=4)
    for count in (2, 3):
        keys = jax.random.split(jax.random.key(0), count)
        traced.clear()
        state = jax.jit(jax.vmap(env.reset))(keys)
        jax.jit(jax.vmap(env.step, in_axes=(0, None, 0)))(state, jnp.array([1, 2]), keys)
        assert len(traced) == (3 if count == 2 else 0)
    other = copy.copy(env)
    other.spec = replace(env.spec, max_episode_steps=1)
    for each, cut in ((other, True), (env, False)):
        state = each.step(each.reset(jax.random.key(0)), jnp.array([0, 0]), jax.random.key(0))
        assert state.truncated == cut


@pytest.mark.parametrize(
    "name",
    ["gymnasium/phys2d/CartPole-v1", "gymnasium/phys2d/Pendulum-v0", "brax/inverted_pendulum"],
)
def test_pictures_need_no_display(name):
    env = make(name)
    first = env.reset(jax.random.key(0))
    second = env.step(first, action_of(env), jax.random.key(0))
    try:
        frames = env.render([first, second])
    except UserError as error:
        if "on Debian or Ubuntu install libegl1" not in str(error):
            raise
        pytest.skip("no EGL on this machine")
    assert len(frames) == 2
    assert frames[0].dtype == np.uint8
    assert frames[0].ndim == 3
    assert frames[0].std() > 5


@pytest.mark.parametrize(
    ("name", "best"),
    [("constant_reward", 1), ("action_reward", 1), ("policy_reward", 8), ("delayed_reward", 1)],
)
def test_probes_pay_what_they_promise(name, best):
    env = make(f"probe/{name}")
    state, total = env.reset(jax.random.key(1)), 0.0
    while not (state.truncated or state.terminated):
        right = 1 if name == "action_reward" else int(state.obs[0] > 0)
        state = env.step(state, jnp.int32(right), jax.random.key(int(state.steps)))
        total += float(state.reward)
    assert total == best == env.spec.reward_threshold


def test_recall_shows_its_sign_once():
    env = make("probe/recall")
    state, seen, total = env.reset(jax.random.key(1)), [], 0.0
    while not state.truncated:
        seen.append(float(state.obs[0]))
        state = env.step(state, jnp.int32(seen[0] > 0), jax.random.key(0))
        total += float(state.reward)
    assert abs(seen[0]) == total == env.spec.reward_threshold == 1
    assert seen[1:] == [0, 0, 0, 0]
