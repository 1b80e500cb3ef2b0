"""An environment that goes wrong on demand; light, as every worker imports it."""

import os
import time
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium import spaces


class Faulty(gymnasium.Env):
    """Earns 1 in each of 20 steps, but goes wrong at step 17 of episodes with certain seeds."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, kind="none", every=4, once=None, pids=None):
        """`every`: seeds divisible by it go wrong; `once`: a file that prevents it the second time;
        `pids`: a folder in which the process leaves a file by the name of its number."""
        self.kind, self.every, self.once = kind, every, once
        if pids is not None:
            (Path(pids) / str(os.getpid())).touch()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.wrong = self.kind != "none" and seed % self.every == 0
        self.steps = 0
        if self.wrong and self.kind == "reset":
            raise ArithmeticError("nothing to start from")
        return np.array([seed % 7, 0.0]), {}

    def step(self, action):
        self.steps += 1
        if self.wrong and self.steps == 17 and not (self.once and self._has_failed()):
            return self.fail()
        return np.array([0.0, self.steps]), 1.0, self.steps == 20, False, {}

    def _has_failed(self):
        """Whether any process has; it has from here on."""
        try:
            Path(self.once).touch(exist_ok=False)
        except FileExistsError:
            return True
        return False

    def fail(self):
        match self.kind:
            case "raise":
                raise ArithmeticError("the sum\nis wrong")
            case "exit":
                os._exit(3)
            case "hang":
                time.sleep(3600)
            case "nan":
                return np.full(2, np.nan), np.nan, False, False, {}
        raise AssertionError(self.kind)


gymnasium.register("Faulty-v0", "tests.envs.faulty:Faulty", max_episode_steps=1000)
