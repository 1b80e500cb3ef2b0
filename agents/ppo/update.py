"""What PPO learns from a batch of transitions (Schulman et al. 2017, arXiv 1707.06347)."""

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
    """Steps of N environments one after the other; all arrays are (T, N, ...)."""

    vector: jax.Array
    """The observation, as `Network.stored` makes it: images as uint8."""
    raw: jax.Array
    """The action, before it was bounded."""
    log_prob: jax.Array
    """Of `raw`, when it was drawn."""
    reward: jax.Array
    terminated: jax.Array
    ended: jax.Array
    """Terminated, or truncated."""
    next_vector: jax.Array
    """The observation that the step led to: of an episode that ended its last, not the next
    one's first, so that a truncated episode can be bootstrapped."""


@dataclass(frozen=True, eq=False)
class Learner:
    """The clipped objective over epochs of minibatches, shared by the devices of a mesh axis."""

    network: Network
    critic: Functions
    """The value function, which reads what the network reads, and gives one number."""
    optimizer: optax.GradientTransformation
    """Its state holds the learning rate: see `es_rl.strategies.optimizers`."""
    axis: str
    """Gradients are averaged over this mesh axis."""
    num_epochs: int
    num_minibatches: int
    gamma: float
    gae_lambda: float
    clip_range: float
    entropy_coefficient: float
    value_coefficient: float

    def init(self, key: jax.Array, log_std: float) -> PyTree:
        """Parameters of the policy, the critic, and the log std of Box actions."""
        actor_key, critic_key = jax.random.split(key)
        return {
            "actor": self.network.init(actor_key),
            "critic": self.critic.init(critic_key),
            "log_std": jnp.full(_spaces.num_outputs(self.network.action_space), log_std),
        }

    def head(self, params: PyTree, vector: jax.Array) -> jax.Array:
        """(..., outputs) of the policy for stored observations (..., *shape)."""

        def outputs(x: jax.Array) -> jax.Array:
            return self.network.apply(params["actor"], (), self.network.scaled(x))[1]

        return self._each(outputs, vector)

    def value(self, params: PyTree, vector: jax.Array) -> jax.Array:
        """(...,) what the critic expects from stored observations (..., *shape) on."""

        def value(x: jax.Array) -> jax.Array:
            seen = self.network.clipped(self.network.scaled(x))
            return self.critic.apply(params["critic"], (), seen)[1][0]

        return self._each(value, vector)

    def _each(self, function: Any, x: jax.Array) -> jax.Array:
        """A function of one observation, of each of (..., *shape)."""
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
        """All epochs on one batch; called on every device with its own part of it.

        Args:
          params: see `init`.
          opt_state: of the optimizer.
          batch: from `without_nonfinite`, as is...
          usable: ...(T, N), which of its transitions to learn from.
          key: for the order of the minibatches.
        """
        # The advantage of an unusable transition, which terminates, is then 0.
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
        # The rate that the update began with: a schedule goes on from minibatch to minibatch.
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
        # What stands in for an unusable action may be so likely that the ratio overflows.
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
            # Schulman's low-variance estimate of the divergence from the old policy.
            "approx_kl": mean(ratio - 1 - change),
            "clip_fraction": mean(jnp.abs(ratio - 1) > self.clip_range),
        }
        return loss, metrics


def critic_of(network: Network, module: Any = None) -> Functions:
    """The critic of a policy network: of parameters of its own.

    Args:
      network: whose observations it reads.
      module: the user's, observation -> (1,); unless given it is a built-in network with the
        settings of the policy's.

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
    """Make a batch finite: what an environment gets wrong must not reach the parameters.

    A transition in which anything is not finite, a reward as an observation, is of no use: it is
    left out of the loss and of all statistics, and its episode counts as truncated before it.

    Returns:
      The batch, in which such transitions are 0 and terminate, and which ones are usable (T, N).
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

    Nothing follows a terminated step; a truncated one is worth what the critic expects to follow.

    Args:
      batch: the transitions.
      values: (T, N) of their observations.
      next_values: (T, N) of the observations that they led to.
      gamma: discount.
      gae_lambda: 0 trusts the critic, 1 the returns.
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
