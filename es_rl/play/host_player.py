"""Plays jobs of environments that step on the host, with reproducible results.

The lanes form two halves that take turns: while the workers step one half, the actions of the other
half are computed in one call. As on the accelerator, a lane whose episode has ended takes the next
job, and all randomness of an episode comes from its key and the step number.
"""

import logging
import math
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jax.sharding import Mesh

from envs.base import IDLE, RESET, STEP, EnvSpec, Fault, LanePool, Received
from envs.errors import environment_error
from es_rl import processes
from es_rl.devices import replicated
from es_rl.play.host_acting import BLOCK, HostActing, as_float32
from es_rl.play.jobs import Array, Jobs, Played, episode_seeds, info_names
from es_rl.play.player import PACE_SECONDS, Behaviour, Notify, PyTree

_LANES_PER_WORKER = 128
"""Half of these lanes step at a time, enough to make the cost of an exchange small per lane."""
_ATTEMPTS = 2
"""The number of times that a job is played if its environment fails."""
_FAILURES_IN_VAIN = 16
"""The environment counts as broken after this many failed jobs if no job has ended."""

_log = logging.getLogger("es_rl")


def lanes_for(jobs: int, workers: int, lanes: int | None = None) -> int:
    """Return the largest number of lanes that a player keeps busy.

    Args:
      jobs: the number of episodes to play.
      workers: the number of worker processes that step the lanes.
      lanes: the wanted number of lanes; chosen from the number of workers unless given.
    """
    return min(jobs, _LANES_PER_WORKER * workers if lanes is None else lanes)


def with_idle_lanes(lanes: int) -> int:
    """Return how many lanes a `HostPlayer` needs for this many busy ones: two halves of blocks."""
    return 2 * BLOCK * -(-lanes // (2 * BLOCK))


def busy_lanes(busy: int) -> np.ndarray:
    """Return the numbers of the lanes that a `HostPlayer` uses: the first lanes of each half."""
    middle = with_idle_lanes(busy) // 2
    return np.concatenate([np.arange(-(-busy // 2)), middle + np.arange(busy // 2)])


def empty(space: spaces.Space) -> np.ndarray:
    """Return zeros with the shape and type of an element of a space."""
    return np.zeros(space.shape or (), space.dtype)


@dataclass(frozen=True, eq=False)
class HostPlayer:
    """A `Player` of an environment on the host."""

    spec: EnvSpec
    """The description of the environment."""
    pool: LanePool
    """At least `with_idle_lanes(busy)` lanes, of which only `busy` are ever started."""
    behaviour: Behaviour
    """How members act."""
    jobs: Jobs
    """The jobs of all processes, each of which plays its share; see `es_rl.processes`."""
    mesh: Mesh
    """A mesh with the one device that computes actions."""
    busy: int
    """S, the number of lanes that are used in this process."""
    evaluation: bool = False
    """Whether to use the seeds that are reserved for evaluation and never used in training."""
    max_steps: int | None = None
    """The number of steps after which episodes are cut; None to cut none."""
    warned: set[str] = field(default_factory=set)
    """The kinds of warnings that were given already. Each kind is only given once."""

    def shapes(self, shared: PyTree, keys: Array) -> Played:
        """See `Player`."""
        count = len(self.jobs.member)
        size = self.acting.vector(shared, keys, as_float32(empty(self.spec.observation_space)))

        def of(kind: Any, *shape: int) -> Any:
            return jax.ShapeDtypeStruct(shape, kind)

        sums, counts = of(np.float32, count, *size.shape), of(np.int32, count)
        info = {name: of(np.float32, count) for name in info_names(self.spec)}
        return Played(of(np.float64, count), counts, sums, sums, of(np.int32, 1), info, counts)

    def compile(self, shared: PyTree, keys: Array) -> None:
        """See `Player`."""
        shared, keys = self._placed((shared, keys))
        obs = as_float32(empty(self.spec.observation_space))
        rows = np.stack([obs] * (with_idle_lanes(self.busy) // 2))
        carry = self.acting.start(shared, keys, rows)
        self.acting.act(shared, keys, carry, np.zeros((4, len(rows)), np.int32), rows)

    def play(self, shared: PyTree, keys: Array, notify: Notify | None = None) -> Played:
        """See `Player`. Each process plays its share of the jobs and gathers all results.

        A job whose environment fails is played once more, on a new worker. If it fails again, its
        return is NaN and its length 0. Jobs that were lost because they shared the worker process
        with it are played again.
        """
        self.pool.begin()
        mine = processes.share(len(self.jobs.member))
        play = _Play(self, Jobs(*(x[mine] for x in self.jobs)), shared, keys)
        middle = with_idle_lanes(self.busy) // 2
        halves = [_Half(play, slice(0, middle)), _Half(play, slice(middle, 2 * middle))]
        halves[0].assign(np.arange(-(-self.busy // 2)))
        halves[1].assign(np.arange(self.busy // 2))
        busy = [half for half in halves if half.busy]
        for half in busy:
            half.send()
        notified = time.perf_counter()
        while busy:
            for half in busy:
                half.exchange()
            busy = [half for half in busy if half.busy]
            now = time.perf_counter()
            if notify is not None and now - notified > PACE_SECONDS:
                notified = now
                notify(play.queued - sum(half.num_busy for half in busy), play.num_jobs)
        gathered = processes.gather_shares(play.played(), len(self.jobs.member))
        self._warn_of_missing(gathered.info)
        return gathered._replace(lane_steps=gathered.lane_steps.sum(keepdims=True, dtype=np.int32))

    def first_observation(self, keys: Array) -> np.ndarray | None:
        """See `Player`. Process 0 resets a lane and sends the observation to the others."""
        obs, known = empty(self.spec.observation_space), np.zeros(1, bool)
        if processes.is_main():
            self.pool.begin()
            span = slice(0, 1)
            seeds = episode_seeds(keys, evaluation=self.evaluation)[:1]
            self.pool.send(span, np.array([RESET], np.uint8), seeds, None)
            received = self.pool.receive(span)
            obs, known = received.obs[0].copy(), ~received.lost
        obs, known = processes.broadcast([obs, known])
        return as_float32(obs) if known[0] else None

    @cached_property
    def acting(self) -> HostActing:
        """The compiled functions that compute actions."""
        return HostActing(self.behaviour)

    def _warn_of_missing(self, info: dict[str, Array]) -> None:
        """Say of a scalar that is to be logged that no episode has reported it; once."""
        for key in self.spec.info_keys:
            what = f"info[{key!r}]"
            if what not in self.warned and np.isnan(info[key]).all():
                self.warned.add(what)
                _log.warning(
                    "%s: no episode has ended with %s, which info_keys names: not logged until "
                    "one does",
                    *(self.spec.id, what),
                )

    def _placed(self, tree: PyTree) -> PyTree:
        """Put arrays on the device once per play. Shapes become arrays of zeros."""

        def zeros(x: Any) -> Any:
            return jnp.zeros(x.shape, x.dtype) if isinstance(x, jax.ShapeDtypeStruct) else x

        return jax.device_put(jax.tree.map(zeros, tree), replicated(self.mesh))


class _Play:
    """The jobs of one call of `HostPlayer.play`, and their results so far."""

    def __init__(self, player: HostPlayer, jobs: Jobs, shared: PyTree, keys: Array):
        self.player, self.jobs = player, jobs
        self.seeds = episode_seeds(keys, evaluation=player.evaluation)
        self.shared, self.keys = player._placed((shared, keys))
        self.num_jobs = len(jobs.member)
        self.queued = 0
        self.executed = 0
        self.attempts = np.zeros(self.num_jobs, int)
        self.failed = 0
        self.returns = np.zeros(self.num_jobs)
        self.lengths = np.zeros(self.num_jobs, np.int32)
        self.nonfinite_actions = np.zeros(self.num_jobs, np.int32)
        self.info = np.full((len(info_names(player.spec)), self.num_jobs), np.nan, np.float32)
        self.obs_moments: np.ndarray | None = None
        """(2, jobs, d), sums and sums of squares of the observation vectors."""

    def next_jobs(self, count: int) -> np.ndarray:
        """Return (count,) the numbers of the next waiting jobs, -1 where no more job waits."""
        jobs = self.queued + np.arange(count)
        self.queued = min(self.queued + count, self.num_jobs)
        return np.where(jobs < self.num_jobs, jobs, -1)

    def finish(self, jobs: np.ndarray, half: "_Half", which: np.ndarray, info: np.ndarray) -> None:
        """Record the results of jobs that have ended.

        Args:
          jobs: (n,) the numbers of the jobs.
          half: the half of the lanes that played them.
          which: (n,) the lanes that played them, numbered within the half.
          info: (n, k) the scalars that the environments reported.
        """
        self.info[:, jobs] = info.T
        carry = half.carry
        sums, squares = (np.concatenate(np.asarray(x)) for x in (carry.obs_sum, carry.obs_squares))
        if self.obs_moments is None:
            self.obs_moments = np.zeros((2, self.num_jobs, sums.shape[1]), np.float32)
        self.returns[jobs], self.lengths[jobs] = half.total[which], half.steps[which]
        for lane in which[~np.isfinite(half.total[which])]:
            self.warn_of("the rewards so far are", half.job[lane], half.steps[lane])
        self.obs_moments[:, jobs] = sums[which], squares[which]

    def may_retry(self, job: int, step: int, fault: Fault) -> bool:
        """Record that a job has failed. Returns whether to play it once more.

        Raises:
          RuntimeError: too many jobs have failed and none has ended.
        """
        self.attempts[job] += 1
        again = self.attempts[job] < _ATTEMPTS
        seed = self.seeds[self.jobs.episode[job]]
        where = f"{self.player.spec.id}, seed {seed}, step {step}"
        outcome = "played once more" if again else "failed again, counts as not finite"
        _log.warning("%s: %s; %s", where, fault.reason, outcome)
        if not again:
            self.returns[job] = np.nan
            self.failed += 1
            if self.failed == min(_FAILURES_IN_VAIN, self.num_jobs) and not self.lengths.any():
                raise environment_error(
                    f"{self.failed} episodes failed and none ended; {where}", fault
                )
        return again

    def warn_of(self, what: str, job: int, step: int) -> None:
        """Warn that something is not finite; only once, as many such values usually follow."""
        if what not in self.player.warned:
            self.player.warned.add(what)
            seed = self.seeds[self.jobs.episode[job]]
            _log.warning(
                "%s, seed %d, step %d: %s not finite", self.player.spec.id, seed, step, what
            )

    def played(self) -> Played:
        """Return the results of the jobs.

        Here `lane_steps` is (J,), like the other fields, so that processes can gather it. Its first
        entry holds the whole number.
        """
        assert self.obs_moments is not None
        executed = np.zeros(self.num_jobs, np.int32)
        executed[0] = self.executed
        sums, squares = self.obs_moments
        info, actions = self.info, self.nonfinite_actions
        named: dict[str, Array] = dict(zip(info_names(self.player.spec), info, strict=True))
        return Played(self.returns, self.lengths, sums, squares, executed, named, actions)


class _Half:
    """One half of the lanes, n lanes that are stepped together."""

    def __init__(self, play: _Play, span: slice):
        size = span.stop - span.start
        self._play = play
        self._span = span
        self.job = np.full(size, -1)
        """(n,), the job of each lane; -1 for none."""
        self._command = np.full(size, IDLE, np.uint8)
        """(n,), the next command for each lane."""
        self._actions: np.ndarray | None = None
        """(n, ...), the next actions; None before the first step."""
        self.carry: Any = None
        """The data of `HostActing` on the device; None before the first step."""
        self.steps = np.zeros(size, np.int32)
        """(n,), the steps of each episode so far."""
        self.total = np.zeros(size)
        """(n,) float64, the return of each episode so far."""

    @property
    def busy(self) -> bool:
        """Whether any lane has a job."""
        return bool((self.job >= 0).any())

    @property
    def num_busy(self) -> int:
        """The number of lanes that have a job."""
        return int(np.sum(self.job >= 0))

    def assign(self, which: np.ndarray) -> None:
        """Give lanes new jobs, as long as there are waiting jobs."""
        self.job[which] = self._play.next_jobs(len(which))
        self._command[which] = IDLE
        self._restart(which[self.job[which] >= 0])

    def _restart(self, which: np.ndarray) -> None:
        self._command[which] = RESET
        self.steps[which] = 0
        self.total[which] = 0.0

    def send(self) -> None:
        play, player = self._play, self._play.player
        seeds = play.seeds[play.jobs.episode[self.job]]
        player.pool.send(self._span, self._command, seeds, self._actions)
        play.executed += len(self.job)

    def exchange(self) -> None:
        """Wait for the results of the lanes, and send their next commands."""
        received = self._play.player.pool.receive(self._span)
        playing, commanded = (self.job >= 0) & ~received.lost, self._command
        stepped = playing & (commanded == STEP)
        fresh = playing & (commanded == RESET)
        self.total[stepped] += received.reward[stepped]
        self.steps[stepped] += 1
        self._command = np.where(self.job >= 0, STEP, IDLE).astype(np.uint8)
        over = received.terminated | received.truncated
        if self._play.player.max_steps is not None:
            over = over | (self.steps >= self._play.player.max_steps)
        done = np.flatnonzero(stepped & over)
        if len(done):
            # An episode that was cut by `max_steps` reports nothing.
            cut = ~(received.terminated | received.truncated)[done]
            reported = np.where(cut[:, None], np.float32(np.nan), received.info[done])
            self._play.finish(self.job[done], self, done, reported)
            self.assign(done)
        if received.lost.any():
            self._replay(received, commanded)
        if (self._command == STEP).any():
            self._act(fresh, received.obs)
        if self.busy:
            self.send()

    def _replay(self, received: Received, commanded: np.ndarray) -> None:
        """Restart lost episodes, except those that have failed too often."""
        for lane in np.flatnonzero(received.lost & (self.job >= 0)).tolist():
            fault = received.faults.get(self._span.start + lane)
            step = int(self.steps[lane]) + int(commanded[lane] == STEP)
            again = fault is None or self._play.may_retry(int(self.job[lane]), step, fault)
            if again:
                self._restart(np.array([lane]))
            else:
                self.assign(np.array([lane]))

    def _act(self, fresh: np.ndarray, obs: np.ndarray) -> None:
        play, acting = self._play, self._play.player.acting
        obs = as_float32(obs)
        if self.carry is None:
            self.carry = acting.start(play.shared, play.keys, obs)
        self._note_nonfinite("the observation is", obs)
        # Rows of idle lanes are computed as well; their results are not used.
        member, episode = play.jobs.member[self.job], play.jobs.episode[self.job]
        numbers = np.stack((fresh, member, episode, self.steps))
        actions, self.carry = acting.act(play.shared, play.keys, self.carry, numbers, obs)
        self._actions = np.asarray(actions)
        which = self._note_nonfinite("the action is", self._actions)
        if len(which):
            self._play.nonfinite_actions[self.job[which]] += 1

    def _note_nonfinite(self, what: str, rows: np.ndarray) -> np.ndarray:
        """Return the lanes about to step whose row is not finite, and warn about the first one."""
        flat = rows.reshape(-1)
        # The dot product takes a tenth of the time of a check of each number. It may overflow for
        # finite numbers, so each number is checked if it is not finite.
        if rows.dtype.kind != "f" or math.isfinite(np.vdot(flat, flat)):
            return np.empty(0, int)
        finite = np.isfinite(rows.reshape(len(rows), -1)).all(axis=1)
        which = np.flatnonzero((self._command == STEP) & ~finite)
        for lane in which[:1]:
            self._play.warn_of(what, self.job[lane], self.steps[lane])
        return which
