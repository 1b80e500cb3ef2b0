"""How PPO gathers transitions: on the accelerator in one program, on the host step by step."""

import logging
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from agents.policies import distributions
from agents.policies import spaces as _spaces
from agents.ppo.keys import IterationKeys, at
from agents.ppo.update import Learner, PyTree, Transitions
from envs.base import IDLE, RESET, STEP, Env, Fault, HostEnv, Received, State
from envs.base import Lanes as HostLanes
from envs.errors import environment_error
from es_rl.play.host_acting import as_float32
from es_rl.play.host_rollout import TRAINING_SEEDS
from es_rl.play.observations import Moments
from es_rl.play.rollout import where

_log = logging.getLogger("es_rl")
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
    """(N, *shape) for N observations."""
    return jax.vmap(learner.network.observe, in_axes=(0, None, None))(
        obs, moments.mean, moments.std
    )


def reset(env: Env, count: int, key: jax.Array) -> State:
    """Start states of N episodes."""
    return jax.vmap(env.reset)(jax.random.split(key, count))


def start(env: Env, count: int, key: jax.Array) -> Lanes:
    """N new episodes."""
    return Lanes(reset(env, count, key), jnp.zeros(count))


def collect(
    env: Env,
    learner: Learner,
    num_steps: int,
    params: PyTree,
    moments: Moments,
    lanes: Lanes,
    keys: IterationKeys,
) -> tuple[Lanes, Collected]:
    """T steps of N lanes; a lane whose episode has ended goes on with a new one.

    Every episode starts from a key of its own. One vmapped reset makes N start states, which are
    handed out one after the other. It is called when fewer are left than are needed, and so never
    while no episode ends, and about once for N episodes.
    """
    count = lanes.total.shape[0]

    def step(carry: tuple[Lanes, _Starts], number: jax.Array) -> Any:
        lanes, starts = carry
        actions, raw, log_prob, vector = act(
            learner, params, moments, lanes.state.obs, at(keys.actions, number)
        )
        lane_keys = jax.random.split(at(keys.dynamics, number), count)
        state = jax.vmap(env.step)(lanes.state, actions, lane_keys)
        total = lanes.total + state.reward
        ended = state.terminated | state.truncated
        next_vector = _vectors(learner, moments, state.obs)
        transition = Transitions(
            vector, raw, log_prob, state.reward, state.terminated, ended, next_vector
        )
        wanted = jnp.cumsum(ended, dtype=jnp.int32)
        starts = jax.lax.cond(
            starts.used + wanted[-1] > count,
            lambda: _Starts(reset(env, count, at(keys.starts, number)), jnp.int32(0)),
            lambda: starts,
        )
        # The row of a lane that plays on may be out of range: what is read there is not used.
        fresh = jax.tree.map(lambda x: x[starts.used + wanted - 1], starts.state)
        state = jax.tree.map(lambda new, old: where(ended, new, old), fresh, state)
        lanes = Lanes(state, jnp.where(ended, 0.0, total))
        starts = starts._replace(used=starts.used + wanted[-1])
        return (lanes, starts), (transition, jnp.where(ended, total, jnp.nan))

    none_left = _Starts(lanes.state, jnp.int32(count))
    (lanes, _), (batch, totals) = jax.lax.scan(step, (lanes, none_left), jnp.arange(num_steps))
    return lanes, Collected(batch, totals)


class _Starts(NamedTuple):
    """Start states of episodes, each for one of them."""

    state: State
    """Of N."""
    used: jax.Array
    """int32 scalar, how many of them have been handed out."""


class Episodes(NamedTuple):
    """What N lanes on the host are playing, and all that it takes to come there again."""

    seeds: np.ndarray
    """(N,) int64, given to reset."""
    steps: np.ndarray
    """(N,) int32, steps since; -1 before the first episode."""
    actions: np.ndarray
    """(N, L, ...) those of these steps; L is the most that an episode has."""
    obs: np.ndarray
    """(N, ...) what they led to."""


class HostCollector:
    """The same on environments that step on the host.

    Simulators cannot be saved, but an episode that has the same seed and the same actions is the
    same episode: a state that is not the one that was collected for last plays its own again.
    """

    def __init__(
        self, env: HostEnv, lanes: HostLanes, learner: Learner, num_envs: int, num_steps: int
    ):
        self._id = env.spec.id
        self._learner = learner
        self._num_steps = num_steps
        self._lanes = lanes
        self._begun = -1
        """How often the lanes had been begun with when these episodes were."""
        self._span = slice(0, num_envs)
        self._current: Episodes | None = None
        self._warned = False
        self._total = np.zeros(num_envs)
        obs = as_float32(_spaces.empty(env.spec.observation_space))
        action = _spaces.empty(env.spec.action_space)
        longest = (num_envs, env.spec.max_episode_steps)
        self.nothing = Episodes(
            seeds=np.zeros(num_envs, np.int64),
            steps=np.full(num_envs, -1, np.int32),
            actions=np.zeros((*longest, *action.shape), action.dtype),
            obs=np.stack([obs] * num_envs),
        )
        """Where every run begins."""
        self._seeds, self._steps, self._actions, self._obs = map(np.copy, self.nothing)

    @cached_property
    def _act(self) -> Any:
        def act_at(params: PyTree, moments: Moments, obs: jax.Array, key: Any, step: int) -> Any:
            return act(self._learner, params, moments, obs, at(key, step))

        return jax.jit(act_at)

    @cached_property
    def _next_vectors(self) -> Any:
        def vectors(moments: Moments, obs: jax.Array) -> jax.Array:
            return jax.vmap(lambda row: _vectors(self._learner, moments, row))(obs)

        return jax.jit(vectors)

    def compile(self, params: PyTree, moments: Moments, keys: IterationKeys) -> Collected:
        """Compile for arguments like these; a batch of the right shapes."""
        obs = self.nothing.obs
        _, *row = map(np.asarray, self._act(params, moments, obs, keys.actions, 0))
        nothing = np.zeros(len(obs), np.float32)
        outcome = (*row, nothing, nothing > 0, nothing > 0, nothing, obs)
        return self._collected(moments, [outcome] * self._num_steps, 0)

    def collect(
        self, params: PyTree, moments: Moments, keys: IterationKeys, episodes: Episodes
    ) -> tuple[Episodes, Collected]:
        """T steps of N lanes.

        Args:
          params: of the learner.
          moments: of the observations.
          keys: of the iteration.
          episodes: where the batch before has left the lanes.

        Raises:
          RuntimeError: the environment fails and no episode ends, or it cannot be started.
        """
        rng = np.random.default_rng(np.asarray(jax.random.key_data(keys.starts)))
        if episodes is not self._current or self._lanes.begun != self._begun:
            self._take_up(episodes, rng)
        outcomes, failed, fault = [], 0, Fault("")
        for step in range(self._num_steps):
            obs = self._obs
            actions, *row = map(np.asarray, self._act(params, moments, obs, keys.actions, step))
            received = self._step(actions)
            lost = received.lost
            failed += len(received.faults)
            fault = next(iter(received.faults.values()), fault)
            reward = np.where(lost, 0.0, received.reward).astype(np.float32)
            self._total += reward
            terminated = received.terminated & ~lost
            ended = terminated | received.truncated | lost
            # What a lost step led to is not known; what it came from is the nearest to it.
            known = ~lost.reshape((-1,) + (1,) * (obs.ndim - 1))
            self._obs = np.where(known, as_float32(received.obs), obs)
            total = np.where(ended & ~lost, self._total, np.nan).astype(np.float32)
            outcomes.append((*row, reward, terminated, ended, total, self._obs))
            if ended.any():
                self._restart(ended, rng)
        collected = self._collected(moments, outcomes, failed)
        if failed >= _FAILURES_IN_VAIN and jnp.isnan(collected.totals).all():
            raise environment_error(f"{self._id}: {failed} episodes failed and none ended", fault)
        self._current = Episodes(
            *map(np.copy, (self._seeds, self._steps, self._actions, self._obs))
        )
        return self._current, collected

    def close(self) -> None:
        """End the workers."""
        self._lanes.close()

    def _take_up(self, episodes: Episodes, rng: np.random.Generator) -> None:
        """Bring the lanes to where the episodes are: played again, or new where there are none."""
        self._lanes.begin()
        self._begun = self._lanes.begun
        self._seeds, self._steps, self._actions, self._obs = map(np.copy, episodes)
        self._total[:] = 0.0
        going = episodes.steps >= 0
        if going.any():
            received = self._exchange(np.where(going, RESET, IDLE), self._seeds, None)
            obs, same = as_float32(received.obs).copy(), ~received.lost
            for step in range(episodes.steps.max()):
                playing = going & same & (step < episodes.steps)
                received = self._exchange(
                    np.where(playing, STEP, IDLE), self._seeds, self._actions[:, step]
                )
                self._total[playing] += received.reward.astype(np.float32)[playing]
                obs[playing] = received.obs[playing]
                same &= ~(playing & received.lost)
            pairs = zip(obs, episodes.obs, strict=True)
            same &= np.array([np.array_equal(*pair, equal_nan=True) for pair in pairs])
            if (going & ~same).any():
                _log.warning(
                    "%s: %d episodes are not the same when they are played again; new ones begin",
                    self._id,
                    np.sum(going & ~same),
                )
            going = going & same
        if not going.all():
            self._restart(~going, rng)

    def _step(self, actions: np.ndarray) -> Received:
        """Step all lanes, and note what is needed to do so again."""
        self._actions[np.arange(len(actions)), self._steps] = actions
        self._steps += 1
        received = self._exchange(np.full(len(actions), STEP), self._seeds, actions)
        if not self._warned:
            self._warn_of_nonfinite(received)
        return received

    def _warn_of_nonfinite(self, received: Received) -> None:
        """Say so once; `nonfinite_steps` counts them."""
        rows = received.obs.reshape(len(received.obs), -1)
        for what, finite in (
            ("observation", np.isfinite(rows).all(axis=1)),
            ("reward", np.isfinite(received.reward)),
        ):
            for lane in np.flatnonzero(~finite & ~received.lost)[:1]:
                self._warned = True
                place = self._id, self._seeds[lane], self._steps[lane], what
                _log.warning("%s, seed %d, step %d: the %s is not finite", *place)

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
        self._steps[which] = 0
        failed = 0
        obs = self._obs.copy()  # the batch keeps what the steps led to
        while which.any():
            seeds = rng.integers(TRAINING_SEEDS, size=len(which))
            received = self._exchange(np.where(which, RESET, IDLE), seeds, None)
            fresh = which & ~received.lost
            self._seeds[fresh] = seeds[fresh]
            obs[fresh] = received.obs[fresh]
            which = which & received.lost
            failed += len(received.faults)
            if failed >= _FAILURES_IN_VAIN:
                fault = next(iter(received.faults.values()), Fault("its worker was lost"))
                raise environment_error(f"{self._id}: {failed} resets failed", fault)
        self._obs = obs

    def _exchange(self, command: np.ndarray, seeds: np.ndarray, actions: Any) -> Received:
        actions = None if actions is None else np.asarray(actions)
        self._lanes.send(self._span, command.astype(np.uint8), seeds.astype(np.int64), actions)
        return self._lanes.receive(self._span)
