"""Where episodes of one environment are played: on devices, or in worker processes.

This is the one place outside `envs` where it matters whether an environment steps on the host. What
makes a difference to others is asked of the `Stage`, by what it means to them.
"""

from collections.abc import Iterator
from threading import Lock
from typing import Any, ClassVar, Protocol, Self
from weakref import WeakSet

import numpy as np
from jax.sharding import Mesh, PartitionSpec

from envs.base import Env, HostEnv, LanePool
from envs.errors import UserError
from es_rl import devices, processes
from es_rl.play import films
from es_rl.play.device_collector import DeviceCollector
from es_rl.play.device_player import DevicePlayer
from es_rl.play.films import EVALUATION_LANES
from es_rl.play.host_collector import HostCollector
from es_rl.play.host_player import HostPlayer, lanes_for, with_idle_lanes
from es_rl.play.jobs import Array, Jobs, episode_seeds
from es_rl.play.player import Act, Behaviour, Collector, Player, PyTree
from es_rl.play.repetition import check_repeats
from es_rl.play.rollout import Rollout

_EVERYWHERE = PartitionSpec()


class Stage(Protocol):
    """Where episodes of one environment are played; made by `open_stage`.

    It starts workers when the first player or collector is made, and ends them all in `close`, or
    at the end of a `with` block.
    """

    mesh: Mesh
    """The devices that compute, and over which training is spread."""

    @property
    def default_episodes(self) -> int:
        """Episodes of an evaluation, unless told otherwise."""
        ...

    @property
    def min_jobs(self) -> int:
        """The fewest jobs that can be played: on the host one for each process."""
        ...

    @property
    def splits_shared(self) -> bool:
        """Whether a device may be given its own part of what members share: `shared_spec`."""
        ...

    @property
    def advice(self) -> str:
        """What to try where a run stands still."""
        ...

    def player(
        self,
        behaviour: Behaviour,
        jobs: Jobs,
        *,
        evaluation: bool = False,
        max_steps: int | None = None,
        shared_spec: PyTree = _EVERYWHERE,
    ) -> Player:
        """What plays these jobs.

        Args:
          behaviour: how members act.
          jobs: what to play.
          evaluation: for returns that can be replayed: on a fixed number of lanes, and on the host
            with seeds that training never uses.
          max_steps: where to cut episodes, if not at their ends.
          shared_spec: how `shared` lies on the mesh, a prefix of its tree.
        """
        ...

    def collector(self, act: Act, num_lanes: int, num_steps: int) -> Collector:
        """What collects T steps of N lanes."""
        ...

    def film(
        self, behaviour: Behaviour, shared: PyTree, key: Array, every: int
    ) -> tuple[float, list[np.ndarray]]:
        """The return of the evaluation episode of a key (data), and RGB images of its states.

        The first state is shown, and then one after each so many steps.

        Raises:
          NoPicture: the environment has no picture, or the renderer cannot start.
        """
        ...

    def scenes(
        self, behaviour: Behaviour, shared: PyTree, keys: Array
    ) -> Iterator[tuple[np.ndarray, Any]]:
        """Rewards (T,) and `envs.Scene` of T + 1 poses of the evaluation episode of each key.

        Raises:
          UserError: the environment has no MuJoCo model.
        """
        ...

    def check_repeats(self, actions: np.ndarray) -> None:
        """Warn if an environment differs from itself, played with the same actions (T, ...).

        Each environment is checked once.

        Raises:
          UserError: what the environment returns is not what it declares.
          RuntimeError: it cannot be started.
        """
        ...

    def close(self) -> None:
        """End all worker processes; nothing can be played afterwards. Twice is harmless."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...


def open_stage(
    env: Env | HostEnv,
    *,
    devices: int | None = None,
    jobs: int | None = None,
    lanes: int | None = None,
    episodes: int = EVALUATION_LANES,
    alone: bool = False,
) -> Stage:
    """Open a stage for an environment.

    Args:
      env: what is played.
      devices: how many devices of each process share the lanes of an environment on the
        accelerator: all unless given.
      jobs: how many episodes training plays at a time; None where there are only evaluations, or a
        collector.
      lanes: how many environments are stepped side by side, on all devices or processes together;
        chosen unless given.
      episodes: how many an evaluation plays, where it is known to be few.
      alone: whether there is to be only one environment at a time where it steps on the host in
        one worker, for evaluations and the collector together.

    Raises:
      UserError: lanes are given for evaluations on an accelerator, or fewer than 1; there are fewer
        devices.
    """
    if isinstance(env, HostEnv):
        return HostStage(env, jobs=jobs, lanes=lanes, episodes=episodes, alone=alone)
    if jobs is None and lanes is not None:
        raise UserError(
            f"lanes={lanes}: {env.spec.id} does not step on the host: must not be given"
        )
    return DeviceStage(env, devices, lanes)


class _Closes:
    """The end of a `with` block closes."""

    def close(self) -> None:
        """See `Stage`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class DeviceStage(_Closes):
    """A `Stage` of an environment on the accelerator."""

    default_episodes = 128
    splits_shared = True
    min_jobs = 1
    advice = "programs on several devices of a CPU may wait for each other: try --devices 1"

    def __init__(self, env: Env, num_devices: int | None, lanes: int | None):
        self._env, self._lanes = env, lanes
        self.mesh = devices.make_mesh(num_devices)

    def player(
        self,
        behaviour: Behaviour,
        jobs: Jobs,
        *,
        evaluation: bool = False,
        max_steps: int | None = None,
        shared_spec: PyTree = _EVERYWHERE,
    ) -> DevicePlayer:
        """See `Stage`."""
        lanes, tail = EVALUATION_LANES, 0
        if not evaluation:
            lanes = devices.lanes_per_device(len(jobs.member), self.mesh, self._lanes)
            tail = devices.tail_lanes(lanes, self.mesh)
        return DevicePlayer(
            Rollout(self._env, behaviour, jobs, self.mesh, lanes, tail, max_steps, shared_spec)
        )

    def collector(self, act: Act, num_lanes: int, num_steps: int) -> DeviceCollector:
        """See `Stage`."""
        return DeviceCollector(self._env, act, self.mesh, num_lanes, num_steps)

    def film(
        self, behaviour: Behaviour, shared: PyTree, key: Array, every: int
    ) -> tuple[float, list[np.ndarray]]:
        """See `Stage`."""
        (states,) = films.device_states(self._env, behaviour, shared, key[None])
        return float(sum(state.reward for state in states)), self._env.render(states[::every])

    def scenes(
        self, behaviour: Behaviour, shared: PyTree, keys: Array
    ) -> Iterator[tuple[np.ndarray, Any]]:
        """See `Stage`."""
        for states in films.device_states(self._env, behaviour, shared, keys):
            yield np.array([state.reward for state in states[1:]]), self._env.scene(states)

    def check_repeats(self, actions: np.ndarray) -> None:
        """See `Stage`: these are pure functions."""


class HostStage(_Closes):
    """A `Stage` of an environment that steps in worker processes; one device computes actions."""

    default_episodes = 32
    splits_shared = False
    advice = "an environment on the host may wait for something: try --workers 1 --lanes 1"
    _checked: ClassVar[WeakSet[HostEnv]] = WeakSet()

    def __init__(
        self, env: HostEnv, *, jobs: int | None, lanes: int | None, episodes: int, alone: bool
    ):
        if lanes is not None and lanes < 1:
            raise UserError(f"lanes={lanes}: must be at least 1")
        self._env = env
        self._lanes = 1 if alone and env.workers == 1 else lanes
        self._evaluated = min(EVALUATION_LANES, episodes)
        self._jobs = self._evaluated if jobs is None else jobs
        self._opened: list[LanePool] = []
        self._closed = False
        self._opening = Lock()
        self._played: LanePool | None = None
        self.mesh = devices.make_mesh(1, local=True)

    @property
    def min_jobs(self) -> int:
        """See `Stage`."""
        return processes.count()

    @property
    def pool(self) -> LanePool:
        """The lanes of all players."""
        with self._opening:
            if self._played is None:
                # No more than were asked for, in evaluation neither; else as many as that likes.
                chosen = self._busy(self._jobs)
                busy = chosen if self._lanes else max(chosen, self._evaluated)
                self._played = self._open(with_idle_lanes(busy), busy)
            return self._played

    def player(
        self,
        behaviour: Behaviour,
        jobs: Jobs,
        *,
        evaluation: bool = False,
        max_steps: int | None = None,
        shared_spec: PyTree = _EVERYWHERE,
    ) -> HostPlayer:
        """See `Stage`; there is one device, which sees all of what is shared."""
        del shared_spec
        count = min(EVALUATION_LANES, self.pool.busy)
        busy = count if evaluation else self._busy(len(jobs.member))
        return HostPlayer(
            self._env.spec, self.pool, behaviour, jobs, self.mesh, busy, evaluation, max_steps
        )

    def collector(self, act: Act, num_lanes: int, num_steps: int) -> HostCollector:
        """See `Stage`."""
        # Where there may be only one environment, it is that of the players.
        alone = num_lanes == 1 and self.pool.busy == 1
        pool = self.pool if alone else self._open(num_lanes, num_lanes)
        return HostCollector(self._env.spec, act, pool, num_lanes, num_steps)

    def film(
        self, behaviour: Behaviour, shared: PyTree, key: Array, every: int
    ) -> tuple[float, list[np.ndarray]]:
        """See `Stage`."""
        (act,) = films.host_actors(behaviour, shared, key[None])
        (seed,) = episode_seeds(key[None], evaluation=True)
        total, frames = self._env.film(act, int(seed))
        return total, frames[::every]

    def scenes(
        self, behaviour: Behaviour, shared: PyTree, keys: Array
    ) -> Iterator[tuple[np.ndarray, Any]]:
        """See `Stage`."""
        actors = films.host_actors(behaviour, shared, keys)
        for act, seed in zip(actors, episode_seeds(keys, evaluation=True), strict=True):
            yield self._env.scene(act, int(seed))

    def check_repeats(self, actions: np.ndarray) -> None:
        """See `Stage`; process 0 does it."""
        if self._env not in self._checked and processes.is_main():
            self._checked.add(self._env)
            check_repeats(self._env.spec.id, self.pool, self._env.workers, actions)

    def close(self) -> None:
        """See `Stage`."""
        self._closed = True
        for pool in self._opened:
            pool.close()

    def _busy(self, jobs: int) -> int:
        """How many lanes of this process play so many jobs of all processes."""
        count = processes.count()
        lanes = self._lanes and -(-self._lanes // count)
        return lanes_for(-(-jobs // count), self._env.workers, lanes)

    def _open(self, count: int, busy: int) -> LanePool:
        if self._closed:
            raise RuntimeError(f"{self._env.spec.id}: the stage was closed")
        pool = self._env.open_lanes(count, busy)
        self._opened.append(pool)
        return pool
