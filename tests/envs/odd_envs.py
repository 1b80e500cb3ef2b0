"""Environments as people write them: each is wrong, or unusual, in one way.

Importing the module registers them with Gymnasium: `es-rl train gymnasium/OldReset-v0 --import
tests.envs.odd_envs`.
"""

import socket
import time

import gymnasium
import numpy as np
from gymnasium import register, spaces
from gymnasium.wrappers import (
    FlattenObservation,
    FrameStackObservation,
    RecordEpisodeStatistics,
    TimeAwareObservation,
)


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


class OldReset(Base):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0]


class OldReset3(OldReset):
    observation_space = spaces.Box(-1, 1, (3,), np.float32)

    def _draw(self):
        self.x = self.np_random.uniform(-1, 1, 3).astype(np.float32)


class ShortObs(Base):
    """Declares 4 numbers, returns 1."""

    observation_space = spaces.Box(-1, 1, (4,), np.float32)

    def _obs(self):
        return self.x[:1]


class ScalarObs(Base):
    observation_space = spaces.Box(-1, 1, (4,), np.float32)

    def _obs(self):
        return float(self.x[0])


class RewardArray0(Base):
    def good(self, action):
        return np.array(super().good(action))


class RewardInt(Base):
    def good(self, action):
        return int(super().good(action))


class RewardNone(Base):
    def good(self, action):
        return None if self.t == 3 else 1.0


class DoneNp(Base):
    def step(self, action):
        o, r, d, tr, i = super().step(action)
        return o, np.float32(r), np.bool_(d), np.bool_(tr), i


class OldStep(Base):
    def step(self, action):
        o, r, d, tr, i = super().step(action)
        return o, r, d, i


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


class Kw(Base):
    def __init__(self, df, scale=1.0):
        self.df = df


class Constant(Base):
    def good(self, action):
        return 0.0


class Tiny(Base):
    def good(self, action):
        return 1e-9 * super().good(action)


class Offset(Base):
    def good(self, action):
        return 1e8 + super().good(action)


class DictObs(Base):
    observation_space = spaces.Dict(
        pos=spaces.Box(-1, 1, (2,), np.float32), mode=spaces.Discrete(3)
    )

    def _obs(self):
        return {"pos": self.x, "mode": 1}


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


class RewardPair(Base):
    def good(self, action):
        return np.array([0.5, 0.5])


class EndNone(Base):
    def step(self, action):
        o, r, d, tr, i = super().step(action)
        return o, r, d, None, i


class NoInfo(Base):
    def step(self, action):
        o, r, d, tr, i = super().step(action)
        return o, r, d, tr, None


class Missing(Base):
    """A key is missing."""

    def step(self, action):
        return self.x, {}["speed"], False, False, {}


class Unmade(Base):
    def __init__(self, what="speed"):
        self.speed = {}[what]


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


for name, cls in list(globals().items()):
    if isinstance(cls, type) and issubclass(cls, Base) and cls is not Base:
        register(
            f"{name}-v0",
            entry_point=f"tests.envs.odd_envs:{name}",
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
    entry_point="tests.envs.odd_envs:DictObs",
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
