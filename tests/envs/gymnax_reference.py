"""One episode as a plain loop over gymnax's own functions."""

import warnings

import gymnax
import jax
import numpy as np


def plain_episode(name, key, actions):
    """Rewards, whether the task has ended, and the observations after each step."""
    env, params = gymnax.make(name)
    params = params.replace(max_steps_in_episode=10**6)
    rewards, observations, done = [], [], False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, state = env.reset_env(jax.random.key_data(key), params)
        for number, action in enumerate(actions):
            step_key = jax.random.key_data(jax.random.fold_in(key, number))
            obs, state, reward, done, _ = env.step_env(step_key, state, action, params)
            rewards.append(np.asarray(reward))
            observations.append(np.asarray(obs))
            if done:
                break
    return np.stack(rewards).reshape(-1), bool(done), np.stack(observations)
