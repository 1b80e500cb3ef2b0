"""Settings of PPO for environments on the accelerator, with their sources: one small function each.

Most are those of keraJLi/rejax, a PPO in JAX. The networks are those of rejax and of
Stable-Baselines3 (two layers of 64 units) unless a preset says otherwise.
"""

from typing import Any

from agents.presets.ppo_gymnasium import NORMALIZE, SB3
from agents.presets.preset import Preset, PresetTable

PRESETS = PresetTable()
_BRAX = "google/brax: notebooks/training.ipynb, without its reward scaling, tanh and networks"


def _rejax(
    source: str, env_steps: int, num_minibatches: int, activation: str = "tanh", **settings: Any
) -> Preset:
    """A preset of rejax's settings and those that all of its configurations share; they give the
    number of minibatches, not their size."""
    # rejax's vf_coef of 0.5 weights half the squared error. Left out: its clipping of the value,
    # and that it treats the time limit as a termination.
    return Preset(
        {"env_steps": env_steps},
        {
            **SB3,
            "activation": activation,
            "entropy_coefficient": 0.01,
            "value_coefficient": 0.25,
            "normalize_observations": True,
            "minibatch_size": settings["num_envs"] * settings["num_steps"] // num_minibatches,
            **settings,
        },
        source,
    )


@PRESETS.on("gymnax/CartPole-v1")
def _cart_pole() -> Preset:
    return _rejax(
        "keraJLi/rejax: configs/gymnax/cartpole.yaml (commit 4954fbf)",
        100_000,
        5,
        num_envs=5,
        num_steps=100,
        num_epochs=5,
        learning_rate=0.00075,
        normalize_observations=False,
    )


@PRESETS.on("gymnax/Pendulum-v1")
def _pendulum() -> Preset:
    return _rejax(
        "keraJLi/rejax: configs/gymnax/pendulum.yaml (commit 4954fbf)",
        150_000,
        10,
        activation="swish",
        num_envs=100,
        num_steps=100,
        num_epochs=10,
        learning_rate=0.001,
        max_grad_norm=10.0,
        gamma=0.995,
        entropy_coefficient=0.0,
    )


@PRESETS.on("navix/Navix-DoorKey-8x8-v0")
def _door_key() -> Preset:
    return _rejax(
        "keraJLi/rejax: configs/navix/doorkey_8x8.yaml (commit 675ba2b)",
        1_048_576,
        32,
        activation="swish",
        network="mlp",
        num_envs=128,
        num_steps=32,
        num_epochs=2,
        max_grad_norm=10.0,
        gamma=0.95,
        gae_lambda=0.9,
    )


@PRESETS.on("navix/Navix-Dynamic-Obstacles-6x6-Random-v0")
def _dynamic_obstacles() -> Preset:
    return _rejax(
        "keraJLi/rejax: configs/navix/dynamic_obstacles_6x6_random.yaml (commit 886d462)",
        1_048_576,
        8,
        network="mlp",
        num_envs=16,
        num_steps=128,
        num_epochs=16,
        max_grad_norm=5.0,
        gae_lambda=0.99,
    )


_FOUR_ROOMS = {
    "num_envs": 128,
    "num_steps": 32,
    "num_epochs": 2,
    "max_grad_norm": 5.0,
    "gae_lambda": 0.99,
}


@PRESETS.on("navix/Navix-FourRooms-v0")
def _four_rooms() -> Preset:
    source = "keraJLi/rejax: configs/navix/fourrooms.yaml (commit 675ba2b)"
    settings = {**_FOUR_ROOMS, "network": "mlp", "normalize_observations": False}
    return _rejax(source, 1_048_576, 8, activation="swish", **settings)


@PRESETS.on("jumanji/Game2048-v1", "jumanji/Knapsack-v1", "jumanji/Snake-v1")
def _jumanji() -> Preset:
    source = (
        "keraJLi/rejax lists no task of Jumanji: those of its configs/navix/fourrooms.yaml, with "
        "normalised observations; not tuned for this task"
    )
    return _rejax(source, 1_048_576, 8, activation="swish", **_FOUR_ROOMS)


@PRESETS.on("craftax/Craftax-Classic-Symbolic", "craftax/Craftax-Symbolic")
def _craftax() -> Preset:
    # Its learning rate falls to 0 over 1e9 steps, which is constant over what a CPU plays.
    return _rejax(
        "MichaelTMatthews/Craftax_Baselines: ppo.py, with an eighth of its 1024 environments, half "
        "of its 512 units and without its learning rate that falls",
        5_000_000,
        8,
        hidden=(256, 256),
        num_envs=128,
        num_steps=64,
        num_epochs=4,
        learning_rate=0.0002,
        gae_lambda=0.8,
        max_grad_norm=1.0,
        normalize_observations=False,
    )


@PRESETS.on("brax/ant")
def _brax_ant() -> Preset:
    return _rejax(
        "keraJLi/rejax: configs/brax/ant.yaml (commit 886d462)",
        5_242_880,
        16,
        num_envs=64,
        num_steps=64,
        num_epochs=8,
        learning_rate=0.00010838581269344756,
        gamma=0.98,
        gae_lambda=0.8,
    )


@PRESETS.on("brax/hopper")
def _brax_hopper() -> Preset:
    return _rejax(
        "keraJLi/rejax: configs/brax/hopper.yaml (commit 675ba2b)",
        5_242_880,
        2,
        num_envs=32,
        num_steps=32,
        num_epochs=9,
        learning_rate=0.00025674088686342003,
        max_grad_norm=1.0,
        gamma=0.995,
    )


@PRESETS.on("brax/halfcheetah")
def _brax_halfcheetah() -> Preset:
    return _rejax(
        "keraJLi/rejax: configs/brax/halfcheetah.yaml (commit 675ba2b)",
        5_242_880,
        2,
        num_envs=32,
        num_steps=32,
        num_epochs=2,
        learning_rate=0.0017203361125365498,
        max_grad_norm=5.0,
        gae_lambda=0.8,
    )


@PRESETS.on("brax/reacher")
def _brax_reacher() -> Preset:
    return _rejax(
        "keraJLi/rejax: configs/brax/reacher.yaml (commit b33bab4), whose episodes have 50 steps",
        1_048_576,
        64,
        num_envs=128,
        num_steps=128,
        num_epochs=8,
        learning_rate=0.00027520696850790545,
        max_grad_norm=0.1,
        gamma=0.95,
    )


@PRESETS.on("brax/inverted_double_pendulum")
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
    return Preset({"env_steps": 5_000_000}, {**SB3, **settings, **NORMALIZE}, source)


@PRESETS.on("brax/inverted_pendulum")
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
    return Preset({"env_steps": 2_000_000}, {**SB3, **settings}, _BRAX)
