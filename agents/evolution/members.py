"""How the members of a generation act: the policy network, with each member's own perturbation."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import es_rl
from agents.policies.network import Network
from es_rl.play.jobs import Array
from es_rl.play.player import Behaviour, PyTree


class Members(NamedTuple):
    """What all members of a generation share."""

    params: PyTree
    """The unperturbed parameters."""
    mean: Array
    """(d,) mean of the observations of all generations so far; d is 0 if nothing is
    standardised."""
    std: Array
    """(d,) standard deviation of the same observations."""
    noise: es_rl.Noise
    """The noise of this generation."""


@dataclass(frozen=True)
class Acting:
    """Computes the actions of a member; the data that all members share are `Members`."""

    network: Network
    sample: bool
    """Whether discrete actions are sampled."""
    members_here: int | None = None
    """How many members' noise each device holds; None if every device holds all of the noise."""

    @property
    def behaviour(self) -> Behaviour:
        """The functions that a player calls."""
        return Behaviour(self.select, self.network.memory, self.act)

    def select(self, shared: Members, member: jax.Array) -> list[Any]:
        """The member's own noise, selected from the shared noise."""
        if self.members_here is not None:
            member = member % self.members_here
        return es_rl.select(shared.params, shared.noise, member)

    def act(
        self, shared: Members, selected: list[Any], memory: Any, obs: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Any, jax.Array]:
        """One member's action for one observation, its new memory, and the statistics to add up."""

        def forward(memory: Any, x: jax.Array) -> Any:
            return es_rl.apply_selected(self.network.apply, shared.params, selected, memory, x)

        x = self.network.observe(obs, shared.mean, shared.std)
        action, memory = self.network.action(forward, memory, x, key, sample=self.sample)
        return action, memory, self._added_up(obs, x)

    def _added_up(self, obs: jax.Array, x: jax.Array) -> jax.Array:
        """The network's observation statistics, or a single number that is finite if `obs` is."""
        if self.network.normalizes or not jnp.issubdtype(obs.dtype, jnp.floating):
            return self.network.statistics(x)
        return jnp.sum(obs, dtype=jnp.float32)[None]
