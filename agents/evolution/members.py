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
    """(d,) of the observations of all generations so far; d is 0 where nothing is standardised."""
    std: Array
    """(d,) of these."""
    noise: es_rl.Noise


@dataclass(frozen=True)
class Acting:
    """Acts as a member, with what the members share as `Members`."""

    network: Network
    sample: bool
    """Whether discrete actions are sampled."""
    members_here: int | None = None
    """Where noise is split among devices, how many members each device has the noise of."""

    @property
    def behaviour(self) -> Behaviour:
        """What a player needs."""
        return Behaviour(self.select, self.network.memory, self.act)

    def select(self, shared: Members, member: jax.Array) -> list[Any]:
        """What a member has of its own."""
        if self.members_here is not None:
            member = member % self.members_here
        return es_rl.select(shared.params, shared.noise, member)

    def act(
        self, shared: Members, selected: list[Any], memory: Any, obs: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Any, jax.Array]:
        """One member's action for one observation, its new memory, and what to add up."""

        def forward(memory: Any, x: jax.Array) -> Any:
            return es_rl.apply_selected(self.network.apply, shared.params, selected, memory, x)

        x = self.network.observe(obs, shared.mean, shared.std)
        action, memory = self.network.action(forward, memory, x, key, sample=self.sample)
        return action, memory, self._added_up(obs, x)

    def _added_up(self, obs: jax.Array, x: jax.Array) -> jax.Array:
        """The statistics of the network, or else a single number that is finite if `obs` is."""
        if self.network.normalizes or not jnp.issubdtype(obs.dtype, jnp.floating):
            return self.network.statistics(x)
        return jnp.sum(obs, dtype=jnp.float32)[None]
