"""How PPO acts while it collects: it samples, and keeps what the update needs of it."""

from typing import NamedTuple, TypeAlias

import jax

from agents.policies import distributions
from agents.policies import spaces as _spaces
from agents.policies.network import Network, Weights
from agents.ppo.update import Learner
from es_rl.play.observations import Moments

Statistics: TypeAlias = Weights | Moments
"""Whatever has the mean and std (d,) of observations."""


class Drawn(NamedTuple):
    """What is kept of the actions of N lanes."""

    vector: jax.Array
    """(N, ...) the observations, as `Network.stored` makes them."""
    raw: jax.Array
    """(N, ...) the actions, before they were bounded."""
    log_prob: jax.Array
    """(N,) of `raw`, when it was drawn."""


def act(
    learner: Learner, weights: Weights, obs: jax.Array, key: jax.Array
) -> tuple[jax.Array, Drawn]:
    """Sampled actions for N observations.

    Args:
      learner: of the policy.
      weights: the learner's parameters, and the statistics of observations.
      obs: (N, ...).
      key: for the actions of all of them.
    """
    network, params = learner.network, weights.params
    vector = stored(network, weights, obs)
    with network.precision():
        head = learner.head(params, vector)
    raw = distributions.sample(network.action_space, head, params["log_std"], key)
    log_prob = distributions.log_prob(network.action_space, head, params["log_std"], raw)
    actions = jax.vmap(
        lambda row: _spaces.to_action(network.action_space, row, network.config.squash)
    )(raw)
    return actions, Drawn(vector, raw, log_prob)


def stored(network: Network, statistics: Statistics, obs: jax.Array) -> jax.Array:
    """(N, ...) what `Network.stored` makes of N observations."""
    rows = jax.vmap(network.stored, in_axes=(0, None, None))
    return rows(obs, statistics.mean, statistics.std)
