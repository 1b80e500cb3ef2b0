"""Tuned settings per environment: small functions, each with where its numbers come from.

An environment without a preset gets the defaults of the agent's configuration.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from agents.ppo_presets import ppo_preset


@dataclass(frozen=True)
class Preset:
    """How to train on one environment, unless told otherwise."""

    env_steps: int = 10_000_000
    """Budget."""
    target_return: float | None = None
    """Stop when an evaluation reaches it."""
    eval_every: int = 10
    """Generations between evaluations."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Fields of the agent's configuration."""
    source: str = "the agent's defaults, not tuned for this task"
    """Where the settings come from."""


_Maker = Callable[[], Preset]
_EVOLUTION: dict[str, _Maker] = {}


def preset(agent: str, env_id: str) -> Preset:
    """The preset of an agent on an environment, or the defaults where there is none."""
    if agent in ("ppo", "sbx_ppo"):
        published = ppo_preset(env_id)
        if published is not None:
            return Preset(published.env_steps, settings=published.settings, source=published.source)
    found = _EVOLUTION.get(env_id) if agent in ("eggroll", "open_es") else None
    return found() if found else Preset()


def tuned_ids() -> frozenset[str]:
    """The environments that have a preset."""
    return frozenset(_EVOLUTION)


def _for(*env_ids: str) -> Callable[[_Maker], _Maker]:
    def register(maker: _Maker) -> _Maker:
        _EVOLUTION.update(dict.fromkeys(env_ids, maker))
        return maker

    return register


@_for("gymnasium/phys2d/CartPole-v1", "gymnasium/CartPole-v1")
def _cart_pole() -> Preset:
    return Preset(
        source=(
            "Found here, among 5 settings on seeds 100-102: 475 after 9,000 to 36,000 steps on the "
            "host; a population of 512 needs 14,000 to 133,000."
        ),
        env_steps=2_000_000,
        target_return=500.0,
        eval_every=1,
        settings={"population_size": 64, "sigma": 0.3, "learning_rate": 0.1, "hidden": (32,)},
    )


@_for("gymnasium/phys2d/Pendulum-v0", "gymnasium/Pendulum-v1")
def _pendulum() -> Preset:
    return Preset(
        source=(
            "Found here, among some 50 settings on seeds 100-107 of the accelerator's variant, and "
            "seen on 108-123: -200 after 0.2 to 0.48 M steps on all of them. Groups that share "
            "their start states take the luck of the start out of the fitness; without relu, and "
            "episodes cut after 100 steps, most seeds stay near -900."
        ),
        env_steps=5_000_000,
        target_return=-170.0,
        settings={
            "population_size": 32,
            "group_size": 16,
            "sigma": 0.3,
            "learning_rate": 0.1,
            "hidden": (16,),
            "activation": "relu",
            "episode_steps": 100,
        },
    )


@_for("brax/inverted_pendulum", "gymnasium/InvertedPendulum-v5")
def _inverted_pendulum() -> Preset:
    return Preset(
        source="Found here, and seen on seeds 100-102: 1000 after 23,000 to 97,000 steps.",
        env_steps=3_000_000,
        target_return=1000.0,
        eval_every=1,
        settings={"population_size": 256, "sigma": 0.1, "learning_rate": 0.05},
    )


@_for("brax/inverted_double_pendulum", "gymnasium/InvertedDoublePendulum-v5")
def _inverted_double_pendulum() -> Preset:
    return Preset(
        source=(
            "Found here, among 6 settings on seed 100: 9355 after 1.1 M steps; no hidden layer "
            "stays near 1000, two of 64 units take ten times as long. Observations are angles and "
            "clipped velocities; standardising them slowed it down."
        ),
        env_steps=15_000_000,
        target_return=9000.0,
        settings={
            "population_size": 128,
            "sigma": 0.2,
            "learning_rate": 0.1,
            "hidden": (32,),
            "normalize_observations": False,
        },
    )


@_for("gymnasium/Acrobot-v1")
def _acrobot() -> Preset:
    return Preset(
        source=(
            "Found here, among 19 settings on seeds 100-105, and seen on 106-115: -100 after 4,000 "
            "to 70,000 steps. A larger population, or episodes of 500 steps, take twice as many."
        ),
        env_steps=2_000_000,
        target_return=-85.0,
        eval_every=1,
        settings={
            "population_size": 24,
            "sigma": 0.3,
            "learning_rate": 0.2,
            "hidden": (32,),
            "episode_steps": 200,
        },
    )


@_for("gymnasium/MountainCarContinuous-v0")
def _mountain_car_continuous() -> Preset:
    return Preset(
        source=(
            "Found here, among 2 settings on seeds 100-102: 90 after 64,000 to 155,000 steps. "
            "Without a sigma this wide nobody reaches the top, and standing still is the best that "
            "is known."
        ),
        env_steps=1_000_000,
        target_return=94.0,
        eval_every=1,
        settings={"population_size": 64, "sigma": 0.5, "learning_rate": 0.1, "hidden": (32,)},
    )


@_for("gymnasium/LunarLander-v3", "gymnasium/LunarLanderContinuous-v3")
def _lunar_lander() -> Preset:
    return Preset(
        source="Found here: 250 (discrete) and 271 (continuous) after 2 M steps.",
        env_steps=4_000_000,
        target_return=250.0,
        eval_every=5,
        settings={"population_size": 128, "sigma": 0.1, "learning_rate": 0.05},
    )


@_for("gymnasium/Swimmer-v5")
def _swimmer() -> Preset:
    return Preset(
        source=(
            "A linear policy, as ARS has it (Mania et al. 2018); population and sigma found here."
        ),
        env_steps=4_000_000,
        target_return=340.0,
        settings={
            "population_size": 32,
            "sigma": 0.1,
            "learning_rate": 0.02,
            "hidden": (),
            "squash": "clip",
        },
    )


@_for(
    "gymnasium/HalfCheetah-v5",
    "gymnasium/Hopper-v5",
    "gymnasium/Walker2d-v5",
    "gymnasium/Ant-v5",
)
def _mujoco_locomotion() -> Preset:
    return Preset(
        source="Found here on HalfCheetah; not tuned for the others.",
        settings={"population_size": 128, "sigma": 0.05, "learning_rate": 0.02},
    )


@_for("brax/hopper", "brax/ant", "brax/halfcheetah")
def _brax_locomotion() -> Preset:
    return Preset(
        source=(
            "The EGGROLL paper's selected settings for Brax ant (arXiv 2511.16652, 3 x 256 "
            "units, Adam 0.01 and sigma 0.05, both decaying by 0.9995 a generation), at a "
            "quarter of its population. Chosen for hopper and halfcheetah too, which it does "
            "not list."
        ),
        env_steps=50_000_000,
        settings={
            "population_size": 512,
            "sigma": 0.05,
            "sigma_decay": 0.9995,
            "learning_rate": 0.01,
            "learning_rate_decay": 0.9995,
            "hidden": (256, 256, 256),
            "activation": "layer_norm_relu",
        },
    )
