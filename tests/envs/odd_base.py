"""The environment of which `odd_envs`, `odd_spaces` and `wrong_envs` are variants."""

import gymnasium
import numpy as np
from gymnasium import spaces


class Base(gymnasium.Env):
    """10 steps; reward 1 for action equal to the sign of obs[0]."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)
    T = 10

    def _obs(self):
        return self.x

    def _draw(self):
        self.x = self.np_random.uniform(-1, 1, 2).astype(np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        self._draw()
        return self._obs(), {}

    def good(self, action):
        return float(int(action) == int(self.x[0] > 0))

    def step(self, action):
        r = self.good(action)
        self.t += 1
        self._draw()
        return self._obs(), r, self.t >= self.T, False, {}
