"""An environment that was written for MuJoCo Playground."""

import jax
import jax.numpy as jnp
import mujoco
from ml_collections import config_dict
from mujoco import mjx
from mujoco_playground import MjxEnv, State, step

import agents
import envs

XML = """<mujoco><option timestep="0.02"><flag contact="disable"/></option><worldbody><body>
<joint name="slide" type="slide" axis="1 0 0"/><geom size="0.1"/></body></worldbody>
<actuator><motor joint="slide" gear="20"/></actuator></mujoco>"""


class Push(MjxEnv):
    """Push a ball along a rail to the origin."""

    xml_path, action_size = "", 1
    mj_model = mujoco.MjModel.from_xml_string(XML)
    mjx_model = property(lambda self: self._mjx_model)

    def __init__(self):
        super().__init__(config_dict.create(ctrl_dt=0.02, sim_dt=0.02))
        self._mjx_model = mjx.put_model(self.mj_model, impl="jax")

    def reset(self, rng):
        place = jax.random.uniform(rng, (1,), minval=-1, maxval=1)
        data = mjx.make_data(self.mj_model, impl="jax").replace(qpos=place)
        return self._state(data)

    def step(self, state, action):
        return self._state(step(self.mjx_model, state.data, action))

    def _state(self, data):
        reward = -jnp.abs(data.qpos[0])
        return State(data, jnp.concatenate([data.qpos, data.qvel]), reward, jnp.float32(0), {}, {})


envs.register(
    "mine/push", lambda: envs.from_playground(Push(), id="mine/push", max_episode_steps=10)
)


def make_agent():
    return agents.make("eggroll", envs.make("mine/push"), population_size=16, hidden=(4,))
