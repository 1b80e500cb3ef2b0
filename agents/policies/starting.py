"""Starting a training run from the weights of a saved policy."""

from pathlib import Path
from typing import Any

from agents.policies.functions import named_leaves
from agents.policies.network import BUILT_IN_SETTINGS, Network, NetworkConfig, Weights, resolved
from agents.policies.policy import Policy, read_network_config
from envs.errors import UserError

_ACTING = ("squash", "normalize_observations", "action_mask", "stochastic_evaluation")
"""The settings besides the network that change the actions of a policy."""


def network_settings(policy: Policy) -> dict[str, Any]:
    """The settings with which `agents.make` makes an agent that can start from a policy.

    For a policy with a network of the user's, the network itself is not among them.

    Raises:
      UserError: the policy has no network.
    """
    network = _network_of(policy)
    settings = _settings_of(network.config)
    if network.module is None:
        return settings
    return {name: settings[name] for name in _ACTING}


def saved_network_settings(folder: str | Path) -> dict[str, Any]:
    """`network_settings` of the policy in a folder, read without starting JAX.

    Raises:
      UserError: the folder holds no policy, the policy is damaged, or it has no built-in network.
    """
    return _settings_of(read_network_config(folder))


def _settings_of(config: NetworkConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in (*BUILT_IN_SETTINGS, *_ACTING)}


def starting_weights(network: Network, policy: Policy) -> Weights:
    """The weights of a policy, after a check that a network computes the same actions with them.

    Args:
      network: the network of the agent that starts from the weights.
      policy: a policy of any agent with a network.

    Raises:
      UserError: spaces, settings or parameters differ; the message names the first difference.
    """
    theirs = _network_of(policy)
    for name in ("observation_space", "action_space"):
        found, wanted = getattr(theirs, name), getattr(network, name)
        if found != wanted:
            raise UserError(f"initial: its policy has {name} {found}: must be {wanted}")
    # Networks of the user's are compared by their parameters alone.
    own = network.module is not None and theirs.module is not None
    found, wanted = _settings(theirs, own), _settings(network, own)
    for name in wanted:
        if found[name] != wanted[name]:
            raise UserError(
                f"initial: its policy has {name}={found[name]}, and the agent {wanted[name]}: "
                f"must be an agent with {name}={found[name]}"
            )
    _check_params(network, theirs)
    return policy.weights


def _network_of(policy: Policy) -> Network:
    if not isinstance(policy.actor, Network):
        raise UserError(
            f"initial: its policy, of agent {policy.agent}, has no network: must have one"
        )
    return policy.actor


def _settings(network: Network, own: bool) -> dict[str, Any]:
    acting = {name: getattr(network.config, name) for name in _ACTING}
    # Without a mask in the observations the setting changes nothing.
    acting["action_mask"] = network.mask is not None
    if own:
        return acting
    if network.module is not None:
        # The other network is built in, so the names of the two differ already.
        return {"network": network.name, **acting}
    return {**_settings_of(resolved(network.observation_space, network.config)), **acting}


def _check_params(network: Network, theirs: Network) -> None:
    found = {k: list(x.shape) for k, x in named_leaves(theirs.functions.params).items()}
    wanted = {k: list(x.shape) for k, x in named_leaves(network.functions.params).items()}
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            raise UserError(
                f"initial: the parameter {name} of its policy is {found.get(name, 'missing')}: "
                f"must be {wanted.get(name, 'absent')}"
            )
