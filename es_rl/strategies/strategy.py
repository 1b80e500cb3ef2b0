"""The protocol of a strategy, which `EvolutionStrategy` and users' own strategies implement."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax

from es_rl.noise import Noise, PyTree


class StrategyState(Protocol):
    """The state of a strategy: a pytree of arrays that has at least these two attributes."""

    @property
    def params(self) -> PyTree:
        """The unperturbed parameters, which are the parameters of the mean policy."""
        ...

    @property
    def generation(self) -> jax.Array:
        """int32 scalar, the number of generations so far. Every `tell` adds one."""
        ...


@runtime_checkable
class Strategy(Protocol):
    """A rule that updates parameters from the fitness of perturbed copies of them.

    `init`, `ask` and `tell` are pure functions that JAX traces. Users may write their own strategy,
    for example as a wrapper of `es_rl.eggroll`, and pass it to an agent with
    `agents.make("eggroll", env, strategy=...)`.
    """

    @property
    def population_size(self) -> int:
        """N, the number of members."""
        ...

    @property
    def episode_sharing(self) -> int:
        """The number of neighbouring members that play the same episodes. It divides N."""
        ...

    @property
    def num_draws(self) -> int:
        """D, the number of draws of noise in a generation, which is the noise's leading axis."""
        ...

    def init(self, key: jax.Array, params: PyTree) -> Any:
        """Return the `StrategyState` before the first generation.

        Args:
          key: a typed key.
          params: the initial parameters, any pytree of float arrays.
        """
        ...

    def ask(self, state: Any) -> Noise:
        """Return the noise of generation number `state.generation`."""
        ...

    def tell(
        self, state: Any, noise: Noise, fitness: jax.Array
    ) -> tuple[Any, Mapping[str, jax.Array]]:
        """Make one update.

        Agents also give the keyword argument `env_steps` (see `EvolutionStrategy.tell`) where
        `state.opt_state` is that of an optimiser of `es_rl.accumulate`.

        Args:
          state: the state that `ask` was called with.
          noise: the noise from `ask`.
          fitness: (N,) float32, the raw fitness; higher is better. It is not finite for members
            whose episodes failed. With mirrored noise the two members of a pair are neighbours.

        Returns:
          The next state, and scalars to log. An agent ends a run after too many consecutive updates
          for which the scalar "update_skipped" is 1.
        """
        ...
