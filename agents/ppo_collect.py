"""How PPO gathers transitions: on the accelerator in one program, on the host step by step."""

from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from agents import distributions
from agents import spaces as _spaces
from agents.ppo_update import Learner, PyTree, Transitions
from envs.base import IDLE, RESET, STEP, Env, HostEnv, Received, State
from es_rl.host_rollout import as_float32
from es_rl.observations import Moments
from es_rl.rollout import where

_FAILURES_IN_VAIN = 16
"""So many failures in one batch while no episode ends, or of one restart, say that the environment
is broken."""


class Collected(NamedTuple):
    """A batch, and what is known of episodes."""

    batch: Transitions
    totals: jax.Array
    """(T, N) returns of episodes where they ended, NaN elsewhere."""
    failed: int = 0
    """Episodes that the environment failed; their steps earn nothing and are truncated."""


class Lanes(NamedTuple):
    """N environments between two steps."""

    state: State
    total: jax.Array
    """(N,) the return so far."""


def act(
    learner: Learner, params: PyTree, moments: Moments, obs: jax.Array, key: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """(actions, raw actions, their log probabilities, observation vectors) for N observations."""
    network = learner.network
    vector = _vectors(learner, moments, obs)
    head = learner.head(params, vector)
    raw = distributions.sample(network.action_space, head, params["log_std"], key)
    log_prob = distributions.log_prob(network.action_space, head, params["log_std"], raw)
    actions = jax.vmap(
        lambda row: _spaces.to_action(network.action_space, row, network.config.squash)
    )(raw)
    return actions, raw, log_prob, vector


def _vectors(learner: Learner, moments: Moments, obs: jax.Array) -> jax.Array:
    """(N, d) for N observations."""
    return jax.vmap(learner.network.vector, in_axes=(0, None, None))(obs, moments.mean, moments.std)


def start(env: Env, count: int, key: jax.Array) -> Lanes:
    """N new episodes."""
    return Lanes(jax.vmap(env.reset)(jax.random.split(key, count)), jnp.zeros(count))


def collect(
    env: Env,
    learner: Learner,
    num_steps: int,
    params: PyTree,
    moments: Moments,
    lanes: Lanes,
    key: jax.Array,
) -> tuple[Lanes, Collected]:
    """T steps of N lanes; a lane whose episode has ended goes on with a new one.

    New episodes start from a pool of N states, made by one vmapped reset; it begins again from
    the first when more episodes end.
    """
    count = lanes.total.shape[0]
    pool_key, steps_key = jax.random.split(key)
    pool = start(env, count, pool_key).state

    def step(carry: tuple[Lanes, jax.Array], key: jax.Array) -> Any:
        lanes, used = carry
        policy_key, env_key = jax.random.split(key)
        actions, raw, log_prob, vector = act(learner, params, moments, lanes.state.obs, policy_key)
        state = jax.vmap(env.step)(lanes.state, actions, jax.random.split(env_key, count))
        total = lanes.total + state.reward
        ended = state.terminated | state.truncated
        next_vector = _vectors(learner, moments, state.obs)
        transition = Transitions(
            vector, raw, log_prob, state.reward, state.terminated, ended, next_vector
        )
        fresh = jax.tree.map(lambda x: x[(used + jnp.cumsum(ended) - 1) % count], pool)
        state = jax.tree.map(lambda new, old: where(ended, new, old), fresh, state)
        lanes = Lanes(state, jnp.where(ended, 0.0, total))
        return (lanes, used + jnp.sum(ended)), (transition, jnp.where(ended, total, jnp.nan))

    (lanes, _), (batch, totals) = jax.lax.scan(
        step, (lanes, jnp.int32(0)), jax.random.split(steps_key, num_steps)
    )
    return lanes, Collected(batch, totals)


class HostCollector:
    """The same on environments that step on the host. They are not part of an agent's state: a
    state that is not the one that was collected for last starts new episodes."""

    def __init__(self, env: HostEnv, learner: Learner, num_envs: int, num_steps: int):
        self._id = env.spec.id
        self._learner = learner
        self._num_steps = num_steps
        self._lanes = env.lanes(num_envs)
        self._span = slice(0, num_envs)
        self._obs = np.zeros(0)
        self._total = np.zeros(num_envs)
        self._continues: tuple[bytes, int] | None = None

    @cached_property
    def _act(self) -> Any:
        def act_at(params: PyTree, moments: Moments, obs: jax.Array, key: Any, step: int) -> Any:
            return act(self._learner, params, moments, obs, jax.random.fold_in(key, step))

        return jax.jit(act_at)

    @cached_property
    def _next_vectors(self) -> Any:
        def vectors(moments: Moments, obs: jax.Array) -> jax.Array:
            return jax.vmap(lambda row: _vectors(self._learner, moments, row))(obs)

        return jax.jit(vectors)

    def compile(
        self, params: PyTree, moments: Moments, key: jax.Array, obs: np.ndarray
    ) -> Collected:
        """Compile for arguments like these, with one observation; a batch of the right shapes."""
        obs = np.stack([as_float32(obs)] * len(self._total))
        _, *row = map(np.asarray, self._act(params, moments, obs, key, 0))
        nothing = np.zeros(len(obs), np.float32)
        outcome = (*row, nothing, nothing > 0, nothing > 0, nothing, obs)
        return self._collected(moments, [outcome] * self._num_steps, 0)

    def collect(self, params: PyTree, moments: Moments, key: jax.Array, number: int) -> Collected:
        """T steps of N lanes.

        Args:
          params: of the learner.
          moments: of the observations.
          key: the run's.
          number: of the batch, counted from 0.

        Raises:
          RuntimeError: the environment fails and no episode ends, or it cannot be started.
        """
        run = jax.random.key_data(key).tobytes()
        rng = np.random.default_rng([*np.frombuffer(run, np.uint32).tolist(), number])
        if self._continues != (run, number):
            self._lanes.begin()
            self._restart(np.ones(len(self._total), bool), rng)
        self._continues = (run, number + 1)
        policy_key = jax.random.fold_in(key, number)
        outcomes, failed, reason = [], 0, ""
        for step in range(self._num_steps):
            obs = self._obs
            actions, *row = map(np.asarray, self._act(params, moments, obs, policy_key, step))
            received = self._exchange(np.full(len(obs), STEP), np.zeros(len(obs)), actions)
            lost = received.lost
            failed += len(received.faults)
            reason = next(iter(received.faults.values()), reason)
            reward = np.where(lost, 0.0, received.reward).astype(np.float32)
            terminated = received.terminated & ~lost
            ended = terminated | received.truncated | lost
            # What a lost step led to is not known; what it came from is the nearest to it.
            known = ~lost.reshape((-1,) + (1,) * (obs.ndim - 1))
            self._obs = np.where(known, as_float32(received.obs), obs)
            self._total += reward
            total = np.where(ended & ~lost, self._total, np.nan).astype(np.float32)
            outcomes.append((*row, reward, terminated, ended, total, self._obs))
            if ended.any():
                self._restart(ended, rng)
        collected = self._collected(moments, outcomes, failed)
        if failed >= _FAILURES_IN_VAIN and jnp.isnan(collected.totals).all():
            raise RuntimeError(f"{self._id}: {failed} episodes failed and none ended; {reason}")
        return collected

    def _collected(self, moments: Moments, outcomes: list[Any], failed: int) -> Collected:
        raw, log_prob, vector, reward, terminated, ended, totals, obs = (
            jnp.asarray(np.stack(x)) for x in zip(*outcomes, strict=True)
        )
        next_vector = self._next_vectors(moments, obs)
        batch = Transitions(vector, raw, log_prob, reward, terminated, ended, next_vector)
        return Collected(batch, totals, failed)

    def _restart(self, which: np.ndarray, rng: np.random.Generator) -> None:
        """Start new episodes in some lanes; a reset that fails is tried again with another seed."""
        self._total[which] = 0.0
        failed = 0
        obs = self._obs.copy()  # the batch keeps what the steps led to
        while which.any():
            seeds = rng.integers(1 << 31, size=len(which))
            received = self._exchange(np.where(which, RESET, IDLE), seeds, None)
            if not len(obs):
                obs = as_float32(received.obs)
            fresh = which & ~received.lost
            obs[fresh] = received.obs[fresh]
            which = which & received.lost
            failed += len(received.faults)
            if failed >= _FAILURES_IN_VAIN:
                reason = next(iter(received.faults.values()), "its worker was lost")
                raise RuntimeError(f"{self._id}: {failed} resets failed; {reason}")
        self._obs = obs

    def _exchange(self, command: np.ndarray, seeds: np.ndarray, actions: Any) -> Received:
        actions = None if actions is None else np.asarray(actions)
        self._lanes.send(self._span, command.astype(np.uint8), seeds.astype(np.int64), actions)
        return self._lanes.receive(self._span)
