"""Collection of steps of environments that step on the host."""

import logging
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.base import IDLE, RESET, STEP, EnvSpec, Fault, LanePool, Received
from envs.errors import environment_error
from es_rl.play.host_acting import as_float32
from es_rl.play.host_player import empty
from es_rl.play.jobs import TRAINING_SEEDS, Array, at_step, info_names
from es_rl.play.player import Act, Collected, CollectionKeys, PyTree

_log = logging.getLogger("es_rl")
_FAILURES_IN_VAIN = 16
"""The environment counts as broken after this many failures in one batch in which no episode ends,
or in one attempt to restart lanes."""


class HostEpisodes(NamedTuple):
    """The current episodes of N lanes on the host, with all that is needed to replay them."""

    seeds: np.ndarray
    """(N,) int64, the seeds that the environments were reset with."""
    steps: np.ndarray
    """(N,) int32, the number of steps since the reset; -1 before the first episode."""
    actions: np.ndarray
    """(N, L, ...), the actions of these steps. L is the step limit of an episode."""
    obs: np.ndarray
    """(N, ...), the latest observations."""


class HostCollector:
    """A `Collector` of an environment on the host.

    The state of a simulator cannot be saved, but the same seed and the same actions give the same
    episode. If the lanes are no longer in the state that the last `collect` left them in, their
    episodes are replayed up to that state.
    """

    def __init__(self, spec: EnvSpec, act: Act, pool: LanePool, num_lanes: int, num_steps: int):
        self._spec, self._of_agent = spec, act
        self._num_steps = num_steps
        self._pool = pool
        self._begun = -1
        """The value of `LanePool.begun` when the current episodes were taken up."""
        self._span = slice(0, num_lanes)
        self._current: HostEpisodes | None = None
        self._warned = False
        self._total = np.zeros(num_lanes)
        self._seeds, self._steps, self._actions, self._obs = self._nothing()

    def start(self, key: jax.Array) -> HostEpisodes:
        """See `Collector`. The key is not used: the first `collect` starts the episodes."""
        del key
        return self._nothing()

    def shapes(self, shared: PyTree, episodes: HostEpisodes, keys: CollectionKeys) -> Collected:
        """See `Collector`."""
        _, record = jax.eval_shape(self._act, shared, episodes.obs, keys.actions, 0)
        count = len(episodes.obs)
        number: Any
        flag: Any
        number, flag = (jax.ShapeDtypeStruct((count,), kind) for kind in (np.float32, np.bool_))

        def over_steps(x: Any) -> jax.ShapeDtypeStruct:
            dtype = jax.dtypes.canonicalize_dtype(x.dtype)
            return jax.ShapeDtypeStruct((self._num_steps, *x.shape), dtype)

        info = dict.fromkeys(info_names(self._spec), number)
        outcome = record, number, flag, flag, episodes.obs, number, info
        return Collected(*jax.tree.map(over_steps, outcome))

    def compile(self, shared: PyTree, episodes: HostEpisodes, keys: CollectionKeys) -> None:
        """See `Collector`. The arguments must be arrays, because actions are computed."""
        self._act(shared, episodes.obs, keys.actions, 0)

    def collect(
        self, shared: PyTree, episodes: HostEpisodes, keys: CollectionKeys
    ) -> tuple[HostEpisodes, Collected, int]:
        """See `Collector`."""
        rng = np.random.default_rng(np.asarray(keys.starts)[0])
        if episodes is not self._current or self._pool.begun != self._begun:
            self._take_up(episodes, rng)
        outcomes, failed, fault = [], 0, Fault("")
        for step in range(self._num_steps):
            actions, record = jax.tree.map(
                np.asarray, self._act(shared, self._obs, keys.actions, step)
            )
            received = self._step(actions)
            failed += len(received.faults)
            fault = next(iter(received.faults.values()), fault)
            outcome = self._outcome(received)
            outcomes.append((record, *outcome))
            ended = outcome[2]
            if ended.any():
                self._restart(ended, rng)
        collected = Collected(*jax.tree.map(lambda *x: np.stack(x), *outcomes))
        if failed >= _FAILURES_IN_VAIN and np.isnan(collected.totals).all():
            raise environment_error(
                f"{self._spec.id}: {failed} episodes failed and none ended", fault
            )
        current = self._seeds, self._steps, self._actions, self._obs
        self._current = HostEpisodes(*map(np.copy, current))
        return self._current, collected, failed

    @cached_property
    def _act(self) -> Any:
        def act(shared: PyTree, obs: jax.Array, keys: Array, step: jax.Array) -> Any:
            key = jax.random.wrap_key_data(jnp.asarray(keys)[0])
            return self._of_agent(shared, obs, at_step(key, step))

        return jax.jit(act)

    def _nothing(self) -> HostEpisodes:
        """Return the episodes before the first `collect`."""
        count = len(self._total)
        obs = as_float32(empty(self._spec.observation_space))
        action = empty(self._spec.action_space)
        longest = (count, self._spec.max_episode_steps)
        return HostEpisodes(
            seeds=np.zeros(count, np.int64),
            steps=np.full(count, -1, np.int32),
            actions=np.zeros((*longest, *action.shape), action.dtype),
            obs=np.stack([obs] * count),
        )

    def _outcome(self, received: Received) -> tuple[Any, ...]:
        """Return the fields of `Collected` after `record` for one step; store its observations."""
        lost = received.lost
        reward = np.where(lost, 0.0, received.reward).astype(np.float32)
        self._total += reward
        terminated = received.terminated & ~lost
        ended = terminated | received.truncated | lost
        # A lost step has no new observation, so the previous one takes its place.
        known = ~lost.reshape((-1,) + (1,) * (self._obs.ndim - 1))
        self._obs = np.where(known, as_float32(received.obs), self._obs)
        whole = ended & ~lost
        total = np.where(whole, self._total, np.nan).astype(np.float32)
        reported = np.where(whole[:, None], received.info, np.float32(np.nan)).T
        info = dict(zip(info_names(self._spec), reported, strict=True))
        return reward, terminated, ended, self._obs, total, info

    def _take_up(self, episodes: HostEpisodes, rng: np.random.Generator) -> None:
        """Bring the lanes to the state of `episodes`, by replay or with new episodes."""
        self._pool.begin()
        self._begun = self._pool.begun
        self._seeds, self._steps, self._actions, self._obs = map(np.copy, episodes)
        self._total[:] = 0.0
        going = episodes.steps >= 0
        if going.any():
            same = self._play_again(episodes, going)
            if (going & ~same).any():
                _log.warning(
                    "%s: %d episodes are not the same when they are played again; new ones begin",
                    self._spec.id,
                    np.sum(going & ~same),
                )
            going = going & same
        if not going.all():
            self._restart(~going, rng)

    def _play_again(self, episodes: HostEpisodes, going: np.ndarray) -> np.ndarray:
        """Replay the episodes of some lanes. Returns (N,) bool, which of them are the same."""
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
        return same & np.array([np.array_equal(*pair, equal_nan=True) for pair in pairs])

    def _step(self, actions: np.ndarray) -> Received:
        """Step all lanes, and record what a replay needs."""
        self._actions[np.arange(len(actions)), self._steps] = actions
        self._steps += 1
        received = self._exchange(np.full(len(actions), STEP), self._seeds, actions)
        if not self._warned:
            self._warn_of_nonfinite(received)
        return received

    def _warn_of_nonfinite(self, received: Received) -> None:
        """Log a warning, only once, if an observation or reward is not finite."""
        rows = received.obs.reshape(len(received.obs), -1)
        for what, finite in (
            ("observation", np.isfinite(rows).all(axis=1)),
            ("reward", np.isfinite(received.reward)),
        ):
            for lane in np.flatnonzero(~finite & ~received.lost)[:1]:
                self._warned = True
                place = self._spec.id, self._seeds[lane], self._steps[lane], what
                _log.warning("%s, seed %d, step %d: the %s is not finite", *place)

    def _restart(self, which: np.ndarray, rng: np.random.Generator) -> None:
        """Start new episodes in some lanes. A reset that fails is repeated with another seed."""
        self._total[which] = 0.0
        self._steps[which] = 0
        failed = 0
        obs = self._obs.copy()  # the collected batch keeps the last observations in `self._obs`
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
                raise environment_error(f"{self._spec.id}: {failed} resets failed", fault)
        self._obs = obs

    def _exchange(self, command: np.ndarray, seeds: np.ndarray, actions: Any) -> Received:
        self._pool.send(self._span, command.astype(np.uint8), seeds.astype(np.int64), actions)
        return self._pool.receive(self._span)
