"""A policy as a Flax NNX module."""

from flax import nnx

import agents
import envs


class Layers(nnx.Module):
    def __init__(self, inputs, outputs, rngs):
        self.first = nnx.Linear(inputs, 8, rngs=rngs)
        self.second = nnx.Linear(8, outputs, rngs=rngs)

    def __call__(self, obs):
        return self.second(nnx.tanh(self.first(obs)))


def network():
    return Layers(1, 2, nnx.Rngs(1))


def make_agent():
    env = envs.make("probe/policy_reward")
    return agents.make("eggroll", env, population_size=32, network=network())
