"""Networks as users write them, one of each kind.

Each reads an image of (6, 6, 1) and gives two numbers, but for those that are wrong. Run as a
module, this loads the policies in the folders that it is given, named after the kind of their
network, and writes what they earn.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

import agents
import envs
from es_rl.devices import use_cpu_devices


class Linen(linen.Module):
    width: int = 4
    outputs: int = 2

    @linen.compact
    def __call__(self, x):
        x = linen.relu(linen.Conv(self.width, (3, 3), padding="VALID")(x))
        return linen.Dense(self.outputs)(x.ravel())


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(1, 4, (3, 3), padding="VALID", rngs=rngs)
        self.layers = nnx.List([nnx.Linear(64, 2, rngs=rngs), nnx.Linear(2, 2, rngs=rngs)])
        self.calls = nnx.Variable(jnp.zeros(()))

    def __call__(self, x):
        self.calls[...] += 1
        x = nnx.relu(self.conv(x)).ravel()
        for layer in self.layers:
            x = layer(x)
        return x


def init(key, x):
    return [jax.random.normal(key, (x.size, 2)) / 6, {"bias": jnp.zeros(2)}]


def apply(params, x):
    weight, rest = params
    return x.ravel() @ weight + rest["bias"]


class Remembering(linen.Module):
    """Its memory is a dict: the last image, and how often it was called."""

    def initial_memory(self):
        return {"last": jnp.zeros(36), "calls": jnp.zeros(())}

    @linen.compact
    def __call__(self, memory, x):
        outputs = linen.Dense(2)(jnp.concatenate([memory["last"], x.ravel()]))
        return {"last": x.ravel(), "calls": memory["calls"] + 1}, outputs


class Normalising(linen.Module):
    """Has variables beside its parameters."""

    @linen.compact
    def __call__(self, x):
        x = linen.BatchNorm(use_running_average=True)(x.ravel()[None])
        return linen.Dense(2)(x)[0]


class Critic(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(1)(x.ravel())


def of_kind(kind):
    match kind:
        case "linen":
            return Linen()
        case "nnx":
            return Nnx(nnx.Rngs(0))
        case "pair":
            return init, apply
        case "memory":
            return Remembering()
        case "normalising":
            return Normalising()


def returns_of(policy):
    return agents.evaluate(policy, envs.make("image/spot"), episodes=32, seed=1).returns


if __name__ == "__main__":
    use_cpu_devices(2)
    envs.import_module("tests.envs.image_envs")
    for folder in map(Path, sys.argv[1:]):
        policy = agents.load_policy(folder, network=of_kind(folder.name))
        np.save(folder / "returns.npy", returns_of(policy))
