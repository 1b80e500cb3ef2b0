"""Names of environments, and what is said of wrong ones."""

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium.wrappers import FrameStackObservation, TransformReward

import agents
import envs
from agents.untrained import untrained_policy
from envs.errors import UserError
from envs.registry import split_id


def test_lists_every_suite():
    ids = envs.list_ids()
    for known in (
        "brax/ant",
        "gymnasium/CartPole-v1",
        "gymnasium/phys2d/CartPole-v1",
        "gymnasium/tabular/CliffWalking-v0",
        "probe/constant_reward",
    ):
        assert known in ids
    assert all(i.startswith("brax/") for i in envs.list_ids("brax"))
    with pytest.raises(ValueError, match="suite='atari': must be one of brax, gymnasium, gymnax"):
        envs.list_ids("atari")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("brax/antt", "did you mean brax/ant"),
        ("cartpole", "did you mean gymnasium/CartPole-v1"),
        ("gymnasium/CartPole", "did you mean gymnasium/CartPole-v1"),
        ("zzz/qqq", "`es-rl envs` lists them all"),
        ("", "unknown environment"),
    ],
)
def test_an_unknown_name_gets_close_matches(name, hint):
    with pytest.raises(ValueError, match=f"unknown environment.*{hint}|{hint}"):
        envs.make(name)


def test_own_environments_can_be_registered_once():
    envs.register("own/probe", lambda **kwargs: envs.make("probe/constant_reward", **kwargs))
    assert "own/probe" in envs.list_ids()
    assert "own/probe" in envs.list_ids("own")
    assert all(name.startswith("own/") for name in envs.list_ids("own"))
    assert envs.make("own/probe", max_episode_steps=3).spec.max_episode_steps == 3
    with pytest.raises(ValueError, match="registered already"):
        envs.register("own/probe", lambda: None)


@pytest.mark.parametrize(
    "wrapped", ["probe/policy_reward", "gymnasium/CartPole-v1", "gymnasium/phys2d/CartPole-v1"]
)
def test_a_registered_environment_keeps_its_name_and_arguments(wrapped):
    made = envs.make(wrapped, max_episode_steps=5)
    name = f"mine/{wrapped}"
    envs.register(name, lambda steps=3, **kwargs: made)
    places = {"workers": 2} if isinstance(made, envs.HostEnv) else {}
    env = envs.make(name, steps=np.int64(4), **places)
    assert (env.spec.id, env.spec.kwargs) == (name, {"steps": 4})
    assert env.spec.max_episode_steps == 5
    assert made.spec.id == wrapped, "what the maker has is left alone"
    assert envs.make(env.spec.id, **env.spec.kwargs).spec == env.spec


def test_a_policy_on_a_registered_environment_is_saved_under_its_name(tmp_path):
    envs.register("mine/saved", lambda steps: envs.make("probe/random_length"))
    env = envs.make("mine/saved", steps=2)
    agent = agents.make("random", env)
    result = agents.train(agent, env_steps=1, eval_episodes=4, out=tmp_path / "run")
    policy = agents.load_policy(tmp_path / "run")
    assert policy.spec == env.spec
    again = envs.make(policy.spec.id, **policy.spec.kwargs)
    returns = agents.evaluate(policy, again, episodes=4).returns
    np.testing.assert_array_equal(returns, result.evaluation.returns)


@pytest.mark.parametrize("maker", [envs.make("probe/constant_reward"), "my_module:MyEnv", None])
def test_what_is_no_maker_is_refused_at_once(maker):
    with pytest.raises(UserError, match="maker=.*: must be a function that builds an environment"):
        envs.register("mine/no_maker", maker)
    assert "mine/no_maker" not in envs.list_ids()


@pytest.mark.parametrize("name", ["", "mine:reacher", "mine/\x1b[2J", "x" * 201])
def test_a_name_that_could_not_be_saved_is_refused_at_once(name):
    with pytest.raises(UserError, match="must be a name such as 'mine/reacher'"):
        envs.register(name, lambda: None)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (None, "returned a NoneType: must be an environment"),
        (object(), "returned a object: must be an environment"),
    ],
)
def test_what_is_no_environment_is_refused(made, says):
    name = f"mine/{type(made).__name__}"
    envs.register(name, lambda: made)
    with pytest.raises(UserError, match=says):
        envs.make(name)


class Wrapper:
    """A user's wrapper, which has all that it does not change from what it wraps."""

    def __init__(self, env):
        self._env = env
        self.spec = env.spec

    def __getattr__(self, name):
        return getattr(self._env, name)


class Fixed:
    """One whose spec cannot be replaced."""

    spec = property(lambda self: envs.make("probe/constant_reward").spec)
    reset = step = print


def test_wrappers_keep_the_name_too_and_others_say_what_they_lack():
    envs.register("mine/wrapper", lambda: Wrapper(envs.make("probe/constant_reward")))
    env = envs.make("mine/wrapper")
    assert (type(env), env.spec.id) == (Wrapper, "mine/wrapper")
    assert env.reset(jax.random.key(0)).steps == 0
    envs.register("mine/fixed", Fixed)
    with pytest.raises(UserError, match="the spec of its Fixed must be an attribute"):
        envs.make("mine/fixed")


class Coin(gymnasium.Env):
    """Guess a coin that is seen; registered nowhere."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    metadata = {"render_modes": ["rgb_array"], "render_fps": 7}  # noqa: RUF012

    def __init__(self, pays=1.0, render_mode=None):
        self._pays, self.render_mode = pays, render_mode

    def _toss(self):
        self._coin = self.np_random.choice([-1.0, 1.0], (1,)).astype(np.float32)
        return self._coin

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._toss(), {}

    def step(self, action):
        reward = self._pays * float((self._coin[0] > 0) == action)
        return self._toss(), reward, False, False, {}

    def render(self):
        return np.zeros((4, 4, 3), np.uint8)


def earned(env, seed=3):
    """The returns of an untrained agent's policy, on a few episodes."""
    with agents.make("eggroll", env, population_size=4, hidden=()) as agent:
        policy = agent.snapshot(agent.init(jax.random.key(seed)))
        return agents.evaluate(policy, env, episodes=4).returns


def test_a_class_of_gymnasiums_is_an_environment_as_it_is():
    env = envs.from_gymnasium(Coin, id="mine/coin", max_episode_steps=5, reward_threshold=5)
    assert (env.spec.id, env.spec.max_episode_steps, env.spec.reward_threshold) == (
        *("mine/coin", 5),
        5.0,
    )
    assert env.spec.frames_per_second == 7
    twice = envs.from_gymnasium(lambda: Coin(pays=2.0), id="mine/twice", max_episode_steps=5)
    np.testing.assert_array_equal(earned(twice), 2 * earned(env))
    # With and without a `render_mode` in the signature.
    for made, frames in ((env, True), (twice, False)):
        single = made.single(render_mode="rgb_array")
        assert (single.render_mode == "rgb_array") == frames
        single.close()


def test_a_maker_may_return_what_gymnasium_has():
    envs.register("mine/own_coin", lambda pays=1.0: Coin(pays))
    env = envs.make("mine/own_coin", pays=3.0, workers=1, step_timeout=5.0)
    assert (env.spec.id, env.spec.kwargs, env.workers) == ("mine/own_coin", {"pays": 3.0}, 1)
    plain = envs.from_gymnasium(Coin, id="mine/coin")
    np.testing.assert_array_equal(earned(env), 3 * earned(plain))


def test_what_gymnasium_does_not_know_is_refused_as_a_factory():
    with pytest.raises(UserError, match="factory='Coin': must be a class"):
        envs.from_gymnasium("Coin", id="mine/coin")


def test_a_suite_of_ones_own():
    names = ["left", "right"]

    def make(name, horizon=8):
        return envs.make("probe/policy_reward", max_episode_steps=horizon)

    envs.register_suite("arms", make=make, list_ids=lambda: names)
    assert envs.list_ids("arms") == ["arms/left", "arms/right"]
    env = envs.make("arms/left", horizon=3)
    assert (env.spec.id, env.spec.kwargs) == ("arms/left", {"horizon": 3})
    assert env.spec.max_episode_steps == 3
    with pytest.raises(UserError, match="did you mean arms/right"):
        envs.make("arms/rigth")
    with pytest.raises(UserError, match="must be of horizon"):
        envs.make("arms/left", horizn=3)
    with pytest.raises(UserError, match="workers=2: arms/left does not step on the host"):
        envs.make("arms/left", workers=2)
    with pytest.raises(UserError, match="suite='arms': is registered already"):
        envs.register_suite("arms", make=make, list_ids=lambda: names)
    with pytest.raises(UserError, match="suite='a/b': must be a name"):
        envs.register_suite("a/b", make=make, list_ids=lambda: names)
    with pytest.raises(UserError, match="list_ids=\\['left'"):
        envs.register_suite("other", make=make, list_ids=names)


class Wall(Coin):
    """Registered by this script alone, as far as a worker knows."""


gymnasium.register("Wall-v0", Wall, max_episode_steps=7, reward_threshold=3.0)


def test_a_factory_may_wrap_what_the_script_has_registered():
    env = envs.from_gymnasium(
        lambda: TransformReward(gymnasium.make("Wall-v0"), lambda reward: 2 * reward),
        id="mine/wall",
    )
    assert (env.spec.max_episode_steps, env.spec.reward_threshold) == (7, 3.0)
    lengths = agents.evaluate(untrained_policy("random", env.spec), env, episodes=2).lengths
    assert lengths.tolist() == [7, 7]
    shorter = envs.from_gymnasium(
        lambda: gymnasium.make("Wall-v0", max_episode_steps=3), id="mine/wall"
    )
    assert shorter.spec.max_episode_steps == 3


def test_atari_and_minigrid_can_be_wrapped_without_importing_their_packages():
    pytest.importorskip("ale_py")
    wrappers = pytest.importorskip("minigrid.wrappers")
    pong = envs.from_gymnasium(
        lambda: FrameStackObservation(gymnasium.make("ALE/Pong-v5", obs_type="grayscale"), 4),
        id="mine/pong",
        max_episode_steps=3,
    )
    grid = envs.from_gymnasium(
        lambda: wrappers.ImgObsWrapper(gymnasium.make("MiniGrid-Empty-5x5-v0")),
        id="mine/grid",
        max_episode_steps=3,
    )
    for env, shape in ((pong, (4, 210, 160)), (grid, (7, 7, 3))):
        assert env.spec.observation_space == gymnasium.spaces.Box(0, 255, shape, np.uint8)
        policy = untrained_policy("random", env.spec)
        assert agents.evaluate(policy, env, episodes=1).lengths.tolist() == [3]


def test_a_registered_class_is_made_with_a_limit_of_steps_though_it_takes_none(caplog):
    envs.register("mine/limited", Coin)
    env = envs.make("mine/limited", max_episode_steps=4, pays=3.0)
    assert env.spec.max_episode_steps == 4
    assert env.spec.kwargs == {"max_episode_steps": 4, "pays": 3.0}
    evaluation = agents.evaluate(untrained_policy("random", env.spec), env, episodes=1)
    assert evaluation.lengths.tolist() == [4]
    assert caplog.records == []
    envs.register("mine/unlimited", lambda: envs.make("probe/recall"))
    with pytest.raises(UserError, match="max_episode_steps=4: must be left out"):
        envs.make("mine/unlimited", max_episode_steps=4)


@pytest.mark.parametrize("name", ["mine/strict_class", "mine/strict_function"])
def test_arguments_that_a_maker_does_not_take_are_named(name):
    envs.register(name, Coin if name.endswith("class") else lambda pays=1.0: Coin(pays))
    with pytest.raises(UserError, match="unexpected keyword argument 'colour': must be of pays"):
        envs.make(name, colour=1)


def test_a_name_may_say_which_module_registers_it_if_its_suite_says_so(tmp_path, monkeypatch):
    (tmp_path / "names_a_maze.py").write_text("NAMES.append('maze')\n")
    monkeypatch.syspath_prepend(tmp_path)
    known = []
    monkeypatch.setattr("builtins.NAMES", known, raising=False)
    monkeypatch.setattr("envs.suites.gymnasium_suite._IMPORTED", [])

    def make(name):
        return envs.make("probe/recall")

    for suite, names_modules in (("modular", True), ("plain", False)):
        envs.register_suite(suite, make=make, list_ids=lambda: known, names_modules=names_modules)
    assert split_id("modular/names_a_maze:maze") == ("names_a_maze", "modular/maze")
    assert split_id("plain/names_a_maze:maze") == (None, "plain/names_a_maze:maze")
    assert split_id("nobody/names_a_maze:maze") == (None, "nobody/names_a_maze:maze")
    with pytest.raises(UserError, match="unknown environment.*brings in your own"):
        envs.make("plain/names_a_maze:maze")
    assert envs.make("modular/names_a_maze:maze").spec.id == "modular/maze"
