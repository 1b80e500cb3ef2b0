"""What our optimisers are made of, and what their states tell of the learning rate."""

from typing import Any

import jax
import optax


def at_learning_rate(
    learning_rate: float | optax.Schedule,
) -> optax.GradientTransformationExtraArgs:
    """Scale by minus the learning rate, which the state holds for `learning_rate_of`."""
    return optax.inject_hyperparams(optax.scale_by_learning_rate)(learning_rate)


def learning_rate_of(opt_state: optax.OptState) -> jax.Array | None:
    """The learning rate of the last update; None unless the state holds exactly one.

    A state holds one where `optax.inject_hyperparams` has made the optimiser, or the part of it
    that has a `learning_rate`. What scales the step after that is not part of it, as
    `optax.contrib.reduce_on_plateau` does.
    """

    def is_array(_: Any, value: Any) -> bool:
        return isinstance(value, jax.Array)

    found = optax.tree.get_all_with_path(opt_state, "learning_rate", filtering=is_array)
    return found[0][1] if len(found) == 1 else None
