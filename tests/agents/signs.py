"""An environment whose observation names the action that pays; its subclasses say what is paid."""

import gymnasium
import numpy as np


class Signs(gymnasium.Env):
    """Shows -1 or 1 at random; action 1 is right for 1, and action 0 for -1."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._steps = 0
        return self._next(), {}

    def _next(self):
        self._seen = self.np_random.choice([-1.0, 1.0], (1,)).astype(np.float32)
        return self._seen

    def _is_right(self, action):
        self._steps += 1
        return bool((self._seen[0] > 0) == action)
