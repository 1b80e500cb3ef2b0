"""The noise of a transformer: 4 layers of width 256, 512 members, counted from shapes alone."""

import jax
import jax.numpy as jnp
import pytest

import es_rl
from tests.es_rl.networks import Block, Transformer, scanned

POPULATION, WIDTH, LAYERS = 512, 256, 4
MODULES = {"dense general": Transformer(LAYERS), "scanned": scanned(Block, LAYERS)}


def noise_bytes(es, params):
    """The memory that the noise of a generation takes."""

    def ask(key, params):
        return es.ask(es.init(key, params)).leaves

    noise = jax.eval_shape(ask, jax.eval_shape(jax.random.key, 0), params)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(noise))


@pytest.mark.parametrize(("name", "megabytes"), [("dense general", 1096), ("scanned", 3235)])
def test_low_rank_noise_takes_less_than_a_thirtieth_of_full_noise(name, megabytes):
    """30.2 MB, where full noise for the leaves of three or more axes takes `megabytes`."""
    with jax.numpy_rank_promotion("allow"):  # Flax's own layers broadcast ranks
        module, example = MODULES[name], (jax.ShapeDtypeStruct((8, WIDTH), jnp.float32), None)
        params = jax.eval_shape(module.init, jax.eval_shape(jax.random.key, 0), *example)
        layout = es_rl.layout(module, params, *example)
    low = es_rl.eggroll(POPULATION, rank=1, layout=layout)
    full = es_rl.eggroll(POPULATION, rank=1, layout=layout, full_rank="tensors")
    found = {es: noise_bytes(es, params) for es in (low, full)}
    assert found[low] < found[full] / 30
    assert found[low] / 1e6 == pytest.approx(30.2, abs=0.05)
    assert found[full] / 1e6 == pytest.approx(megabytes, abs=0.5)
    for es, taken in found.items():
        numbers = sum(leaf.numbers for leaf in es_rl.describe(es, params).leaves)
        assert taken == 4 * es.num_draws * numbers
