"""One episode of an environment as a plain loop over its suite's own functions."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np

import envs


def plain_episode(id, key, actions):
    """Rewards and whether the task has ended after each step, until it has; and the last state."""
    suite, _, name = id.partition("/")
    reset, step = STEPPERS[suite](name)
    rewards, ended = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        step = jax.jit(step)
        state = reset(key)
        for number, action in enumerate(actions):
            state, reward, done = step(state, action, jax.random.fold_in(key, number))
            rewards.append(float(np.sum(reward)))
            ended.append(bool(done))
            if done:
                break
    return rewards, ended, state


def shapes_checked(id, **kwargs):
    """The spec of an environment whose states are of one kind, and fit its observation space."""
    env = envs.make(id, **kwargs)
    action = jnp.asarray(env.spec.action_space.sample())
    start = jax.eval_shape(env.reset, jax.random.key(0))
    after = jax.eval_shape(env.step, start, action, jax.random.key(0))
    assert jax.tree.structure(start) == jax.tree.structure(after)
    for a, b in zip(jax.tree.leaves(start), jax.tree.leaves(after), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
    assert start.obs.shape == env.spec.observation_space.shape
    assert start.obs.dtype == env.spec.observation_space.dtype
    return env.spec


def _jumanji(name):
    import jumanji

    env = jumanji.make(name)
    columns = env.action_spec.num_values.tolist()[1] if env.action_spec.shape else None

    def step(state, action, key):
        if columns is not None:
            action = jnp.stack([action // columns, action % columns])
        state, timestep = env.step(state, action)
        return state, timestep.reward, timestep.last()

    return lambda key: env.reset(jax.random.key_data(key))[0], step


def _navix(name):
    import navix

    env = navix.make(name)

    def step(timestep, action, key):
        timestep = env._step(timestep, action)  # `step` starts a new episode by itself
        return timestep, timestep.reward, timestep.is_termination()

    return lambda key: env.reset(jax.random.key_data(key)), step


def _craftax(name):
    from craftax.craftax_env import make_craftax_env_from_name

    env = make_craftax_env_from_name(f"{name}-v1", auto_reset=False)
    params = env.default_params

    def step(state, action, key):
        _, state, reward, done, _ = env.step(jax.random.key_data(key), state, action, params)
        return state, reward, done

    return lambda key: env.reset(jax.random.key_data(key), params)[1], step


def _pgx(name):
    import pgx

    env = pgx.make(name)

    def step(state, action, key):
        state = env.step(state, action, key)
        return state, state.rewards, state.terminated

    return env.init, step


def _playground(name):
    from mujoco_playground import registry

    env = registry.load(name, config_overrides={"impl": "jax"})

    def step(state, action, key):
        state = env.step(state, action)
        return state, state.reward, state.done

    return lambda key: jax.jit(env.reset)(jax.random.key_data(key)), step


def _kinetix(name):
    from kinetix.environment import ActionType, ObservationType, make_kinetix_env
    from kinetix.util.saving import load_from_json_file

    level, static, params = load_from_json_file(name)
    kinds = ActionType.CONTINUOUS, ObservationType.SYMBOLIC_FLAT
    env = make_kinetix_env(*kinds, lambda key: level, params, static, auto_reset=False)

    def step(state, action, key):
        _, state, reward, done, _ = env.step(jax.random.key_data(key), state, action, params)
        return state, reward, done

    return lambda key: env.reset(jax.random.key_data(key), params)[1], step


STEPPERS = {
    "craftax": _craftax,
    "jumanji": _jumanji,
    "kinetix": _kinetix,
    "navix": _navix,
    "pgx": _pgx,
    "playground": _playground,
}
