"""Settings of the agents that train a policy with evolution strategies."""

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

OptimizerName: TypeAlias = Literal["adam", "sgd", "clip_up"]
SigmaRule: TypeAlias = Literal["schedule", "pgpe", "success"]
STRATEGY_SETTINGS = (
    "population_size",
    "sigma",
    "sigma_decay",
    "sigma_rule",
    "sigma_learning_rate",
    "optimizer",
    "momentum",
    "max_speed",
    "learning_rate",
    "learning_rate_decay",
    "weight_decay",
    "max_update_norm",
    "noise_reuse",
    "group_size",
    "group_std",
    "shaping",
    "top_draws",
    "freeze_vectors",
    "rank",
    "full_rank",
    "update_env_steps",
    "shard_update",
)
"""The settings that have no effect with a strategy of the user's."""


@dataclass(frozen=True)
class EvolutionConfig(NetworkConfig):
    """Settings of the `open_es` agent; `eggroll` adds the rank."""

    sample_actions: bool = False
    """Whether training draws discrete actions; what evaluation does, stochastic_evaluation says."""
    population_size: int = 512
    """N, the members of a generation."""
    episodes_per_member: int = 1
    """K, the episodes of each member in a generation."""
    fitness: FitnessName = "mean"
    """How the returns of the K episodes become a member's fitness: their mean, median or min; cvar:
    the mean of the worst quarter; success: the share of episodes that the environment reports as
    successful."""
    episode_steps: int | None = None
    """Training episodes are cut after this many steps, as in arXiv 1703.03864; evaluation plays
    whole episodes."""
    sigma: float = 0.1
    """The standard deviation of the perturbations at the start."""
    sigma_decay: float = 1.0
    """sigma is multiplied by this factor after every generation."""
    sigma_rule: SigmaRule = "schedule"
    """How sigma changes: schedule: by sigma_decay alone; pgpe: learned for each array of parameters
    along the fitness gradient (Sehnke et al. 2010); success: it grows while generations beat those
    before, and shrinks while they lose (Loshchilov 2014)."""
    sigma_learning_rate: float = 0.1
    """How fast sigma changes with the rules pgpe and success."""
    optimizer: OptimizerName = "adam"
    """The optimizer that turns the gradient estimate into a step: clip_up makes steps of bounded
    length along normalised gradients with momentum (Toklu et al. 2020)."""
    momentum: float = 0.9
    """The momentum of clip_up; the other optimizers do not use it."""
    max_speed: float | None = None
    """The length of the longest step of clip_up, of all parameters together: twice the learning
    rate unless given. The other optimizers do not use it."""
    learning_rate: float = 0.02
    """The learning rate at the start."""
    learning_rate_decay: float = 1.0
    """The learning rate is multiplied by this factor after every update."""
    weight_decay: float = 0.0
    """The coefficient of decoupled weight decay (as in AdamW)."""
    max_update_norm: float | None = None
    """A trust region: the step of the optimizer is scaled down to at most this global norm."""
    noise_reuse: int = 2
    """Members that share a draw of noise: 0 or 1: each has its own; 2: mirrored pairs; an even k:
    k/2 pairs."""
    group_size: int = 0
    """Members of a group, which play the same episodes and are normalised together; 0 normalises
    over the population."""
    group_std: GroupStd = "group"
    """Whether the fitness of a group is divided by the standard deviation of the group or of the
    population."""
    shaping: ShapingName = "zscore"
    """How fitness is shaped for the update."""
    top_draws: int | None = None
    """b, the number of draws of noise that make the update: those whose best member is best, as in
    ARS (Mania et al. 2018). All draws unless given."""
    update_env_steps: int | None = None
    """Generations are gathered for one update until they have played this many env steps, as if the
    population grew (Toklu et al. 2020); every generation makes an update unless given. Fitness is
    shaped within each generation."""
    reward_offset: float = 0.0
    """Added to the reward of every training step, such as -1 to take away a reward of 1 for being
    alive (Mania et al. 2018). Only fitness sees it: returns, logs and evaluation do not."""
    freeze_vectors: bool = False
    """Whether biases and other vectors are neither perturbed nor trained."""
    lanes: int | None = field(default=None, metadata=MAY_CHANGE)
    """Environments stepped in lockstep on all devices together; chosen from the device and the
    population unless given."""
    devices: int | None = field(default=None, metadata=MAY_CHANGE)
    """Devices of each process that share the population: all unless given. On a CPU a device is a
    core."""
    shard_update: bool = False
    """For large networks: each device draws only the noise of its own members and computes its part
    of the update. Devices then exchange updates, and rounding depends on the number of devices.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("episodes_per_member", "episode_steps", "lanes", "devices"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name}={value}: must be at least 1")
        decays = ("sigma_decay", "learning_rate_decay")
        for name in ("sigma", "learning_rate", *decays, "sigma_learning_rate"):
            if not 0 < getattr(self, name) < np.inf:
                raise UserError(f"{name}={getattr(self, name)}: must be greater than 0")
        if self.update_env_steps is not None and not 1 <= self.update_env_steps <= 10**9:
            raise UserError(
                f"update_env_steps={self.update_env_steps}: must be from 1 to 1,000,000,000"
            )
        if not np.isfinite(self.reward_offset):
            raise UserError(f"reward_offset={self.reward_offset}: must be a finite number")
        if not 0 <= self.weight_decay < np.inf:
            raise UserError(f"weight_decay={self.weight_decay}: must be at least 0")
        if self.max_update_norm is not None and not 0 < self.max_update_norm < np.inf:
            raise UserError(f"max_update_norm={self.max_update_norm}: must be greater than 0")
        if self.sigma_rule != "schedule":
            for name, plain in (
                ("sigma_decay", 1.0),
                ("shard_update", False),
                ("update_env_steps", None),
            ):
                if getattr(self, name) != plain:
                    raise UserError(
                        f"{name}={getattr(self, name)}: must be {plain} with "
                        f"sigma_rule={self.sigma_rule}"
                    )
        self.strategy()

    def strategy_options(
        self, shaping: Shaping | None = None, layout: es_rl.Layout | None = None
    ) -> dict[str, Any]:
        """The arguments of the strategy; parameters as in `strategy`."""
        decays = self.sigma_decay != 1.0
        sigmas = optax.exponential_decay(self.sigma, 1, self.sigma_decay)
        return {
            "population_size": self.population_size,
            "sigma": sigmas if decays else self.sigma,
            "optimizer": self._optimizer(),
            "noise_reuse": self.noise_reuse,
            "group_size": self.group_size,
            "group_std": self.group_std,
            "shaping": self.shaping if shaping is None else shaping,
            "freeze_vectors": self.freeze_vectors,
            "top_draws": self.top_draws,
            "layout": layout,
        }

    def _optimizer(self) -> optax.GradientTransformationExtraArgs:
        rate = optax.exponential_decay(self.learning_rate, 1, self.learning_rate_decay)
        if self.optimizer == "clip_up":
            steps = [
                es_rl.clip_up(rate, self.momentum, self.max_speed),
                optax.add_decayed_weights(lambda update: -self.weight_decay * rate(update)),
            ]
        else:
            steps = [
                optax.scale_by_adam() if self.optimizer == "adam" else optax.identity(),
                optax.add_decayed_weights(self.weight_decay),
                at_learning_rate(rate),
            ]
        if self.max_update_norm is not None:
            steps.append(optax.clip_by_global_norm(self.max_update_norm))
        optimizer = optax.chain(*steps)
        if self.update_env_steps is None:
            return optimizer
        return es_rl.accumulate(optimizer, self.update_env_steps)

    def with_sigma_rule(self, strategy: es_rl.EvolutionStrategy) -> es_rl.Strategy:
        """The strategy, whose sigma then changes as `sigma_rule` says."""
        match self.sigma_rule:
            case "pgpe":
                return es_rl.LearnedSigma(strategy, self.sigma_learning_rate)
            case "success":
                return es_rl.SuccessSigma(strategy, self.sigma_learning_rate)
            case _:
                return strategy

    def strategy(
        self, shaping: Shaping | None = None, layout: es_rl.Layout | None = None
    ) -> es_rl.Strategy:
        """The strategy with these settings.

        Args:
          shaping: a function that replaces the setting.
          layout: how the network uses its parameters, from `es_rl.layout`.

        Raises:
          UserError: a setting is out of range.
        """
        return self.with_sigma_rule(es_rl.open_es(**self.strategy_options(shaping, layout)))


@dataclass(frozen=True)
class EggrollConfig(EvolutionConfig):
    """Settings of the `eggroll` agent."""

    rank: int = 1
    """r, the rank of the perturbation of every weight matrix."""
    full_rank: FullRank = "vectors"
    """Which parameters get noise of full rank: vectors, such as biases; or tensors: also all
    parameters with three or more axes, such as the kernels of convolutions and attention."""

    def strategy(
        self, shaping: Shaping | None = None, layout: es_rl.Layout | None = None
    ) -> es_rl.Strategy:
        options = self.strategy_options(shaping, layout)
        strategy = es_rl.eggroll(rank=self.rank, full_rank=self.full_rank, **options)
        return self.with_sigma_rule(strategy)
