"""Settings of the agents that train a policy with proximal policy optimisation."""

from dataclasses import dataclass, field

import numpy as np
import optax

from agents.policies.network import NetworkConfig, Squash
from agents.settings import MAY_CHANGE
from envs.errors import UserError


@dataclass(frozen=True)
class PPOSettings:
    """The settings that `ppo` and `sbx_ppo` share; the defaults are those of Stable-Baselines3, but
    for the number of environments and of their steps."""

    num_envs: int = 8
    """N, environments stepped side by side, on all devices together."""
    num_steps: int = 256
    """T, steps of each environment between two updates."""
    num_epochs: int = 10
    """Passes over the T x N transitions of an update."""
    minibatch_size: int = 64
    """Transitions of one gradient step, on all devices together, at least 2 on each; must divide
    T x N."""
    learning_rate: float = 3e-4
    """The learning rate of Adam at the start."""
    anneal_steps: int | None = None
    """Env steps over which the learning rate falls linearly to 0; it is constant unless given."""
    gamma: float = 0.99
    """The discount factor."""
    gae_lambda: float = 0.95
    """Lambda of generalized advantage estimation: 0 relies on the critic, 1 on the observed
    returns."""
    clip_range: float = 0.2
    """The ratio of new to old action probability is clipped to within this distance from 1."""
    entropy_coefficient: float = 0.0
    """Coefficient of the entropy bonus in the objective."""
    value_coefficient: float = 0.5
    """Coefficient of the critic's mean squared error."""
    max_grad_norm: float = 0.5
    """Gradients are scaled down to this global norm; `sbx_ppo` does so separately for policy and
    critic."""
    log_std_init: float = 0.0
    """Log standard deviation of Box actions at the start."""
    normalize_rewards: bool = False
    """Whether rewards are divided by the running std of the discounted return (VecNormalize)."""

    def check_ranges(self) -> None:
        """Check every setting by itself, and the number of minibatches.

        Raises:
          UserError: a value is out of range.
        """
        for name in ("num_envs", "num_steps", "num_epochs"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}: must be at least 1")
        if self.batch_size < 2:
            raise UserError(
                f"num_steps={self.num_steps}: must be at least 2 with num_envs={self.num_envs}"
            )
        if self.minibatch_size < 2:
            raise UserError(
                f"minibatch_size={self.minibatch_size}: must be at least 2, as advantages are "
                "standardised within a minibatch, which leaves 0 of a single one"
            )
        if self.anneal_steps is not None and self.anneal_steps < 1:
            raise UserError(f"anneal_steps={self.anneal_steps}: must be at least 1")
        for name in ("learning_rate", "clip_range", "max_grad_norm"):
            if not 0 < getattr(self, name) < np.inf:
                raise UserError(f"{name}={getattr(self, name)}: must be greater than 0")
        for name in ("entropy_coefficient", "value_coefficient"):
            if not 0 <= getattr(self, name) < np.inf:
                raise UserError(f"{name}={getattr(self, name)}: must be at least 0")
        for name in ("gamma", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name}={getattr(self, name)}: must be from 0 to 1")
        if self.batch_size % self.minibatch_size:
            raise UserError(
                f"minibatch_size={self.minibatch_size}: must divide num_envs x num_steps, "
                f"{self.batch_size}"
            )

    @property
    def batch_size(self) -> int:
        """T x N, the transitions of an update."""
        return self.num_envs * self.num_steps

    @property
    def num_minibatches(self) -> int:
        """The number of gradient steps of an epoch."""
        return self.batch_size // self.minibatch_size


@dataclass(frozen=True)
class PPOConfig(PPOSettings, NetworkConfig):
    """Settings of the `ppo` agent."""

    squash: Squash = "clip"
    """How a Box action is kept within its bounds: tanh scales smoothly, clip cuts."""
    reward_offset: float = 0.0
    """Added to the reward of every training step, such as -1 to take away a reward of 1 for being
    alive. Only the update sees it: returns, logs and evaluation do not."""
    devices: int | None = field(default=None, metadata=MAY_CHANGE)
    """Devices that share the environments; chosen from the number of environments unless given."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.network == "gru":
            raise UserError("network=gru: must be mlp or cnn, as ppo trains no memory")
        self.check_ranges()
        if not np.isfinite(self.reward_offset):
            raise UserError(f"reward_offset={self.reward_offset}: must be a finite number")
        if self.devices is None:
            return
        if self.devices < 1:
            raise UserError(f"devices={self.devices}: must be at least 1")
        if not self._shared_by(self.devices):
            raise UserError(
                f"devices={self.devices}: must divide num_envs, {self.num_envs}, and "
                f"minibatch_size, {self.minibatch_size}, of which each device needs at least 2"
            )

    @property
    def learning_rate_schedule(self) -> optax.Schedule:
        """The learning rate of each gradient step."""
        if self.anneal_steps is None:
            return optax.constant_schedule(self.learning_rate)
        steps = self.num_epochs * self.num_minibatches * self.anneal_steps / self.batch_size
        return optax.linear_schedule(self.learning_rate, 0.0, max(1, round(steps)))

    def most_devices(self, available: int) -> int:
        """How many of the available devices to use: as many as have at least 32 environments
        each."""
        # With fewer environments, synchronising devices after every minibatch costs more than it
        # gains.
        enough = [n for n in range(2, available + 1) if self.num_envs >= 32 * n]
        return max(filter(self._shared_by, enough), default=1)

    def _shared_by(self, count: int) -> bool:
        # Advantages are standardised within each device's part of a minibatch.
        parts_of_two = self.minibatch_size % count == 0 and self.minibatch_size // count >= 2
        return self.num_envs % count == 0 and parts_of_two
