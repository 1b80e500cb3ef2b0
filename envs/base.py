"""The contract that every environment keeps, whichever suite it comes from."""

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

if TYPE_CHECKING:  # it is slow to import, and the engine alone does without it
    import gymnasium

PLACES = ("workers", "step_timeout", "start_timeout")
"""The arguments of `envs.make` that say where an environment on the host runs, not what it is: they
are not saved."""


@dataclass(frozen=True)
class EnvSpec:
    """What an environment is, apart from its dynamics."""

    id: str
    """The name that `envs.make` takes, as "brax/ant"."""
    observation_space: "gymnasium.Space"
    """The space of what agents see."""
    action_space: "gymnasium.Space"
    max_episode_steps: int
    """Steps after which an episode is truncated."""
    reward_threshold: float | None = None
    """The mean return at which the task counts as solved, where its authors named one."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """The keyword arguments that `envs.make` was given."""
    frames_per_second: float = 30.0
    """How many environment steps make a second of the simulated world."""
    raw_observation_space: "gymnasium.Space | None" = None
    """The Dict or Tuple space of what the environment returns, where agents see it as a flat
    vector; None where they see what it returns."""

    def __post_init__(self) -> None:
        # NumPy's numbers, which environments often have here, cannot be saved with a policy.
        for name in ("max_episode_steps", "reward_threshold", "kwargs", "frames_per_second"):
            object.__setattr__(self, name, plain(getattr(self, name)))

    @property
    def info_keys(self) -> tuple[str, ...]:
        """The scalars in the info of an episode's last step that are logged, besides success."""
        return tuple(self.kwargs.get("info_keys", ()))


@struct.dataclass
class State:
    """One environment's state; a pytree, to be vmapped over."""

    inner: Any
    """What the suite needs to go on."""
    obs: jax.Array
    reward: jax.Array
    """float32 scalar, the reward of the step that led here; 0 after a reset."""
    terminated: jax.Array
    """bool scalar: the task's own end; nothing is to be gained from here on."""
    truncated: jax.Array
    """bool scalar: the time limit cut the episode. Never true together with `terminated`."""
    steps: jax.Array
    """int32 scalar, steps since the reset."""
    info: dict[str, jax.Array] = struct.field(default_factory=dict)
    """Scalars about the step, the same ones in every state. "success" says at the end of an episode
    whether the task was done: 1, or 0 for failure."""


@runtime_checkable
class Env(Protocol):
    """An environment on the accelerator: pure functions of one environment's state."""

    spec: EnvSpec

    def reset(self, key: jax.Array) -> State:
        """A start state. `key` is a typed key (jax.random.key)."""
        ...

    def step(self, state: State, action: jax.Array, key: jax.Array) -> State:
        """The next state. `action` is an element of `spec.action_space`."""
        ...

    def render(self, states: Sequence[State]) -> list[np.ndarray]:
        """One RGB image (height, width, 3) uint8 per state.

        Raises:
          NoPicture: the environment has no picture, or the renderer cannot start.
        """
        ...

    def scene(self, states: Sequence[State]) -> Scene:
        """The solids that the environment consists of, in one pose per state.

        Raises:
          UserError: the environment has no MuJoCo model.
        """
        ...


class Received(NamedTuple):
    """What n lanes have to say after an exchange.

    Lanes that were reset have earned nothing and have not ended; rows of idle lanes mean nothing.
    """

    obs: np.ndarray
    """(n, ...), which may be overwritten as soon as the lanes are sent to again."""
    reward: np.ndarray
    """(n,) float64."""
    terminated: np.ndarray
    """(n,) bool."""
    truncated: np.ndarray
    """(n,) bool; never true together with `terminated`."""
    info: np.ndarray
    """(n, 1 + k) float32, what the info of the last step reported, of episodes that have ended; NaN
    where it reported nothing. The first column is 1 for success (as "is_success" or "success") and
    0 for failure, the others are the k `EnvSpec.info_keys`."""
    lost: np.ndarray
    """(n,) bool: lanes whose episodes are lost, by a fault of their own where `faults` has them."""
    faults: dict[int, Fault]
    """What environments did wrong, by the number of the lane."""


class Lanes(Protocol):
    """Host environments stepped side by side; no lane is ever reset unasked.

    Spans of lanes take turns: while one is stepped the actions of another can be computed.
    """

    count: int
    busy: int
    """How many of them may be used."""
    begun: int
    """How often `begin` was called: whoever plays on several occasions sees whether others have
    played on the lanes meanwhile."""

    def begin(self) -> None:
        """Called before a rollout: what an interrupted one left behind is dropped."""
        ...

    def send(
        self, span: slice, command: np.ndarray, seeds: np.ndarray, actions: np.ndarray | None
    ) -> None:
        """Tell n neighbouring lanes what to do, without waiting for them.

        Args:
          span: slice(first, last) of lanes, which have nothing else to do at present.
          command: (n,) IDLE, STEP or RESET.
          seeds: (n,) ints, given to the environments that are reset.
          actions: (n, ...), given to those that step; None where none does.

        Raises:
          UserError: it takes too long to start.
          RuntimeError: the environment cannot be started.
        """
        ...

    def receive(self, span: slice) -> Received:
        """Wait for lanes that were sent to.

        Raises:
          UserError: the environment does not keep to its spaces, or to Gymnasium's interface.
          RuntimeError: the environment cannot be kept running.
        """
        ...

    def close(self) -> None: ...


@runtime_checkable
class HostEnv(Protocol):
    """An environment that steps on the host, outside JAX."""

    spec: EnvSpec
    workers: int
    """Processes, or threads, among which lanes are divided."""

    def placed(
        self,
        *,
        workers: int | None = None,
        step_timeout: float | None = None,
        start_timeout: float | None = None,
    ) -> "HostEnv":
        """The same environment, stepped elsewhere: what is not given stays as it is.

        Args:
          workers: processes, at least 1.
          step_timeout: seconds after which a step counts as hanging.
          start_timeout: seconds that a worker may take to start, or to make an environment.

        Raises:
          UserError: a value is out of range.
        """
        ...

    def lanes(self, count: int, busy: int | None = None) -> Lanes:
        """`count` independent copies, to be reset before they step.

        There is none of a lane that was never reset.

        Args:
          count: lanes.
          busy: how many of them will be used, at most; all unless given.
        """
        ...

    def film(self, act: Any, seed: int) -> tuple[float, list[np.ndarray]]:
        """Play one episode with act(obs) -> action; its return and one RGB image per step.

        Raises:
          NoPicture: the environment has no picture, or the renderer cannot start.
        """
        ...

    def scene(self, act: Any, seed: int) -> tuple[np.ndarray, Scene]:
        """Play one episode; the rewards (T,) of its steps, and its solids in T + 1 poses.

        Raises:
          UserError: the environment has no MuJoCo model.
        """
        ...


def time_limited(
    steps: jax.Array, terminated: jax.Array, limit: int
) -> tuple[jax.Array, jax.Array]:
    """(terminated, truncated) after `steps` steps: the limit truncates what has not ended."""
    terminated = terminated.astype(bool)
    return terminated, (steps >= limit) & ~terminated
