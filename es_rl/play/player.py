"""What plays: one interface for lanes on devices and for lanes in worker processes.

A `Player` plays whole episodes (evolution, evaluation), a `Collector` a number of steps of each
lane (PPO). `es_rl.play.stage` makes both, of the kind that the environment needs.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias

import jax

from es_rl.play.jobs import Array, Played

PyTree: TypeAlias = Any
Notify: TypeAlias = Callable[[int, int], None]
"""Called from time to time with how many episodes have ended, and how many there are. It may raise
to give the rest up."""
PACE_SECONDS = 0.5
"""Time between two calls of `Notify`, about."""


class Behaviour(NamedTuple):
    """How members act: pure functions of one lane, vmapped by the player.

    `shared` is whatever pytree all members have in common, as parameters and noise. On the host it
    is taken apart in every step, which is fast for tuples, dicts and the dataclasses of
    `jax.tree_util.register_dataclass`, and slow for those of `flax.struct`.
    """

    select: Callable[[PyTree, jax.Array], PyTree]
    """(shared, member) -> what this member has of its own; called when an episode starts."""
    memory: PyTree
    """What a policy remembers when an episode starts, a pytree of arrays; () for nothing."""
    act: Callable[
        [PyTree, PyTree, PyTree, jax.Array, jax.Array], tuple[jax.Array, PyTree, jax.Array]
    ]
    """(shared, selected, memory, obs, key) -> (action, memory, vector). The vector (d,) and its
    square are added up over each episode, see `Played`; (0,) where there is nothing to add up."""


class Player(Protocol):
    """Plays the same jobs, on new episodes, as often as it is asked to.

    In all methods `shared` is that of the `Behaviour`, and `keys` (episodes, ...) the key data of
    one key for each distinct episode of the jobs. `compile` and `shapes` take arrays or
    `jax.ShapeDtypeStruct`s.
    """

    def shapes(self, shared: PyTree, keys: Array) -> Played:
        """What `play` will return, as `jax.ShapeDtypeStruct`s."""
        ...

    def compile(self, shared: PyTree, keys: Array) -> None:
        """Compile for arguments of these shapes; without it the first play does so."""
        ...

    def play(self, shared: PyTree, keys: Array, notify: Notify | None = None) -> Played:
        """Play every job to its end.

        Raises:
          UserError: an environment on the host returns what it may not.
          RuntimeError: an environment on the host fails again and again, or cannot be started.
        """
        ...

    def first_observation(self, keys: Array) -> Array | None:
        """What the first of the episodes starts with.

        None where the environment fails, and on devices, where it would take a program of its own.
        """
        ...


class CollectionKeys(NamedTuple):
    """Key data for T steps of N lanes, (devices, ...) each."""

    actions: Array
    """To sample actions: folded with the step."""
    dynamics: Array
    """For the steps of environments: folded with the step, then split by lane."""
    starts: Array
    """For the start states of new episodes: folded with the step, then split by lane. On the host
    it seeds the generator of the seeds that environments are reset with."""


class Collected(NamedTuple):
    """T steps of N lanes; all arrays are (T, N, ...), on the host NumPy's."""

    record: PyTree
    """What `Act` returned besides the actions."""
    reward: jax.Array
    """float32."""
    terminated: jax.Array
    """bool."""
    ended: jax.Array
    """bool: terminated, or truncated."""
    next_obs: jax.Array
    """The observation that the step led to: of an episode that ended its last, not the next
    one's first, so that a truncated episode can be bootstrapped."""
    totals: jax.Array
    """float32 returns of episodes where they ended, NaN elsewhere."""
    info: dict[str, jax.Array]
    """float32, what `Played.info` has, of episodes where they ended; NaN elsewhere."""


Act: TypeAlias = Callable[[PyTree, jax.Array, jax.Array], tuple[jax.Array, PyTree]]
"""(shared, observations (N, ...), key) -> (actions (N, ...), record): a pure function. The record
is a pytree of arrays (N, ...), kept for each step."""


class Collector(Protocol):
    """Steps N lanes; where an episode ends its lane goes on with a new one."""

    def start(self, key: jax.Array) -> PyTree:
        """The lanes before the first step; `key` is typed."""
        ...

    def shapes(self, shared: PyTree, lanes: PyTree, keys: CollectionKeys) -> Collected:
        """What `collect` will return besides the lanes, as `jax.ShapeDtypeStruct`s."""
        ...

    def compile(self, shared: PyTree, lanes: PyTree, keys: CollectionKeys) -> None:
        """Compile for arguments like these; without it the first `collect` does so."""
        ...

    def collect(
        self, shared: PyTree, lanes: PyTree, keys: CollectionKeys
    ) -> tuple[PyTree, Collected, int]:
        """T steps of the lanes.

        Args:
          shared: given to `Act`.
          lanes: from `start` or the last `collect`. They may have been saved and loaded; on devices
            their memory is used again.
          keys: see there.

        Returns:
          The lanes as they are afterwards, what was collected, and how many episodes the
          environment failed: their last steps earn nothing and are truncated.

        Raises:
          UserError: an environment on the host returns what it may not.
          RuntimeError: an environment on the host fails and no episode ends, or cannot be started.
        """
        ...
