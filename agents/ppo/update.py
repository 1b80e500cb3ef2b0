"""The PPO update on a batch of transitions (Schulman et al. 2017, arXiv 1707.06347)."""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from agents.policies import distributions
from agents.policies import spaces as _spaces
from agents.policies.functions import Functions, functions_of
from agents.policies.network import Network, built_in
from envs.errors import UserError
from es_rl.strategies.optimizers import learning_rate_of

PyTree: TypeAlias = Any


class Transitions(NamedTuple):
    """T consecutive steps of N environments; all arrays are (T, N, ...)."""

    vector: jax.Array
    """The observation, converted by `Network.stored`; images are uint8."""
    raw: jax.Array
    """The action before it was bounded."""
    log_prob: jax.Array
    """The log probability of `raw` when it was drawn."""
    reward: jax.Array
    """The reward of the step."""
    terminated: jax.Array
    """Whether the episode terminated with this step, so that no return follows."""
    ended: jax.Array
    """Whether the episode ended with this step: terminated or truncated."""
    next_vector: jax.Array
    """The observation after the step. If the episode ended, it is the last observation of that
    episode, not the first of the next, so that a truncated episode can be bootstrapped."""


@dataclass(frozen=True, eq=False)
class Learner:
    """The clipped objective over epochs of minibatches, shared by the devices of a mesh axis."""

    network: Network
    """The policy network."""
    critic: Functions
    """The value function: from the observation that the network reads to one number."""
    optimizer: optax.GradientTransformation
    """The optimizer; its state holds the learning rate (see `es_rl.strategies.optimizers`)."""
    axis: str
    """The mesh axis over which gradients are averaged."""
    num_epochs: int
    """Passes over the batch."""
    num_minibatches: int
    """The number of minibatches per epoch."""
    gamma: float
    """The discount factor."""
    gae_lambda: float
    """Lambda of generalized advantage estimation."""
    clip_range: float
    """The distance from 1 to which the probability ratio is clipped."""
    entropy_coefficient: float
    """Weight of the entropy bonus."""
    value_coefficient: float
    """Weight of the critic's mean squared error."""

    def init(self, key: jax.Array, log_std: float) -> PyTree:
        """The initial parameters of the policy and the critic, and the log std of Box actions."""
        actor_key, critic_key = jax.random.split(key)
        return {
            "actor": self.network.init(actor_key),
            "critic": self.critic.init(critic_key),
            "log_std": jnp.full(_spaces.num_outputs(self.network.action_space), log_std),
        }

    def head(self, params: PyTree, vector: jax.Array) -> jax.Array:
        """The outputs (..., outputs) of the policy network for stored observations (...)."""

        def outputs(x: jax.Array) -> jax.Array:
            return self.network.apply(params["actor"], (), self.network.scaled(x))[1]

        return self._each(outputs, vector)

    def value(self, params: PyTree, vector: jax.Array) -> jax.Array:
        """(...,) the critic's estimate of the return from stored observations (..., *shape)."""

        def value(x: jax.Array) -> jax.Array:
            seen = self.network.clipped(self.network.scaled(x))
            return self.critic.apply(params["critic"], (), seen)[1][0]

        return self._each(value, vector)

    def _each(self, function: Any, x: jax.Array) -> jax.Array:
        """Apply a function of one observation to each of the observations (..., *shape)."""
        shape = self.network.shape
        leading = x.shape[: x.ndim - len(shape)]
        outputs = jax.vmap(function)(x.reshape(-1, *shape))
        return outputs.reshape(*leading, *outputs.shape[1:])

    def update(
        self,
        params: PyTree,
        opt_state: optax.OptState,
        batch: Transitions,
        usable: jax.Array,
        key: jax.Array,
    ) -> tuple[PyTree, optax.OptState, dict[str, jax.Array]]:
        """Run all epochs on one batch; called on every device with its own part of the batch.

        Args:
          params: the parameters, as from `init`.
          opt_state: the state of the optimizer.
          batch: the transitions, from `without_nonfinite`.
          usable: (T, N) bool, the transitions to learn from, also from `without_nonfinite`.
          key: a typed key for the order of the minibatches.
        """
        # An unusable transition counts as terminated with reward 0, so its advantage is then 0.
        values = jnp.where(usable, self.value(params, batch.vector), 0.0)
        advantages = generalized_advantages(
            batch, values, self.value(params, batch.next_vector), self.gamma, self.gae_lambda
        )
        flat = jax.tree.map(
            lambda x: x.reshape(-1, *x.shape[2:]), (batch, usable, advantages, advantages + values)
        )

        def epoch(carry: Any, key: jax.Array) -> Any:
            order = jax.random.permutation(key, flat[1].shape[0])
            order = order.reshape(self.num_minibatches, -1)
            return jax.lax.scan(
                lambda carry, rows: self._step(carry, *jax.tree.map(lambda x: x[rows], flat)),
                carry,
                order,
            )

        (params, opt_state), metrics = jax.lax.scan(
            epoch, (params, opt_state), jax.random.split(key, self.num_epochs)
        )
        means = jax.tree.map(jnp.mean, metrics)
        # The learning rate of the first minibatch: a schedule changes it with every minibatch.
        return params, opt_state, {**means, "learning_rate": metrics["learning_rate"][0, 0]}

    def _step(
        self,
        carry: Any,
        batch: Transitions,
        usable: jax.Array,
        advantages: jax.Array,
        returns: jax.Array,
    ) -> tuple[Any, dict[str, jax.Array]]:
        params, opt_state = carry
        loss = partial(
            self._loss, batch=batch, usable=usable, advantages=advantages, returns=returns
        )
        gradient, metrics = jax.grad(loss, has_aux=True)(params)
        gradient, metrics = jax.lax.pmean((gradient, metrics), self.axis)
        updates, opt_state = self.optimizer.update(gradient, opt_state, params)
        metrics["grad_norm"] = optax.tree.norm(gradient)
        metrics["learning_rate"] = learning_rate_of(opt_state)
        return (optax.apply_updates(params, updates), opt_state), metrics

    def _loss(
        self,
        params: PyTree,
        batch: Transitions,
        usable: jax.Array,
        advantages: jax.Array,
        returns: jax.Array,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        share = usable * (usable.size / jnp.maximum(jnp.sum(usable), 1))

        def mean(x: jax.Array) -> jax.Array:
            return jnp.mean(share * x)

        space, head = self.network.action_space, self.head(params, batch.vector)
        log_std = params["log_std"]
        change = distributions.log_prob(space, head, log_std, batch.raw) - batch.log_prob
        # The zeros in place of an unusable action may be so likely that the ratio overflows.
        change = jnp.where(usable, change, 0.0)
        ratio = jnp.exp(change)
        advantages = advantages - mean(advantages)
        advantages = advantages / (jnp.sqrt(mean(advantages**2)) + 1e-8)
        clipped = jnp.clip(ratio, 1 - self.clip_range, 1 + self.clip_range)
        policy_loss = -mean(jnp.minimum(ratio * advantages, clipped * advantages))
        value_loss = mean((self.value(params, batch.vector) - returns) ** 2)
        entropy = mean(distributions.entropy(space, head, log_std))
        loss = (
            policy_loss + self.value_coefficient * value_loss - self.entropy_coefficient * entropy
        )
        metrics = {
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "entropy": entropy,
            # Schulman's low-variance estimate of the KL divergence from the old policy.
            "approx_kl": mean(ratio - 1 - change),
            "clip_fraction": mean(jnp.abs(ratio - 1) > self.clip_range),
        }
        return loss, metrics


def critic_of(network: Network, module: Any = None) -> Functions:
    """The critic for a policy network; the two share no parameters.

    Args:
      network: the policy network, whose observations the critic reads.
      module: the user's critic, observation -> (1,). Unless given, the critic is a built-in network
        with the policy network's settings.

    Raises:
      UserError: the module does not fit, or it has a memory.
    """
    space = network.observation_space
    critic = functions_of(
        "critic",
        built_in(space, network.config, 1) if module is None else module,
        network.shape,
        1,
    )
    for name, memory in (("network", network.memory), ("critic", critic.memory)):
        if jax.tree.leaves(memory):
            raise UserError(f"{name} has a memory, which ppo does not train: must be without one")
    return critic


def without_nonfinite(batch: Transitions) -> tuple[Transitions, jax.Array]:
    """Replace values that are not finite, so that they do not reach the parameters.

    A transition with any value that is not finite (a reward or an observation) is unusable: it is
    left out of the loss and of all statistics, and its episode counts as truncated before it.

    Returns:
      The batch, in which unusable transitions are 0 and terminated; and (T, N) bool, the usable
      transitions.
    """

    def rows(x: jax.Array, like: jax.Array) -> jax.Array:
        return x.reshape(x.shape + (1,) * (like.ndim - x.ndim))

    usable = jnp.ones(batch.reward.shape, bool)
    for x in batch:
        usable &= jnp.isfinite(x).all(axis=tuple(range(usable.ndim, x.ndim)))
    clean = jax.tree.map(lambda x: jnp.where(rows(usable, x), x, jnp.zeros_like(x)), batch)
    return clean._replace(
        terminated=clean.terminated | ~usable, ended=clean.ended | ~usable
    ), usable


def generalized_advantages(
    batch: Transitions,
    values: jax.Array,
    next_values: jax.Array,
    gamma: float,
    gae_lambda: float,
) -> jax.Array:
    """(T, N) advantages: GAE (Schulman et al. 2016, arXiv 1506.02438, equation 16).

    The value after a terminated step is 0; the value after a truncated step is the critic's
    estimate.

    Args:
      batch: the transitions.
      values: (T, N) the critic's values of the observations.
      next_values: (T, N) the critic's values of the next observations.
      gamma: the discount factor.
      gae_lambda: 0 relies on the critic, 1 on the observed returns.
    """
    deltas = batch.reward + gamma * next_values * ~batch.terminated - values

    def back(
        following: jax.Array, step: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        delta, ended = step
        advantage = delta + gamma * gae_lambda * following * ~ended
        return advantage, advantage

    _, advantages = jax.lax.scan(
        back, jnp.zeros_like(deltas[0]), (deltas, batch.ended), reverse=True
    )
    return advantages
