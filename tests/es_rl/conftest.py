"""The engine is held to more than the rest: implicit broadcasting of ranks is an error."""

import jax
import pytest


@pytest.fixture(autouse=True)
def _strict():
    with jax.numpy_rank_promotion("raise"):
        yield
