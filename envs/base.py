"""The interface that every environment implements, whichever suite it comes from."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from flax import struct

from envs.host.worker import IDLE as IDLE
from envs.host.worker import RESET as RESET
from envs.host.worker import STEP as STEP
from envs.host.worker import Fault as Fault
from envs.pictures.scene import Scene
from envs.values import plain

if TYPE_CHECKING:  # Gymnasium is slow to import, and the engine alone does not need it
    import gymnasium

PLACES = ("workers", "step_timeout", "start_timeout")
"""The arguments of `envs.make` that say where an environment on the host runs. They do not change
what the environment does, so they are not saved with a policy."""


@dataclass(frozen=True)
class EnvSpec:
    """The description of an environment: its name, spaces, limits and arguments."""

    id: str
    """The name that `envs.make` takes, such as "brax/ant"."""
    observation_space: "gymnasium.Space"
    """The space of the observations that agents receive."""
    action_space: "gymnasium.Space"
    """The space of the actions that the environment takes."""
    max_episode_steps: int
    """The number of steps after which an episode is truncated."""
    reward_threshold: float | None = None
    """The mean return at which the task counts as solved, or None if its authors named none."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """The keyword arguments that were passed to `envs.make`."""
    frames_per_second: float = 30.0
    """The number of environment steps in one second of simulated time."""
    raw_observation_space: "gymnasium.Space | None" = None
    """The Dict or Tuple space of the observations that the environment itself returns, if agents
    receive them as flat vectors. None if agents receive them unchanged."""

    def __post_init__(self) -> None:
        # Environments often give NumPy numbers here, which cannot be saved with a policy.
        for name in ("max_episode_steps", "reward_threshold", "kwargs", "frames_per_second"):
            object.__setattr__(self, name, plain(getattr(self, name)))

    @property
    def info_keys(self) -> tuple[str, ...]:
        """The scalars in the info of an episode's last step that are logged, besides success."""
        return tuple(self.kwargs.get("info_keys", ()))


@struct.dataclass
class State:
    """The state of one environment, as a pytree that can be vmapped over."""

    inner: Any
    """The suite's own state, from which it computes the next step."""
    obs: jax.Array
    """The observation, an element of `EnvSpec.observation_space`."""
    reward: jax.Array
    """float32 scalar, the reward of the step that led to this state; 0 after a reset."""
    terminated: jax.Array
    """bool scalar, whether the task itself has ended, so that no reward can follow."""
    truncated: jax.Array
    """bool scalar, whether the time limit cut the episode; never true if `terminated` is true."""
    steps: jax.Array
    """int32 scalar, the number of steps since the reset."""
    info: dict[str, jax.Array] = struct.field(default_factory=dict)
    """Scalars about the step, with the same keys in every state. At the end of an episode "success"
    says whether the task was solved: 1 for success, 0 for failure."""


@runtime_checkable
class Env(Protocol):
    """An environment on the accelerator, given as pure functions of one environment's state.

    The accelerator is any device of JAX, which may also be the CPU.
    """

    spec: EnvSpec

    def reset(self, key: jax.Array) -> State:
        """Return a start state. `key` is a typed key (jax.random.key)."""
        ...

    def step(self, state: State, action: jax.Array, key: jax.Array) -> State:
        """Return the next state. `action` is an element of `spec.action_space`."""
        ...

    def render(self, states: Sequence[State]) -> list[np.ndarray]:
        """Return one RGB image (height, width, 3) uint8 per state.

        Raises:
          NoPicture: the environment has no picture, or the renderer cannot start.
        """
        ...

    def scene(self, states: Sequence[State]) -> Scene:
        """Return the solids that the environment consists of, in one pose per state.

        Raises:
          UserError: the environment has no MuJoCo model.
        """
        ...


class Received(NamedTuple):
    """The results of n lanes after one step or reset of each.

    A lane that was reset has reward 0 and has not ended. The rows of idle lanes have no meaning.
    """

    obs: np.ndarray
    """(n, ...) observations. The array may be overwritten at the next `LanePool.send` to these
    lanes."""
    reward: np.ndarray
    """(n,) float64 rewards."""
    terminated: np.ndarray
    """(n,) bool, whether the task itself has ended."""
    truncated: np.ndarray
    """(n,) bool, whether the episode was cut. Never true together with `terminated`."""
    info: np.ndarray
    """(n, 1 + k) float32, only valid for episodes that have ended: what the info of the last step
    reported, NaN where it reported nothing. The first column is 1 for success (as "is_success" or
    "success") and 0 for failure; the others are the k scalars of `EnvSpec.info_keys`."""
    lost: np.ndarray
    """(n,) bool, whether the lane's episode was lost. If the lane's own environment caused this,
    the lane is in `faults`; otherwise its worker process ended for another reason."""
    faults: dict[int, Fault]
    """The errors of environments, by lane number."""


class LanePool(Protocol):
    """Host environments that are stepped side by side. Each of them is called a lane.

    A lane is only reset on request. Spans of lanes can take turns: while one span is stepped, the
    caller can compute the actions of another.
    """

    count: int
    """The number of lanes."""
    busy: int
    """The number of lanes that may be used at the same time."""
    begun: int
    """The number of calls of `begin` so far. A caller that plays repeatedly can see from it whether
    another caller has used the lanes in between."""

    def begin(self) -> None:
        """Prepare for a rollout: discard what an interrupted rollout left behind."""
        ...

    def send(
        self, span: slice, command: np.ndarray, seeds: np.ndarray, actions: np.ndarray | None
    ) -> None:
        """Send commands to n neighbouring lanes, without waiting for the results.

        Args:
          span: slice(first, last) of the lanes. None of them may have a command outstanding.
          command: (n,) IDLE, STEP or RESET.
          seeds: (n,) ints, passed to the environments that are reset.
          actions: (n, ...) actions for the lanes that step; None if no lane steps.

        Raises:
          UserError: a worker or environment takes too long to start.
          RuntimeError: the environment cannot be started.
        """
        ...

    def receive(self, span: slice) -> Received:
        """Wait for the results of the last `send` to these lanes.

        Raises:
          UserError: the environment violates its spaces or Gymnasium's interface.
          RuntimeError: the environment cannot be kept running.
        """
        ...

    def close(self) -> None: ...


@runtime_checkable
class HostEnv(Protocol):
    """An environment that steps on the host, outside JAX."""

    spec: EnvSpec
    workers: int
    """The number of processes or threads among which the lanes are divided."""

    def placed(
        self,
        *,
        workers: int | None = None,
        step_timeout: float | None = None,
        start_timeout: float | None = None,
    ) -> "HostEnv":
        """Return the same environment with other worker settings. Omitted settings do not change.

        Args:
          workers: the number of worker processes, at least 1.
          step_timeout: the seconds after which a step counts as hanging.
          start_timeout: the seconds that a worker may take to start, or to make an environment.

        Raises:
          UserError: a value is out of range.
        """
        ...

    def open_lanes(self, count: int, busy: int | None = None) -> LanePool:
        """Return `count` independent copies, each of which must be reset before it steps.

        The environment of a lane is only made when the lane is first reset.

        Args:
          count: the number of lanes.
          busy: the most lanes that will be used at the same time; all of them unless given.
        """
        ...

    def film(
        self, act: Any, seed: int, every: int = 1, most: int | None = None
    ) -> tuple[float, list[np.ndarray]]:
        """Play one episode with act(obs) -> action. Returns its return and RGB images.

        Args:
          act: chooses the actions.
          seed: the seed of the episode.
          every: the number of steps from one image to the next. The first image shows the first
            state.
          most: the largest number of images; None for all.

        Raises:
          NoPicture: the environment has no picture, or the renderer cannot start.
        """
        ...

    def scene(self, act: Any, seed: int) -> tuple[np.ndarray, Scene]:
        """Play one episode. Returns the rewards (T,) of its steps and its solids in T + 1 poses.

        Raises:
          UserError: the environment has no MuJoCo model.
        """
        ...


def time_limited(
    steps: jax.Array, terminated: jax.Array, limit: int
) -> tuple[jax.Array, jax.Array]:
    """Return (terminated, truncated) after `steps` steps.

    An episode that has not terminated after `limit` steps is truncated.
    """
    terminated = terminated.astype(bool)
    return terminated, (steps >= limit) & ~terminated
