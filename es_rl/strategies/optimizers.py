"""Scaling by a learning rate that can be logged, and reading it from an optimiser's state."""

from typing import Any

import jax
import optax


def at_learning_rate(
    learning_rate: float | optax.Schedule,
) -> optax.GradientTransformationExtraArgs:
    """Scale by minus the learning rate, and keep it in the state for `learning_rate_of`."""
    return optax.inject_hyperparams(optax.scale_by_learning_rate)(learning_rate)


def learning_rate_of(opt_state: optax.OptState) -> jax.Array | None:
    """Return the learning rate of the last update; None unless the state holds exactly one.

    A state holds a learning rate if `optax.inject_hyperparams` has made the optimiser, or the part
    of it that takes a `learning_rate`. Later scalings of the step, such as by
    `optax.contrib.reduce_on_plateau`, are not included.
    """

    def is_array(_: Any, value: Any) -> bool:
        return isinstance(value, jax.Array)

    found = optax.tree.get_all_with_path(opt_state, "learning_rate", filtering=is_array)
    return found[0][1] if len(found) == 1 else None
