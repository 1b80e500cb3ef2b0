"""An environment that was written for gymnax."""

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces

import agents
import envs


@struct.dataclass
class Params:
    max_steps_in_episode: int = 12


class Chase(environment.Environment):
    """Stay beside a target that walks at random on a line."""

    def step_env(self, key, state, action, params):
        gap = state[0] + action - 1 - jax.random.randint(key, (), -1, 2)
        state = jnp.stack([gap, state[1] + 1])
        over = (jnp.abs(gap) > 5) | (state[1] >= params.max_steps_in_episode)
        return self.get_obs(state), state, -jnp.abs(gap).astype(float), over, {}

    def reset_env(self, key, params):
        state = jnp.stack([jax.random.randint(key, (), -3, 4), 0])
        return self.get_obs(state), state

    def get_obs(self, state):
        return state[:1].astype(float)

    def action_space(self, params):
        return spaces.Discrete(3)

    def observation_space(self, params):
        return spaces.Box(-6, 6, (1,))


envs.register("mine/chase", lambda: envs.from_gymnax(Chase(), Params(), id="mine/chase"))


def make_agent():
    return agents.make("eggroll", envs.make("mine/chase"), population_size=16, hidden=(4,))
