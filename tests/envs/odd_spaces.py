"""Environments with unusual spaces of observations or actions."""

import numpy as np
from gymnasium import spaces

from tests.envs.odd_base import Base


class MD32(Base):
    action_space = spaces.MultiDiscrete([2, 3], dtype=np.int32)
    observation_space = spaces.Box(-1, 1, (2,), np.float32)

    def good(self, action):
        return float(int(action[0]) == int(self.x[0] > 0))


class DiscObs32(Base):
    observation_space = spaces.MultiDiscrete([3, 3], dtype=np.uint8)

    def _obs(self):
        return ((self.x + 1) * 1.49).astype(np.uint8)


class MBAct(Base):
    action_space = spaces.MultiBinary(3)

    def good(self, action):
        return float(action[0])


class MBObs(Base):
    observation_space = spaces.MultiBinary(2)

    def _obs(self):
        return (self.x > 0).astype(np.int8)


class Huge(Base):
    action_space = spaces.Box(-np.finfo(np.float32).max, np.finfo(np.float32).max, (1,), np.float32)

    def good(self, action):
        assert np.isfinite(action).all(), f"action {action}"
        return float(np.clip(action[0], -1, 1)) * np.sign(self.x[0])


class Half(Base):
    action_space = spaces.Box(0, np.inf, (1,), np.float32)

    def good(self, action):
        assert self.action_space.contains(action), action
        return -abs(float(action[0]) - 2 * (self.x[0] > 0))


class ScalarBox(Base):
    action_space = spaces.Box(-1, 1, (), np.float32)

    def good(self, action):
        assert self.action_space.contains(np.asarray(action, np.float32)), repr(action)
        return float(action) * np.sign(self.x[0])


class Disc5(Base):
    action_space = spaces.Discrete(2, start=5)

    def good(self, action):
        assert self.action_space.contains(action)
        return float(int(action) - 5 == int(self.x[0] > 0))


class DictObs(Base):
    observation_space = spaces.Dict(
        pos=spaces.Box(-1, 1, (2,), np.float32), mode=spaces.Discrete(3)
    )

    def _obs(self):
        return {"pos": self.x, "mode": 1}
