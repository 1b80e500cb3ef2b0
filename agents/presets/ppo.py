"""Published settings of PPO per environment: one small function each, which names its source.

`ppo` and `sbx_ppo` share the presets of Gymnasium environments. "The zoo" is hyperparams/ppo.yml of
DLR-RM/rl-baselines3-zoo (commit 208b6fd). Settings that it does not name have the defaults of
Stable-Baselines3, with one environment. Its `normalize` sets both our normalize_observations and
normalize_rewards. Always left out: gSDE (`use_sde`, `sde_sample_freq`), `ortho_init`, and clip
ranges that fall, which stay at their initial value. A minibatch larger than the batch becomes the
whole batch, as in the zoo. The zoo's settings for versions v2 to v4 of an environment are used for
the latest version.
"""

from collections.abc import Callable
from typing import Any

from agents.presets.preset import Preset

_Maker = Callable[[], Preset]
_MAKERS: dict[str, _Maker] = {}

_SB3 = {
    "num_envs": 1,
    "num_steps": 2048,
    "num_epochs": 10,
    "minibatch_size": 64,
    "learning_rate": 3e-4,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "clip_range": 0.2,
    "entropy_coefficient": 0.0,
    "value_coefficient": 0.5,
    "max_grad_norm": 0.5,
    "log_std_init": 0.0,
    "hidden": (64, 64),
    "activation": "tanh",
    "normalize_observations": False,
    "normalize_rewards": False,
}
"""The defaults of `stable_baselines3.PPO` 2.9, written out so that our defaults do not apply."""
_NORMALIZE = {"normalize_observations": True, "normalize_rewards": True}
_LOCOMOTION = {"log_std_init": -2.0, "activation": "relu", "hidden": (256, 256)}
"""The `policy_kwargs` that the zoo gives to HalfCheetah, Hopper and Humanoid."""


def ppo_preset(env_id: str) -> Preset:
    """The preset of PPO on an environment, or the agent's defaults if there is none."""
    maker = _MAKERS.get(env_id)
    return maker() if maker else Preset()


def ppo_tuned_ids() -> frozenset[str]:
    """The environments that have a preset."""
    return frozenset(_MAKERS)


def _for(*env_ids: str) -> Callable[[_Maker], _Maker]:
    def register(maker: _Maker) -> _Maker:
        _MAKERS.update(dict.fromkeys(env_ids, maker))
        return maker

    return register


def _zoo(source: str, env_steps: int, **settings: Any) -> Preset:
    return Preset({"env_steps": env_steps}, {**_SB3, **settings}, f"rl-baselines3-zoo: {source}")


@_for("gymnasium/CartPole-v1", "gymnasium/phys2d/CartPole-v1")
def _cart_pole() -> Preset:
    return _zoo(
        "CartPole-v1, whose clip range of 0.2 is held where it falls there",
        100_000,
        num_envs=8,
        num_steps=32,
        minibatch_size=256,
        gae_lambda=0.8,
        gamma=0.98,
        num_epochs=20,
        learning_rate=1e-3,
        anneal_steps=100_000,
    )


@_for("gymnasium/Pendulum-v1", "gymnasium/phys2d/Pendulum-v0")
def _pendulum() -> Preset:
    return _zoo(
        "Pendulum-v1, without its gSDE",
        100_000,
        num_envs=4,
        num_steps=1024,
        gamma=0.9,
        learning_rate=1e-3,
    )


@_for("gymnasium/Acrobot-v1")
def _acrobot() -> Preset:
    return _zoo(
        "Acrobot-v1",
        1_000_000,
        num_envs=16,
        num_steps=256,
        gae_lambda=0.94,
        num_epochs=4,
        **_NORMALIZE,
    )


@_for("gymnasium/MountainCarContinuous-v0")
def _mountain_car_continuous() -> Preset:
    # The zoo's log_std_init of -3.29 is left out: in gSDE it scales noise that is multiplied by
    # features, so the value has no meaning without gSDE.
    return _zoo(
        "MountainCarContinuous-v0, without its gSDE and log_std_init; batch_size 256 of 8 steps",
        20_000,
        num_steps=8,
        minibatch_size=8,
        gamma=0.9999,
        learning_rate=7.77e-5,
        entropy_coefficient=0.00429,
        clip_range=0.1,
        gae_lambda=0.9,
        max_grad_norm=5.0,
        value_coefficient=0.19,
        **_NORMALIZE,
    )


@_for("gymnasium/LunarLander-v3", "gymnasium/LunarLanderContinuous-v3")
def _lunar_lander() -> Preset:
    return _zoo(
        "LunarLander-v2 and LunarLanderContinuous-v3, which are the same",
        1_000_000,
        num_envs=16,
        num_steps=1024,
        gae_lambda=0.98,
        gamma=0.999,
        num_epochs=4,
        entropy_coefficient=0.01,
    )


@_for("gymnasium/BipedalWalker-v3")
def _bipedal_walker() -> Preset:
    return _zoo(
        "BipedalWalker-v3",
        5_000_000,
        num_envs=32,
        gamma=0.999,
        clip_range=0.18,
        **_NORMALIZE,
    )


@_for("gymnasium/HalfCheetah-v5")
def _half_cheetah() -> Preset:
    return _zoo(
        "HalfCheetah-v4",
        1_000_000,
        num_steps=512,
        gamma=0.98,
        learning_rate=2.0633e-5,
        entropy_coefficient=0.000401762,
        clip_range=0.1,
        num_epochs=20,
        gae_lambda=0.92,
        max_grad_norm=0.8,
        value_coefficient=0.58096,
        **_LOCOMOTION,
        **_NORMALIZE,
    )


@_for("gymnasium/Hopper-v5")
def _hopper() -> Preset:
    return _zoo(
        "Hopper-v4",
        1_000_000,
        minibatch_size=32,
        num_steps=512,
        gamma=0.999,
        learning_rate=9.80828e-5,
        entropy_coefficient=0.00229519,
        num_epochs=5,
        gae_lambda=0.99,
        max_grad_norm=0.7,
        value_coefficient=0.835671,
        **_LOCOMOTION,
        **_NORMALIZE,
    )


@_for("gymnasium/Walker2d-v5")
def _walker2d() -> Preset:
    return _zoo(
        "Walker2d-v4",
        1_000_000,
        minibatch_size=32,
        num_steps=512,
        learning_rate=5.05041e-5,
        entropy_coefficient=0.000585045,
        clip_range=0.1,
        num_epochs=20,
        max_grad_norm=1.0,
        value_coefficient=0.871923,
        **_NORMALIZE,
    )


@_for("gymnasium/Ant-v5")
def _ant() -> Preset:
    return _zoo("Ant-v4, which names normalisation alone", 1_000_000, **_NORMALIZE)


@_for("gymnasium/Humanoid-v5")
def _humanoid() -> Preset:
    return _zoo(
        "Humanoid-v4",
        10_000_000,
        num_steps=512,
        minibatch_size=256,
        gamma=0.95,
        learning_rate=3.56987e-5,
        entropy_coefficient=0.00238306,
        clip_range=0.3,
        num_epochs=5,
        gae_lambda=0.9,
        max_grad_norm=2.0,
        value_coefficient=0.431892,
        **_LOCOMOTION,
        **_NORMALIZE,
    )


@_for("gymnasium/Swimmer-v5")
def _swimmer() -> Preset:
    return _zoo(
        "Swimmer-v4",
        1_000_000,
        gamma=0.9999,
        num_envs=4,
        num_steps=1024,
        minibatch_size=256,
        learning_rate=6e-4,
        gae_lambda=0.98,
        **_NORMALIZE,
    )


@_for("gymnasium/InvertedPendulum-v5")
def _inverted_pendulum() -> Preset:
    return _zoo(
        "InvertedPendulum-v2; batch_size 64 of 32 steps",
        1_000_000,
        num_steps=32,
        minibatch_size=32,
        gamma=0.999,
        learning_rate=0.000222425,
        entropy_coefficient=1.37976e-7,
        clip_range=0.4,
        num_epochs=5,
        gae_lambda=0.9,
        max_grad_norm=0.3,
        value_coefficient=0.19816,
        **_NORMALIZE,
    )


@_for("gymnasium/InvertedDoublePendulum-v5")
def _inverted_double_pendulum() -> Preset:
    return _zoo(
        "InvertedDoublePendulum-v2; batch_size 512 of 128 steps",
        1_000_000,
        num_steps=128,
        minibatch_size=128,
        gamma=0.98,
        learning_rate=0.000155454,
        entropy_coefficient=1.05057e-6,
        clip_range=0.4,
        gae_lambda=0.8,
        value_coefficient=0.695929,
        **_NORMALIZE,
    )


_BRAX = "google/brax: notebooks/training.ipynb, without its reward scaling, tanh and networks"


@_for("brax/inverted_double_pendulum")
def _brax_inverted_double_pendulum() -> Preset:
    settings = {
        "num_envs": 64,
        "num_steps": 64,
        "num_epochs": 8,
        "minibatch_size": 512,
        "learning_rate": 1e-3,
        "gae_lambda": 0.9,
    }
    source = (
        "Found here, on seed 100, in favour of PPO: 9290 after 0.6 M steps, where the settings of "
        "Brax's notebook, without its scaling of rewards, earn 1400 after 4 M"
    )
    return Preset({"env_steps": 5_000_000}, {**_SB3, **settings, **_NORMALIZE}, source)


@_for("brax/inverted_pendulum")
def _brax_inverted_pendulum() -> Preset:
    # google/brax, notebooks/training.ipynb (commit 5952601), with the defaults of brax 0.14.2. Its
    # 32 minibatches of 1024 unrolls of 5 steps equal 80 steps of 2048 environments. Its value loss
    # is a quarter of the squared error, and it does not clip gradients. Left out:
    # reward_scaling=10, the tanh around the actions, and the networks (policy 4 x 32, critic 5 x
    # 256, swish), as policy and critic here have the same shape (that of SB3).
    settings = {
        "num_envs": 2048,
        "num_steps": 80,
        "num_epochs": 4,
        "minibatch_size": 5120,
        "gamma": 0.97,
        "clip_range": 0.3,
        "entropy_coefficient": 0.01,
        "value_coefficient": 0.25,
        "max_grad_norm": 1e6,
        "normalize_observations": True,
    }
    return Preset({"env_steps": 2_000_000}, {**_SB3, **settings}, _BRAX)


def _rejax(num_minibatches: int, **settings: Any) -> dict[str, Any]:
    """Settings that all of rejax's configurations share; they give the number of minibatches, not
    their size."""
    # rejax's vf_coef of 0.5 weights half the squared error. Left out: its clipping of the value,
    # and that it treats the time limit as a termination.
    return {
        **_SB3,
        "entropy_coefficient": 0.01,
        "value_coefficient": 0.25,
        "normalize_observations": True,
        "minibatch_size": settings["num_envs"] * settings["num_steps"] // num_minibatches,
        **settings,
    }


@_for("brax/ant")
def _brax_ant() -> Preset:
    settings = _rejax(
        16,
        num_envs=64,
        num_steps=64,
        num_epochs=8,
        learning_rate=0.00010838581269344756,
        gamma=0.98,
        gae_lambda=0.8,
    )
    source = "keraJLi/rejax: configs/brax/ant.yaml (commit 886d462)"
    return Preset({"env_steps": 5_242_880}, settings, source)


@_for("brax/hopper")
def _brax_hopper() -> Preset:
    settings = _rejax(
        2,
        num_envs=32,
        num_steps=32,
        num_epochs=9,
        learning_rate=0.00025674088686342003,
        max_grad_norm=1.0,
        gamma=0.995,
    )
    source = "keraJLi/rejax: configs/brax/hopper.yaml (commit 675ba2b)"
    return Preset({"env_steps": 5_242_880}, settings, source)


@_for("brax/halfcheetah")
def _brax_halfcheetah() -> Preset:
    settings = _rejax(
        2,
        num_envs=32,
        num_steps=32,
        num_epochs=2,
        learning_rate=0.0017203361125365498,
        max_grad_norm=5.0,
        gae_lambda=0.8,
    )
    source = "keraJLi/rejax: configs/brax/halfcheetah.yaml (commit 675ba2b)"
    return Preset({"env_steps": 5_242_880}, settings, source)


@_for("brax/reacher")
def _brax_reacher() -> Preset:
    settings = _rejax(
        64,
        num_envs=128,
        num_steps=128,
        num_epochs=8,
        learning_rate=0.00027520696850790545,
        max_grad_norm=0.1,
        gamma=0.95,
    )
    source = (
        "keraJLi/rejax: configs/brax/reacher.yaml (commit b33bab4), whose episodes have 50 steps"
    )
    return Preset({"env_steps": 1_048_576}, settings, source)
