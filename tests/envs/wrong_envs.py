"""Environments that break Gymnasium's interface, raise, or cannot be made as others are."""

import numpy as np
from gymnasium import spaces

from tests.envs.odd_base import Base


class OldReset(Base):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0]


class OldReset3(OldReset):
    observation_space = spaces.Box(-1, 1, (3,), np.float32)

    def _draw(self):
        self.x = self.np_random.uniform(-1, 1, 3).astype(np.float32)


class OldStep(Base):
    def step(self, action):
        o, r, d, tr, i = super().step(action)
        return o, r, d, i


class NoInfo(Base):
    def step(self, action):
        o, r, d, tr, i = super().step(action)
        return o, r, d, tr, None


class ShortObs(Base):
    """Declares 4 numbers, returns 1."""

    observation_space = spaces.Box(-1, 1, (4,), np.float32)

    def _obs(self):
        return self.x[:1]


class ScalarObs(Base):
    observation_space = spaces.Box(-1, 1, (4,), np.float32)

    def _obs(self):
        return float(self.x[0])


class LateShortObs(Base):
    """Right at first, then of another length."""

    def _obs(self):
        return self.x if self.t < 3 else self.x[:1]


class FloatsForInts(Base):
    observation_space = spaces.MultiDiscrete([3, 3])

    def _obs(self):
        return np.array([0.7, 1.2])


class NoCategory(Base):
    observation_space = spaces.Discrete(3)

    def _obs(self):
        return 3


class RewardNone(Base):
    def good(self, action):
        return None if self.t == 3 else 1.0


class RewardPair(Base):
    def good(self, action):
        return np.array([0.5, 0.5])


class EndNone(Base):
    def step(self, action):
        o, r, d, tr, i = super().step(action)
        return o, r, d, None, i


class Missing(Base):
    """A key is missing."""

    def step(self, action):
        return self.x, {}["speed"], False, False, {}


class Unmade(Base):
    def __init__(self, what="speed"):
        self.speed = {}[what]


class Kw(Base):
    def __init__(self, df, scale=1.0):
        self.df = df
