"""A suite of one's own: environments on the accelerator, under names of their own."""

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

import agents
import envs


class Seek:
    """Eight steps left or right on a line that is seen as an image; the right end pays."""

    spec = envs.EnvSpec(
        "line/Seek-v0", spaces.Box(0, 255, (4, 6, 1), np.uint8), spaces.Discrete(2), 8
    )

    def _state(self, place, reward, steps):
        image = jnp.zeros((4, 6, 1), jnp.uint8).at[:, place].set(255)
        no = jnp.zeros((), bool)
        return envs.State(place, image, reward, no, steps >= self.spec.max_episode_steps, steps)

    def reset(self, key):
        return self._state(jax.random.randint(key, (), 0, 5), jnp.float32(0), jnp.int32(0))

    def step(self, state, action, key):
        place = jnp.clip(state.inner + 2 * action - 1, 0, 5)
        return self._state(place, (place == 5).astype(jnp.float32), state.steps + 1)


envs.register_suite("line", make=lambda name: Seek(), list_ids=lambda: ["Seek-v0"])


def make_agent():
    return agents.make("eggroll", envs.make("line/Seek-v0"), population_size=16)
