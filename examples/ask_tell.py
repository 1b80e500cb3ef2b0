"""The engine alone, without an environment: train a network that has no useful gradient.

    python examples/ask_tell.py

Its neurons are steps (0 or 1) and its fitness is the accuracy on two interleaved spirals, so that
every gradient is zero. Evolution needs neither of them to be smooth.
"""

import jax
import jax.numpy as jnp
import optax
import tyro
from flax import linen as nn

import es_rl


class StepNetwork(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = jnp.heaviside(nn.Dense(32)(x), 0.0)
        return nn.Dense(1)(x)[..., 0] > 0


def spirals(key, points):
    """Points (n, 2) on two arms, and which arm each is on (n,)."""
    turn = jax.random.uniform(key, (points,), minval=0.5, maxval=5.0)
    arm = jnp.arange(points) % 2
    angle = turn + jnp.pi * arm
    return turn[:, None] * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1), arm == 1


def main(generations: int = 150, population: int = 256, seed: int = 0):
    network = StepNetwork()
    x, label = spirals(jax.random.key(1), 256)
    es = es_rl.eggroll(population, sigma=0.2, optimizer=optax.adam(0.05))
    state = es.init(jax.random.key(seed), network.init(jax.random.key(seed), x))

    @jax.jit
    def generation(state):
        noise = es.ask(state)

        def fitness(member):
            return jnp.mean(es_rl.perturbed_apply(network, state.params, noise, member, x) == label)

        return es.tell(state, noise, jax.vmap(fitness)(jnp.arange(population)))

    new_x, new_label = spirals(jax.random.key(2), 2048)
    for number in range(generations + 1):
        if number % 30 == 0:
            accuracy = jnp.mean(network.apply(state.params, new_x) == new_label)
            print(f"generation {number:3}: accuracy on new points {accuracy:.1%}")
        state, _ = generation(state)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
