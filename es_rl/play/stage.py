"""The stage on which episodes of one environment are played: devices, or worker processes.

This is the only module outside `envs` that distinguishes environments on the accelerator from those
on the host. Other modules ask the `Stage` for the properties that they need, such as `min_jobs`.
"""

from collections.abc import Iterator
from threading import Lock
from typing import Any, ClassVar, Protocol, Self
from weakref import WeakSet

import numpy as np
from jax.sharding import Mesh, PartitionSpec

from envs.base import Env, HostEnv, LanePool, State
from envs.errors import UserError
from es_rl import devices, processes
from es_rl.play import films
from es_rl.play.determinism import check_repeats
from es_rl.play.device_collector import DeviceCollector
from es_rl.play.device_player import DevicePlayer
from es_rl.play.films import EVALUATION_LANES
from es_rl.play.host_collector import HostCollector
from es_rl.play.host_player import HostPlayer, lanes_for, with_idle_lanes
from es_rl.play.jobs import Array, Jobs, episode_seeds
from es_rl.play.player import Act, Behaviour, Collector, Player, PyTree
from es_rl.play.rollout import Rollout

_EVERYWHERE = PartitionSpec()


class Stage(Protocol):
    """The place where episodes of one environment are played; made by `open_stage`.

    On the host it starts worker processes when the first player or collector is made. It ends all
    of them in `close`, or at the end of a `with` block.
    """

    mesh: Mesh
    """The devices that compute, and over which training is spread."""

    @property
    def default_episodes(self) -> int:
        """The number of episodes of an evaluation, unless the user sets it."""
        ...

    @property
    def min_jobs(self) -> int:
        """The fewest jobs that can be played; on the host one for each process of the run."""
        ...

    @property
    def splits_shared(self) -> bool:
        """Whether `shared_spec` may give each device only its part of the shared data."""
        ...

    @property
    def advice(self) -> str:
        """The advice for the user if a run makes no progress."""
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
        """Make a player of some jobs.

        Args:
          behaviour: how members act.
          jobs: the jobs to play.
          evaluation: whether the returns must be reproducible in a replay. If so, the number of
            lanes is fixed, and on the host the seeds are those that training never uses.
          max_steps: the number of steps after which episodes are cut; None to cut none.
          shared_spec: the sharding of `shared` over the mesh, as a prefix of its tree.
        """
        ...

    def collector(self, act: Act, num_lanes: int, num_steps: int) -> Collector:
        """Make a collector of `num_steps` steps in each of `num_lanes` lanes."""
        ...

    def film(
        self, behaviour: Behaviour, shared: PyTree, key: Array, every: int, most: int | None = None
    ) -> tuple[float, list[np.ndarray]]:
        """Play the evaluation episode of a key. Returns its return and RGB images of its states.

        Args:
          behaviour: how members act; member 0 plays.
          shared: the shared data of the behaviour.
          key: the key data of the episode.
          every: the number of steps from one image to the next. The first image shows the first
            state.
          most: the largest number of images; None for all.

        Raises:
          NoPicture: the environment has no picture, or the renderer cannot start.
        """
        ...

    def scenes(
        self, behaviour: Behaviour, shared: PyTree, keys: Array
    ) -> Iterator[tuple[np.ndarray, Any]]:
        """Yield the rewards (T,) and the `envs.Scene` of T + 1 poses of each key's episode.

        The episodes are those of an evaluation, played by member 0.

        Raises:
          UserError: the environment has no MuJoCo model.
        """
        ...

    def check_repeats(self, actions: np.ndarray) -> None:
        """Warn if the same actions (T, ...) do not lead to the same episode every time.

        Each environment is only checked once.

        Raises:
          UserError: the environment violates its spaces or Gymnasium's interface.
          RuntimeError: the environment cannot be started.
        """
        ...

    def close(self) -> None:
        """End all worker processes. Nothing can be played afterwards. May be called twice."""
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
      env: the environment.
      devices: the number of devices of each process that share the lanes of an environment on the
        accelerator; all devices unless given.
      jobs: the number of episodes that training plays at a time; None if there are only evaluations
        or a collector.
      lanes: the number of environments that are stepped side by side, on all devices or processes
        together; chosen automatically unless given.
      episodes: the number of episodes of an evaluation, if it is known to be small.
      alone: whether evaluations and the collector share a single environment, if it steps on the
        host in one worker.

    Raises:
      UserError: `lanes` is given although the environment is on the accelerator and `jobs` is None,
        `lanes` is less than 1, or there are fewer devices.
    """
    if isinstance(env, HostEnv):
        return HostStage(env, jobs=jobs, lanes=lanes, episodes=episodes, alone=alone)
    if jobs is None and lanes is not None:
        raise UserError(
            f"lanes={lanes}: {env.spec.id} does not step on the host: must not be given"
        )
    return DeviceStage(env, devices, lanes)


class _Closes:
    """A base class that calls `close` at the end of a `with` block."""

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
        self, behaviour: Behaviour, shared: PyTree, key: Array, every: int, most: int | None = None
    ) -> tuple[float, list[np.ndarray]]:
        """See `Stage`."""
        (states,) = films.device_states(self._env, behaviour, shared, key[None])
        shown: list[State] = []
        total: Any = np.float32(0.0)
        for number, state in enumerate(states):
            total = total + state.reward  # in float32, as a rollout adds them up
            if number % every == 0 and (most is None or len(shown) < most):
                shown.append(state)
        return float(total), self._env.render(shown)

    def scenes(
        self, behaviour: Behaviour, shared: PyTree, keys: Array
    ) -> Iterator[tuple[np.ndarray, Any]]:
        """See `Stage`."""
        for states in map(list, films.device_states(self._env, behaviour, shared, keys)):
            yield np.array([state.reward for state in states[1:]]), self._env.scene(states)

    def check_repeats(self, actions: np.ndarray) -> None:
        """See `Stage`. Nothing to check, as environments on devices are pure functions."""


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
        """The lanes that all players of this stage use."""
        with self._opening:
            if self._played is None:
                # Evaluation too uses at most the number of lanes that the user has set. If none is
                # set, there are as many lanes as training or evaluation needs.
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
        """See `Stage`. `shared_spec` is not used, as there is only one device."""
        del shared_spec
        count = min(EVALUATION_LANES, self.pool.busy)
        busy = count if evaluation else self._busy(len(jobs.member))
        return HostPlayer(
            self._env.spec, self.pool, behaviour, jobs, self.mesh, busy, evaluation, max_steps
        )

    def collector(self, act: Act, num_lanes: int, num_steps: int) -> HostCollector:
        """See `Stage`."""
        # If there may be only one environment, use the lanes of the players.
        alone = num_lanes == 1 and self.pool.busy == 1
        pool = self.pool if alone else self._open(num_lanes, num_lanes)
        return HostCollector(self._env.spec, act, pool, num_lanes, num_steps)

    def film(
        self, behaviour: Behaviour, shared: PyTree, key: Array, every: int, most: int | None = None
    ) -> tuple[float, list[np.ndarray]]:
        """See `Stage`."""
        (act,) = films.host_actors(behaviour, shared, key[None])
        (seed,) = episode_seeds(key[None], evaluation=True)
        return self._env.film(act, int(seed), every, most)

    def scenes(
        self, behaviour: Behaviour, shared: PyTree, keys: Array
    ) -> Iterator[tuple[np.ndarray, Any]]:
        """See `Stage`."""
        actors = films.host_actors(behaviour, shared, keys)
        for act, seed in zip(actors, episode_seeds(keys, evaluation=True), strict=True):
            yield self._env.scene(act, int(seed))

    def check_repeats(self, actions: np.ndarray) -> None:
        """See `Stage`. Only process 0 checks."""
        if self._env not in self._checked and processes.is_main():
            self._checked.add(self._env)
            check_repeats(self._env.spec.id, self.pool, self._env.workers, actions)

    def close(self) -> None:
        """See `Stage`."""
        self._closed = True
        for pool in self._opened:
            pool.close()

    def _busy(self, jobs: int) -> int:
        """Return how many lanes of this process play its share of `jobs`."""
        count = processes.count()
        lanes = self._lanes and -(-self._lanes // count)
        return lanes_for(-(-jobs // count), self._env.workers, lanes)

    def _open(self, count: int, busy: int) -> LanePool:
        if self._closed:
            raise RuntimeError(f"{self._env.spec.id}: the stage was closed")
        pool = self._env.open_lanes(count, busy)
        self._opened.append(pool)
        return pool
