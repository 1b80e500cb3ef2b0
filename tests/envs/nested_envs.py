"""Environments whose observations are Dicts and Tuples, and some that do not keep to them."""

from collections import OrderedDict

import gymnasium
import numpy as np
from gymnasium import spaces

ROOMS = spaces.Dict(
    {
        "room": spaces.Box(-1, 1, (2, 2), np.float64),
        "season": spaces.Discrete(4, start=1),
        "doors": spaces.MultiBinary(3),
        "pose": spaces.Tuple((spaces.MultiDiscrete([2, 3]), spaces.Box(0, 255, (2,), np.uint8))),
    }
)
LIMIT = 10


class Rooms(gymnasium.Env):
    """A reward of 1 for telling on which side of the room the largest number is."""

    observation_space = ROOMS
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._draw(), {}

    def step(self, action):
        reward = float(int(action) == self.right)
        return self._draw(), reward, False, False, {}

    def _draw(self):
        draw = self.np_random
        room = draw.uniform(-1, 1, (2, 2))
        self.right = int(room[:, 1].sum() > room[:, 0].sum())
        pose = draw.integers([2, 3]), draw.integers(0, 256, 2, np.uint8)
        return {
            "season": int(draw.integers(1, 5)),
            "room": room,
            "doors": draw.integers(0, 2, 3, np.int8),
            "pose": pose,
        }


class Spoilt(Rooms):
    """One of `Rooms` whose observation is spoilt at some step."""

    def __init__(self, at=0, part="missing"):
        self._at, self._part, self._step = at, part, -1

    def reset(self, **kwargs):
        self._step = -1
        return super().reset(**kwargs)

    def _draw(self):
        obs = super()._draw()
        self._step += 1
        if self._step != self._at:
            return obs
        match self._part:
            case "missing":
                del obs["room"]
            case "list":
                return list(obs.values())
            case "shape":
                obs["room"] = np.zeros(3)
            case "category":
                obs["season"] = 5
            case "length":
                obs["pose"] = (*obs["pose"], 0)
            case "inner":
                obs["pose"] = (np.zeros(2), obs["pose"][1])
        return obs


class Unsorted(Rooms):
    """Keys that are not in the order of the alphabet."""

    observation_space = spaces.Dict(OrderedDict(b=spaces.Discrete(2), a=spaces.Box(0, 1, (1,))))

    def _draw(self):
        self.right = int(self.np_random.integers(2))
        return {"a": self.np_random.random(1, np.float32), "b": self.right}


class Turning(Rooms):
    """One of `Rooms` whose action is a turn, of which the sign counts."""

    action_space = spaces.Box(-2, 2, (2,))

    def step(self, action):
        return super().step(action.sum() > 0)


class Mission(Rooms):
    observation_space = spaces.Dict(image=ROOMS["room"], mission=spaces.Text(8))


for _class in (Rooms, Spoilt, Unsorted, Turning, Mission):
    gymnasium.register(f"{_class.__name__}-v0", _class, max_episode_steps=LIMIT)
