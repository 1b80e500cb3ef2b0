"""A Gymnasium environment that is registered nowhere, with Dict observations."""

import gymnasium
import numpy as np
from gymnasium import spaces

import agents
import envs


class Thermostat(gymnasium.Env):
    """Hold a room at the temperature that is asked for."""

    observation_space = spaces.Dict(
        {"room": spaces.Box(-50.0, 50.0, (2,), np.float32), "season": spaces.Discrete(3)}
    )
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._wanted, self._room = self.np_random.uniform(-5, 5, 2)
        self._season = int(self.np_random.integers(3))
        return self._seen(), {}

    def step(self, action):
        self._room += 2 * float(action[0]) + 0.3 * (self._season - 1)
        distance = abs(self._room - self._wanted)
        return self._seen(), -distance, False, False, {"is_success": distance < 1}

    def _seen(self):
        room = np.array([self._wanted, self._room], np.float32)
        return {"room": room, "season": self._season}


envs.register(
    "mine/thermostat",
    lambda: envs.from_gymnasium(Thermostat, id="mine/thermostat", max_episode_steps=10),
)


def make_agent():
    return agents.make("eggroll", envs.make("mine/thermostat"), population_size=16, hidden=(4,))
