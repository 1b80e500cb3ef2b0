"""PPO draws nothing twice: every episode has a start of its own, every use a key of its own."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

import agents
from agents.policies import distributions
from agents.ppo import keys as ppo_keys
from envs.base import EnvSpec, State
from es_rl.play.jobs import at_step

SMALL = {"num_epochs": 3, "hidden": (2,)}


class Lottery:
    """An episode shows the number that it started with, and ends after some steps."""

    def __init__(self, note, steps):
        self._note = note
        space = spaces.Box(0.0, 1.0, (1,), np.float32)
        self.spec = EnvSpec("test/lottery", space, spaces.Discrete(2), steps)

    def reset(self, key):
        self._note("reset", jax.random.key_data(key))
        no = jnp.bool_(False)
        return State((), jax.random.uniform(key, (1,)), jnp.float32(0), no, no, jnp.int32(0))

    def step(self, state, action, key):
        self._note("step", jax.random.key_data(key))
        self._note("played", state.obs)
        steps = state.steps + 1
        over = steps >= self.spec.max_episode_steps
        return state.replace(reward=jnp.float32(1), truncated=over, steps=steps)


class Notes:
    """What compiled programs have computed: (name, bytes of an array), each time that they did."""

    def __init__(self):
        self._taken = []

    def __call__(self, name, x):
        jax.debug.callback(lambda x: self._taken.append((name, np.asarray(x).tobytes())), x)

    def of(self, *names):
        jax.effects_barrier()
        return [content for name, content in self._taken if name in names]


def run(agent, iterations):
    state = agent.init(jax.random.key(0))
    for _ in range(iterations):
        state, _ = agent.step(state)


def test_every_episode_starts_elsewhere():
    """One environment restarts 100 times, which once gave two starts."""
    notes = Notes()
    settings = {"num_envs": 1, "num_steps": 50, "minibatch_size": 25}
    run(agents.make("ppo", Lottery(notes, 1), **settings, **SMALL), iterations=2)
    assert len(set(notes.of("played"))) == 100


def test_no_key_and_no_start_is_used_twice(monkeypatch):
    """Whatever keys are used for: those of the environment, of actions and of minibatches."""
    notes = Notes()

    def noting(name, function, position):
        def called(*arguments):
            notes(name, jax.random.key_data(arguments[position]))
            return function(*arguments)

        return called

    sample, permutation = distributions.sample, jax.random.permutation
    monkeypatch.setattr(distributions, "sample", noting("sample", sample, 3))
    monkeypatch.setattr(jax.random, "permutation", noting("permutation", permutation, 0))
    settings = {"num_envs": 8, "num_steps": 6, "minibatch_size": 8, "devices": 2}
    run(agents.make("ppo", Lottery(notes, 2), **settings, **SMALL), iterations=3)
    keys = notes.of("reset", "step", "sample", "permutation")
    assert len(notes.of("permutation")) == 3 * 3 * 2
    assert len(notes.of("sample")) == 3 * 6 * 2
    assert len(notes.of("step")) == 3 * 6 * 8
    assert len(set(keys)) == len(keys)
    shown = Counter(notes.of("played"))
    assert len(shown) == 3 * 6 * 8 / 2
    assert set(shown.values()) == {2}


def test_keys_that_are_derived_further_are_apart_too():
    run_key = jax.random.key(0)
    keys = [run_key]
    for iteration in range(3):
        for device in range(3):
            of_one = ppo_keys.of_iteration(run_key, iteration, device)
            keys += [*of_one.collection, of_one.minibatches]
            keys += [at_step(key, step) for key in of_one.collection for step in range(3)]
    found = {np.asarray(jax.random.key_data(key)).tobytes() for key in keys}
    assert len(found) == len(keys) == 1 + 3 * 3 * (4 + 3 * 3)
