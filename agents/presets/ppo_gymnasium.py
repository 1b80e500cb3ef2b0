"""Published settings of PPO on Gymnasium's environments: one small function each.

`ppo` and `sbx_ppo` share the presets of Gymnasium environments. "The zoo" is hyperparams/ppo.yml of
DLR-RM/rl-baselines3-zoo (commit 208b6fd). Settings that it does not name have the defaults of
Stable-Baselines3, with one environment. Its `normalize` sets both our normalize_observations and
normalize_rewards. Always left out: gSDE (`use_sde`, `sde_sample_freq`), `ortho_init`, and clip
ranges that fall, which stay at their initial value. A minibatch larger than the batch becomes the
whole batch, as in the zoo. The zoo's settings for versions v2 to v4 of an environment are used for
the latest version.
"""

from typing import Any

from agents.presets.preset import Preset, PresetTable

PRESETS = PresetTable()

SB3 = {
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
NORMALIZE = {"normalize_observations": True, "normalize_rewards": True}
_LOCOMOTION = {"log_std_init": -2.0, "activation": "relu", "hidden": (256, 256)}
"""The `policy_kwargs` that the zoo gives to HalfCheetah, Hopper and Humanoid."""


def _zoo(source: str, env_steps: int, **settings: Any) -> Preset:
    return Preset({"env_steps": env_steps}, {**SB3, **settings}, f"rl-baselines3-zoo: {source}")


@PRESETS.on("gymnasium/CartPole-v1", "gymnasium/phys2d/CartPole-v1")
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


@PRESETS.on("gymnasium/Pendulum-v1", "gymnasium/phys2d/Pendulum-v0")
def _pendulum() -> Preset:
    return _zoo(
        "Pendulum-v1, without its gSDE",
        100_000,
        num_envs=4,
        num_steps=1024,
        gamma=0.9,
        learning_rate=1e-3,
    )


@PRESETS.on("gymnasium/Acrobot-v1")
def _acrobot() -> Preset:
    return _zoo(
        "Acrobot-v1",
        1_000_000,
        num_envs=16,
        num_steps=256,
        gae_lambda=0.94,
        num_epochs=4,
        **NORMALIZE,
    )


@PRESETS.on("gymnasium/MountainCarContinuous-v0")
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
        **NORMALIZE,
    )


@PRESETS.on("gymnasium/LunarLander-v3", "gymnasium/LunarLanderContinuous-v3")
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


@PRESETS.on("gymnasium/BipedalWalker-v3")
def _bipedal_walker() -> Preset:
    return _zoo(
        "BipedalWalker-v3",
        5_000_000,
        num_envs=32,
        gamma=0.999,
        clip_range=0.18,
        **NORMALIZE,
    )


@PRESETS.on("gymnasium/HalfCheetah-v5")
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
        **NORMALIZE,
    )


@PRESETS.on("gymnasium/Hopper-v5")
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
        **NORMALIZE,
    )


@PRESETS.on("gymnasium/Walker2d-v5")
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
        **NORMALIZE,
    )


@PRESETS.on("gymnasium/Ant-v5")
def _ant() -> Preset:
    return _zoo("Ant-v4, which names normalisation alone", 1_000_000, **NORMALIZE)


@PRESETS.on("gymnasium/Humanoid-v5")
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
        **NORMALIZE,
    )


@PRESETS.on("gymnasium/Swimmer-v5")
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
        **NORMALIZE,
    )


@PRESETS.on("gymnasium/InvertedPendulum-v5")
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
        **NORMALIZE,
    )


@PRESETS.on("gymnasium/InvertedDoublePendulum-v5")
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
        **NORMALIZE,
    )
