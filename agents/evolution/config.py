"""Settings of the agents that evolve a policy."""

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import optax

import es_rl
from agents.policies.network import NetworkConfig
from agents.settings import MAY_CHANGE
from envs.errors import UserError
from es_rl.fitness import FitnessName
from es_rl.noise import FullRank
from es_rl.shaping import GroupStd, Shaping, ShapingName
from es_rl.strategies.optimizers import at_learning_rate

OptimizerName: TypeAlias = Literal["adam", "sgd"]
STRATEGY_SETTINGS = (
    "population_size",
    "sigma",
    "sigma_decay",
    "optimizer",
    "learning_rate",
    "learning_rate_decay",
    "weight_decay",
    "max_update_norm",
    "noise_reuse",
    "group_size",
    "group_std",
    "shaping",
    "freeze_vectors",
    "rank",
    "full_rank",
    "shard_update",
)
"""The settings of which a strategy of the user's makes nothing."""


@dataclass(frozen=True)
class EvolutionConfig(NetworkConfig):
    """Settings of the `open_es` agent; `eggroll` adds the rank."""

    sample_actions: bool = False
    """Whether training samples discrete actions; evaluation always takes the most likely."""
    population_size: int = 512
    """N, the members of a generation."""
    episodes_per_member: int = 1
    """K, the episodes of each member in a generation."""
    fitness: FitnessName = "mean"
    """How the returns of the K episodes become a member's fitness: their mean, median or min; cvar,
    the mean of the worst quarter; success, the share of episodes that the environment calls
    successful."""
    episode_steps: int | None = None
    """Training episodes are cut after so many steps, as arXiv 1703.03864 does; evaluation plays
    them to their ends."""
    sigma: float = 0.1
    """Standard deviation of the perturbations at the start."""
    sigma_decay: float = 1.0
    """Factor on sigma after every generation."""
    optimizer: OptimizerName = "adam"
    """What turns the gradient estimate into a step."""
    learning_rate: float = 0.02
    """At the start."""
    learning_rate_decay: float = 1.0
    """Factor on the learning rate after every generation."""
    weight_decay: float = 0.0
    """Decoupled (as in AdamW)."""
    max_update_norm: float | None = None
    """A trust region: the step, after the optimizer, is scaled down to this global norm."""
    noise_reuse: int = 2
    """Members that share a draw of noise: 0 or 1 none, 2 a mirrored pair, k (even) k/2 pairs."""
    group_size: int = 0
    """Members that play the same episodes and are normalised together; 0 for the population."""
    group_std: GroupStd = "group"
    """Whose standard deviation divides the fitness of a group."""
    shaping: ShapingName = "zscore"
    """How fitness is shaped for the update."""
    freeze_vectors: bool = False
    """Whether biases and other vectors stay as they are."""
    lanes: int | None = field(default=None, metadata=MAY_CHANGE)
    """Environments stepped side by side on all devices together; chosen from the device and the
    population unless given."""
    devices: int | None = field(default=None, metadata=MAY_CHANGE)
    """Devices of each process that share the population: all unless given. On a CPU one is a
    core."""
    shard_update: bool = False
    """For large networks: each device draws only the noise of its own members, and adds up its
    part of the update. What travels is then an update too, and rounds with the number of devices.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("episodes_per_member", "episode_steps", "lanes", "devices"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name}={value}: must be at least 1")
        for name in ("learning_rate", "sigma_decay", "learning_rate_decay"):
            if not 0 < getattr(self, name) < np.inf:
                raise UserError(f"{name}={getattr(self, name)}: must be greater than 0")
        if not 0 <= self.weight_decay < np.inf:
            raise UserError(f"weight_decay={self.weight_decay}: must be at least 0")
        if self.max_update_norm is not None and not 0 < self.max_update_norm < np.inf:
            raise UserError(f"max_update_norm={self.max_update_norm}: must be greater than 0")
        self.strategy()

    def strategy_options(
        self, shaping: Shaping | None = None, layout: es_rl.Layout | None = None
    ) -> dict[str, Any]:
        """Arguments of the strategy, given what `strategy` is given."""
        scale = optax.scale_by_adam() if self.optimizer == "adam" else optax.identity()
        schedule = optax.exponential_decay(self.learning_rate, 1, self.learning_rate_decay)
        steps = [
            scale,
            optax.add_decayed_weights(self.weight_decay),
            at_learning_rate(schedule),
        ]
        if self.max_update_norm is not None:
            steps.append(optax.clip_by_global_norm(self.max_update_norm))
        decays = self.sigma_decay != 1.0
        sigmas = optax.exponential_decay(self.sigma, 1, self.sigma_decay)
        return {
            "population_size": self.population_size,
            "sigma": sigmas if decays else self.sigma,
            "optimizer": optax.chain(*steps),
            "noise_reuse": self.noise_reuse,
            "group_size": self.group_size,
            "group_std": self.group_std,
            "shaping": self.shaping if shaping is None else shaping,
            "freeze_vectors": self.freeze_vectors,
            "layout": layout,
        }

    def strategy(
        self, shaping: Shaping | None = None, layout: es_rl.Layout | None = None
    ) -> es_rl.EvolutionStrategy:
        """The strategy with these settings.

        Args:
          shaping: a function in place of the setting.
          layout: how the network uses its parameters, from `es_rl.layout`.

        Raises:
          UserError: a setting is out of range.
        """
        if not 0 < self.sigma < np.inf:  # a schedule would hide it
            raise UserError(f"sigma={self.sigma}: must be greater than 0")
        return es_rl.open_es(**self.strategy_options(shaping, layout))


@dataclass(frozen=True)
class EggrollConfig(EvolutionConfig):
    """Settings of the `eggroll` agent."""

    rank: int = 1
    """r of the perturbation of every weight matrix."""
    full_rank: FullRank = "vectors"
    """Which parameters get noise of full rank: vectors, such as biases; or tensors, which adds all
    of three or more axes, such as the kernels of convolutions and of attention."""

    def strategy(
        self, shaping: Shaping | None = None, layout: es_rl.Layout | None = None
    ) -> es_rl.EvolutionStrategy:
        super().strategy()
        options = self.strategy_options(shaping, layout)
        return es_rl.eggroll(rank=self.rank, full_rank=self.full_rank, **options)
