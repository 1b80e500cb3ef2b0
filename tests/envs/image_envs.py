"""Tiny environments whose observations are images, on the accelerator and on the host.

Somewhere in the image is a bright spot; the right action says on which side. An episode has 8 steps
of reward 1 or 0, so that random actions earn 4.
"""

import copy

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

import envs
from envs.base import EnvSpec, State, time_limited
from envs.errors import NoPicture
from envs.pictures.scene import no_scene

SIDE = 6
LIMIT = 8


class Spot:
    """On the accelerator; (6, 6, 1) uint8."""

    def __init__(self, shape=(SIDE, SIDE, 1)):
        self.spec = EnvSpec(
            id="image/spot",
            observation_space=spaces.Box(0, 255, shape, np.uint8),
            action_space=spaces.Discrete(2),
            max_episode_steps=LIMIT,
            reward_threshold=float(LIMIT),
        )
        self._shape = shape

    def reset(self, key):
        return self._state(key, jnp.float32(0), jnp.int32(0))

    def step(self, state, action, key):
        reward = (action == state.inner).astype(jnp.float32)
        return self._state(key, reward, state.steps + 1)

    def _state(self, key, reward, steps):
        row, column = jax.random.randint(key, (2,), 0, SIDE)
        image = jnp.zeros((SIDE, SIDE), jnp.uint8).at[row, column].set(255)
        ends = time_limited(steps, jnp.zeros((), bool), LIMIT)
        return State(column >= SIDE // 2, image.reshape(self._shape), reward, *ends, steps)

    def render(self, states):
        raise NoPicture("no picture")

    def scene(self, states):
        raise no_scene(self.spec.id)


class HostSpot(gymnasium.Env):
    """The same on the host."""

    observation_space = spaces.Box(0, 255, (SIDE, SIDE, 1), np.uint8)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._draw(), {}

    def step(self, action):
        reward = float(int(action) == self.right)
        return self._draw(), reward, False, False, {}

    def _draw(self):
        row, column = self.np_random.integers(SIDE, size=2)
        self.right = int(column >= SIDE // 2)
        image = np.zeros((SIDE, SIDE, 1), np.uint8)
        image[row, column] = 255
        return image


envs.register("image/spot", Spot)
gymnasium.register("Spot-v0", HostSpot, max_episode_steps=LIMIT)


class AnySpot(HostSpot):
    """The same, its image of another shape of 2 to 4 axes."""

    def __init__(self, shape=(1, SIDE, SIDE, 1)):
        self.observation_space = spaces.Box(0, 255, tuple(shape), np.uint8)

    def _draw(self):
        return super()._draw().reshape(self.observation_space.shape)


gymnasium.register("AnySpot-v0", AnySpot, max_episode_steps=LIMIT)


SAMPLED = [
    spaces.Box(-3, 3, (2, 2, 2), np.int64),
    spaces.Box(0, 200, (3,), np.uint8),
    spaces.Box(-1, 1, (), np.float32),
    spaces.MultiBinary((2, 3)),
    spaces.Box(0, 1, (4,), bool),
]


class Sampled(gymnasium.Env):
    """Observations drawn from one of the spaces above; the reward is the action."""

    action_space = spaces.Box(-1, 1, (1,))

    def __init__(self, number=0):
        self.observation_space = copy.deepcopy(SAMPLED[number])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), float(action[0]), False, False, {}


gymnasium.register("Sampled-v0", Sampled, max_episode_steps=LIMIT)
