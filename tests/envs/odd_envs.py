"""Environments as people write them: each is unusual in one way.

Importing the module registers them with Gymnasium, those of `odd_spaces` and `wrong_envs` too:
`es-rl train gymnasium/OldReset-v0 --import tests.envs.odd_envs`.
"""

import socket
import time

import numpy as np
from gymnasium import register, spaces
from gymnasium.wrappers import (
    FlattenObservation,
    FrameStackObservation,
    RecordEpisodeStatistics,
    TimeAwareObservation,
)

from tests.envs import odd_spaces, wrong_envs
from tests.envs.odd_base import Base


class RewardArray0(Base):
    def good(self, action):
        return np.array(super().good(action))


class RewardInt(Base):
    def good(self, action):
        return int(super().good(action))


class DoneNp(Base):
    def step(self, action):
        o, r, d, tr, i = super().step(action)
        return o, np.float32(r), np.bool_(d), np.bool_(tr), i


class NoRenderArg(Base):
    def __init__(self):
        pass


class RenderRaises(Base):
    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self, render_mode=None):
        self.render_mode = render_mode


class FloatFrames(RenderRaises):
    def render(self):
        return np.full((41, 61, 3), 0.8)


class GrayFrames(RenderRaises):
    def render(self):
        return np.full((41, 61), 200, np.uint8)


class RGBA(RenderRaises):
    def render(self):
        return np.full((41, 61, 4), 200, np.uint8)


class FpsNone(RenderRaises):
    metadata = {"render_modes": ["rgb_array"], "render_fps": None}

    def render(self):
        return np.full((40, 60, 3), 200, np.uint8)


class FpsNp(FpsNone):
    metadata = {"render_modes": ["rgb_array"], "render_fps": np.int64(50)}


class Long(Base):
    """Ends by itself after 3000 steps."""

    T = 3000

    def good(self, action):
        return 1.0


class GlobalRandom(Base):
    """np.random.seed at reset and np.random afterwards, as much code does."""

    def reset(self, *, seed=None, options=None):
        np.random.seed(seed)  # noqa: NPY002
        return super().reset(seed=seed)

    def _draw(self):
        self.x = np.random.uniform(-1, 1, 2).astype(np.float32)  # noqa: NPY002

    def good(self, action):
        return float(self.x[0])


class SeedInt32(Base):
    """A simulator in C++ whose seed is an int."""

    def reset(self, *, seed=None, options=None):
        np.int32(seed)
        return super().reset(seed=seed)


class SeedJax(Base):
    def reset(self, *, seed=None, options=None):
        import jax

        self.key = jax.random.PRNGKey(seed)
        return super().reset(seed=seed)


WORLD = {"x": 0.0}


class Shared(Base):
    """A simulator that is global to its process, as PyBullet's default client."""

    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    T = 20

    def reset(self, *, seed=None, options=None):
        WORLD["x"] = 0.0
        self.t = 0
        return np.array([0.0], np.float32), {}

    def step(self, action):
        WORLD["x"] += 1.0
        self.t += 1
        return np.array([WORLD["x"]], np.float32), WORLD["x"], self.t >= self.T, False, {}


class BigOffset(Base):
    """A price around 60,000 that moves by a few; the sign of the last move is what counts."""

    observation_space = spaces.Box(0, np.inf, (1,), np.float64)

    def _draw(self):
        self.x = self.np_random.uniform(-1, 1, 1)

    def _obs(self):
        return 60000 + 3 * self.x


class NaNObs(Base):
    """Unknown values are NaN."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)

    def _obs(self):
        return np.array([self.x[0], np.nan], np.float32)


class SameArray(Base):
    """One buffer for all observations."""

    def __init__(self):
        self.buf = np.zeros(2, np.float32)

    def _obs(self):
        self.buf[:] = self.x
        return self.buf


class BigInfo(Base):
    def step(self, action):
        o, r, d, tr, i = super().step(action)
        return o, r, d, tr, {"frame": np.zeros((500, 500, 3)), "f": lambda: 0}


class Constant(Base):
    def good(self, action):
        return 0.0


class Tiny(Base):
    def good(self, action):
        return 1e-9 * super().good(action)


class Offset(Base):
    def good(self, action):
        return 1e8 + super().good(action)


class Flag(Base):
    """Ends at the first step if `harsh`."""

    def __init__(self, harsh=True):
        self.harsh = harsh

    def step(self, action):
        o, r, d, tr, i = super().step(action)
        return o, 1.0, d or bool(self.harsh), tr, i


class Ragged(Base):
    def _obs(self):
        return [float(v) for v in self.x]


class Slow(Base):
    """Takes a while to make."""

    def __init__(self, seconds=0.0):
        time.sleep(seconds)


class Port(Base):
    """Takes a port of this machine, which nobody else can have meanwhile."""

    def __init__(self, port):
        self.socket = socket.create_server(("127.0.0.1", port))

    def close(self):
        self.socket.close()


class Unseeded(Base):
    def _draw(self):
        self.x = np.random.default_rng().uniform(-1, 1, 2).astype(np.float32)


class NaNAction(Base):
    """What a policy does where NumPy's square root has failed."""

    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def _obs(self):
        return np.array([self.x[0], np.nan if self.t == 2 else 0.0], np.float32)

    def good(self, action):
        return 1.0


for name, cls in {**globals(), **vars(odd_spaces), **vars(wrong_envs)}.items():
    if isinstance(cls, type) and issubclass(cls, Base) and cls is not Base:
        register(
            f"{name}-v0",
            entry_point=f"{cls.__module__}:{name}",
            max_episode_steps=None if name == "Long" else 200,
        )

register("NpLimit-v0", entry_point="tests.envs.odd_envs:SameArray", max_episode_steps=np.int64(50))

register("FloatLimit-v0", entry_point="tests.envs.odd_envs:SameArray", max_episode_steps=10 / 0.2)

register(
    "NpThreshold-v0",
    entry_point="tests.envs.odd_envs:SameArray",
    max_episode_steps=50,
    reward_threshold=np.float32(9),
)


register(
    "DictFlat-v0",
    entry_point="tests.envs.odd_spaces:DictObs",
    max_episode_steps=50,
    additional_wrappers=(FlattenObservation.wrapper_spec(),),
)

register(
    "Frames-v0",
    entry_point="tests.envs.odd_envs:SameArray",
    max_episode_steps=50,
    additional_wrappers=(
        FrameStackObservation.wrapper_spec(stack_size=3),
        RecordEpisodeStatistics.wrapper_spec(),
    ),
)

register(
    "Time-v0",
    entry_point="tests.envs.odd_envs:SameArray",
    max_episode_steps=50,
    additional_wrappers=(TimeAwareObservation.wrapper_spec(),),
)
