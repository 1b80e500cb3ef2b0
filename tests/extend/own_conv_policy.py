"""A convolutional policy, as a Flax linen module, on images."""

from flax import linen as nn

import agents
import envs
from tests.extend import own_suite as own_suite


class Eyes(nn.Module):
    outputs: int

    @nn.compact
    def __call__(self, image):  # (4, 6, 1), from 0 to 1
        x = nn.relu(nn.Conv(4, (3, 3))(image))
        return nn.Dense(self.outputs)(x.reshape(-1))


def network():
    return Eyes(agents.num_outputs(envs.make("line/Seek-v0").spec.action_space))


def make_agent():
    return agents.make("eggroll", envs.make("line/Seek-v0"), population_size=32, network=network())
