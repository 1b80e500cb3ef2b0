"""One episode of an environment as a plain loop over its suite's own functions."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np


def plain_episode(id, key, actions):
    """Rewards and whether the task has ended after each step, until it has."""
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
    return rewards, ended


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


STEPPERS = {
    "craftax": _craftax,
    "jumanji": _jumanji,
    "navix": _navix,
    "pgx": _pgx,
    "playground": _playground,
}
