"""Interfaces for playing, which are the same for lanes on devices and lanes in worker processes.

A `Player` plays whole episodes (for evolution and evaluation). A `Collector` plays a fixed number
of steps of each lane (for PPO). `es_rl.play.stage` makes the right kind of both for an environment.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias

import jax

from es_rl.play.jobs import Array, Played

PyTree: TypeAlias = Any
Notify: TypeAlias = Callable[[int, int], None]
"""A function that is called from time to time with the number of ended episodes and the number of
all episodes. It may raise an exception to abort the play."""
PACE_SECONDS = 0.5
"""The approximate time in seconds between two calls of `Notify`."""


class Behaviour(NamedTuple):
    """How members act, as pure functions for one lane. The player vmaps them.

    `shared` is any pytree that all members have in common, such as parameters and noise. On the
    host it is flattened in every step, which is fast for tuples, dicts and the dataclasses of
    `jax.tree_util.register_dataclass`, and slow for the dataclasses of `flax.struct`.
    """

    select: Callable[[PyTree, jax.Array], PyTree]
    """(shared, member) -> the data of this member alone. It is called when an episode starts."""
    memory: PyTree
    """The policy's memory at the start of an episode, a pytree of arrays; () for no memory."""
    act: Callable[
        [PyTree, PyTree, PyTree, jax.Array, jax.Array], tuple[jax.Array, PyTree, jax.Array]
    ]
    """(shared, selected, memory, obs, key) -> (action, memory, vector). The vector (d,) and its
    square are summed over each episode, see `Played`. Its shape is (0,) if no sums are needed."""


class Player(Protocol):
    """Plays the same jobs repeatedly, each time with new episodes.

    In all methods `shared` is the shared data of the `Behaviour`, and `keys` (episodes, ...) is the
    key data of one key for each distinct episode of the jobs. `compile` and `shapes` accept arrays
    or `jax.ShapeDtypeStruct`s.
    """

    def shapes(self, shared: PyTree, keys: Array) -> Played:
        """Return the result of `play` as `jax.ShapeDtypeStruct`s."""
        ...

    def compile(self, shared: PyTree, keys: Array) -> None:
        """Compile for arguments of these shapes. Otherwise the first `play` compiles."""
        ...

    def play(self, shared: PyTree, keys: Array, notify: Notify | None = None) -> Played:
        """Play every job to its end.

        Raises:
          UserError: an environment on the host violates its spaces or Gymnasium's interface.
          RuntimeError: an environment on the host fails repeatedly, or cannot be started.
        """
        ...

    def first_observation(self, keys: Array) -> Array | None:
        """Return the first observation of the first episode.

        None if the environment fails, and on devices, where this would need an extra program.
        """
        ...


class CollectionKeys(NamedTuple):
    """Key data for T steps of N lanes. Each field has the shape (devices, ...)."""

    actions: Array
    """The key for sampling actions. It is folded with the step number."""
    dynamics: Array
    """The key for the steps of environments. It is folded with the step number, and then split into
    one key per lane."""
    starts: Array
    """The key for the start states of new episodes. It is folded with the step number, and then
    split into one key per lane. On the host it seeds the generator that draws the reset seeds."""


class Collected(NamedTuple):
    """T steps of N lanes. All arrays are (T, N, ...); on the host they are NumPy arrays."""

    record: PyTree
    """The records that `Act` returned besides the actions."""
    reward: jax.Array
    """float32, the reward of each step."""
    terminated: jax.Array
    """bool, whether the task itself ended in this step."""
    ended: jax.Array
    """bool, whether the episode terminated or was truncated in this step."""
    next_obs: jax.Array
    """The observation after the step. If the episode ended, this is its last observation and not
    the first one of the next episode, so that a truncated episode can be bootstrapped."""
    totals: jax.Array
    """float32, the return of the episode in the step in which it ended, NaN in all other steps."""
    info: dict[str, jax.Array]
    """float32, the entries of `Played.info` in the steps in which episodes ended, NaN in all other
    steps."""


Act: TypeAlias = Callable[[PyTree, jax.Array, jax.Array], tuple[jax.Array, PyTree]]
"""A pure function (shared, observations (N, ...), key) -> (actions (N, ...), record). The record is
a pytree of arrays (N, ...), which is kept for each step."""


class Collector(Protocol):
    """Steps N lanes. When the episode of a lane ends, the lane starts a new one."""

    def start(self, key: jax.Array) -> PyTree:
        """Return the lanes before the first step. `key` is a typed key."""
        ...

    def shapes(self, shared: PyTree, episodes: PyTree, keys: CollectionKeys) -> Collected:
        """Return the collected data of `collect`, as `jax.ShapeDtypeStruct`s."""
        ...

    def compile(self, shared: PyTree, episodes: PyTree, keys: CollectionKeys) -> None:
        """Compile for arguments like these. Otherwise the first `collect` compiles."""
        ...

    def collect(
        self, shared: PyTree, episodes: PyTree, keys: CollectionKeys
    ) -> tuple[PyTree, Collected, int]:
        """Play T steps of all lanes.

        Args:
          shared: the shared data, which is passed to `Act`.
          episodes: the episodes from `start` or from the last `collect`. They may have been saved
            and loaded since. On devices they are donated: their memory is reused.
          keys: see `CollectionKeys`.

        Returns:
          The episodes afterwards, the collected data, and the number of episodes in which the
          environment failed. The last step of such an episode has reward 0 and is truncated.

        Raises:
          UserError: an environment on the host violates its spaces or Gymnasium's interface.
          RuntimeError: an environment on the host fails and no episode ends, or cannot be started.
        """
        ...
