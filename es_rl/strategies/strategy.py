"""What a strategy is: the protocol that `EvolutionStrategy` keeps, and that others may."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax

from es_rl.noise import Noise, PyTree


class StrategyState(Protocol):
    """A strategy's state: a pytree of arrays, with whatever else the strategy needs."""

    @property
    def params(self) -> PyTree:
        """The unperturbed parameters, those of the mean policy."""
        ...

    @property
    def generation(self) -> jax.Array:
        """int32 scalar, how many generations there were so far; `tell` adds one, always."""
        ...


@runtime_checkable
class Strategy(Protocol):
    """A rule by which the fitness of perturbed parameters moves the unperturbed ones.

    `init`, `ask` and `tell` are pure functions that JAX traces. A strategy of one's own may wrap
    one of `es_rl.eggroll`, and is given to an agent as
    `agents.make("eggroll", env, strategy=...)`.
    """

    @property
    def population_size(self) -> int:
        """N, the number of members."""
        ...

    @property
    def episode_sharing(self) -> int:
        """How many neighbouring members play the same episodes; it divides N."""
        ...

    @property
    def num_draws(self) -> int:
        """D, how many draws of noise a generation has: the leading axis of the noise."""
        ...

    def init(self, key: jax.Array, params: PyTree) -> Any:
        """The `StrategyState` before the first generation.

        Args:
          key: a typed key.
          params: where to start from, any pytree of float arrays.
        """
        ...

    def ask(self, state: Any) -> Noise:
        """The noise of the generation that `state.generation` counts."""
        ...

    def tell(
        self, state: Any, noise: Noise, fitness: jax.Array
    ) -> tuple[Any, Mapping[str, jax.Array]]:
        """One update.

        Args:
          state: as it was when `ask` was called.
          noise: from `ask`.
          fitness: (N,) float32, raw, higher is better; that of members who failed is not finite.
            With mirrored noise the two members of a couple are neighbours.

        Returns:
          The next state, and scalars to be logged. An agent ends a run after too many updates in a
          row for which "update_skipped" is 1.
        """
        ...
