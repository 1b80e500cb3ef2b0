"""Masks of legal actions, which come with observations.

If an environment's observations are a Dict with a part "action_mask" (the name that PettingZoo and
Gymnasium use), this part says which actions are legal: one number for each category of each
dimension of the action space, 1 if it is legal and 0 if not. Agents receive such an observation as
a flat vector, in which the mask keeps its place.
"""

import jax
import jax.numpy as jnp
from gymnasium import spaces

from agents.policies import spaces as _spaces
from envs.base import EnvSpec
from envs.errors import UserError
from envs.host.nested import leaves_of

PART = "action_mask"
"""The key of the mask in a Dict observation."""
_ILLEGAL = -1e30
"""The logit of an illegal action. It is finite, so that an observation that forbids every action
has no logits of NaN; all actions are then equally likely."""


def mask_of(spec: EnvSpec) -> slice | None:
    """Where the mask of legal actions is in a flat observation; None if there is none.

    Raises:
      UserError: the mask has another number of entries than the action space has categories.
    """
    raw, action_space = spec.raw_observation_space, spec.action_space
    if not isinstance(raw, spaces.Dict) or not isinstance(action_space, _spaces.Categorical):
        return None
    first, wanted = 0, _spaces.num_outputs(action_space)
    for path, leaf in leaves_of(raw):
        size = spaces.flatdim(leaf)
        if path == (PART,):
            if not isinstance(leaf, spaces.Box | spaces.MultiBinary) or size != wanted:
                raise UserError(
                    f"env={spec.id!r}: observation_space['{PART}'] is {leaf}: must be MultiBinary "
                    f"or Box of {wanted} numbers, one for each category of {action_space}, or "
                    f"action_mask must be false"
                )
            return slice(first, first + size)
        first += size
    return None


def legal(logits: jax.Array, vector: jax.Array, mask: slice | None) -> jax.Array:
    """Logits (num_outputs,) of which those of illegal actions are so low that no action is drawn
    from them.

    Args:
      logits: (num_outputs,) the outputs of a network.
      vector: (d,) the flat observation.
      mask: where the mask is in the vector; None if all actions are legal.
    """
    return logits if mask is None else jnp.where(vector[mask] > 0.5, logits, _ILLEGAL)


def standardized_entries(vector: jax.Array, mask: slice | None) -> jax.Array:
    """The entries (d - mask,) of a flat observation (d,) that are standardised: not the mask."""
    if mask is None:
        return vector
    return jnp.concatenate([vector[: mask.start], vector[mask.stop :]])


def with_mask(entries: jax.Array, vector: jax.Array, mask: slice | None) -> jax.Array:
    """Put the mask of a flat observation (d,) back to its place among the entries (d - mask,)."""
    if mask is None:
        return entries
    return jnp.concatenate([entries[: mask.start], vector[mask], entries[mask.start :]])
