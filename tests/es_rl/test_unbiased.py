"""Invariant 5 where matrices are no leaves of two axes: the update is the gradient on average.

Members are evaluated with `perturbed_apply`, so that noise, forward and update have to agree about
which axes are rows, which are columns and which enumerate matrices. (That the view is the one in
which the network uses a kernel is tested in `test_layout`: the update is unbiased in any view.)
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import es_rl
from tests.es_rl.networks import Heads, Layer, first_output, scanned

pytestmark = pytest.mark.slow

POPULATION, SEEDS, RANK = 64, 1000, 2
# The gradient of the smoothed fitness differs from the gradient by a part of the order of sigma^2.
SIGMA = 0.01
TOKENS = jax.random.normal(jax.random.key(7), (3, 4))
IMAGE = jax.random.normal(jax.random.key(7), (5, 5, 2))

NETWORKS = {
    "attention": (nn.MultiHeadDotProductAttention(2), (TOKENS,)),
    "scanned layers": (scanned(Layer), (TOKENS, None)),
    "scanned attention": (scanned(Heads, 2), (TOKENS, None)),
    "convolution": (nn.Sequential([nn.Conv(3, (3, 2), 2), nn.tanh]), (IMAGE,)),
}


@pytest.fixture(autouse=True)
def _broadcasting():
    with jax.numpy_rank_promotion("allow"):  # Flax's own layers broadcast ranks
        yield


def estimates_and_gradient(module, args):
    """One estimate per seed, (SEEDS, *shape) a leaf, and the gradient, for the kernels by path."""
    # With these parameters the gradients of all kernels are of about the same size, so that the
    # noise of none of them hides what is wrong with another.
    params = module.init(jax.random.key(1), *args)
    layout = es_rl.layout(module, params, *args)
    es = es_rl.eggroll(POPULATION, RANK, SIGMA, shaping="none", layout=layout)

    def fitness(output):
        output = first_output(output)
        return jnp.sum(output * jnp.sin(1 + jnp.arange(output.size)).reshape(output.shape))

    def estimate(key):
        noise = es.ask(es.init(key, params))

        def played(member):
            return fitness(es_rl.perturbed_apply(module, params, noise, member, *args))

        return es.gradient(params, noise, jax.vmap(played)(jnp.arange(POPULATION)))

    keys = jax.random.split(jax.random.key(1), SEEDS)
    found = jax.jit(lambda keys: jax.lax.map(estimate, keys, batch_size=50))(keys)
    truth = jax.jit(jax.grad(lambda p: fitness(module.apply(p, *args))))(params)
    return found, truth


def standard_errors(found, truth):
    """By how many of its standard errors the mean of each entry misses the truth, at most."""
    error = found.std(axis=0) / np.sqrt(len(found))
    return float((jnp.abs(found.mean(axis=0) - truth) / error).max())


@pytest.mark.parametrize("name", NETWORKS)
def test_the_mean_of_updates_is_the_gradient(name):
    """Statistical: every mean is within 5 of its standard errors, and wrong gradients are not."""
    found, truth = estimates_and_gradient(*NETWORKS[name])
    within = jax.tree.map(standard_errors, found, truth)
    assert max(jax.tree.leaves(within)) < 5, within
    leaves = zip(jax.tree_util.tree_leaves_with_path(truth), jax.tree.leaves(found), strict=True)
    kernels = [(g, samples) for (path, g), samples in leaves if path[-1].key == "kernel"]
    assert all(gradient.ndim > 2 for gradient, _ in kernels)
    for gradient, samples in kernels:
        flipped = [jnp.flip(gradient, axis) for axis in range(gradient.ndim)]
        scaled = [gradient * np.sqrt(RANK), gradient / np.sqrt(RANK)]
        missed = [standard_errors(samples, wrong) for wrong in [*flipped, *scaled]]
        assert min(missed) > 5, missed
