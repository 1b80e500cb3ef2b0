"""Tuned settings of evolution for locomotion and landing, one small function each.

Each preset names its source.
"""

from dataclasses import replace

from agents.presets.preset import Preset, PresetTable

PRESETS = PresetTable()


@PRESETS.on("gymnasium/LunarLander-v3", "gymnasium/LunarLanderContinuous-v3")
def _lunar_lander() -> Preset:
    return Preset(
        source="Found here: 250 (discrete) and 271 (continuous) after 2 M steps.",
        run={"env_steps": 4_000_000, "target_return": 250.0, "eval_every": 5},
        settings={"population_size": 128, "sigma": 0.1, "learning_rate": 0.05},
    )


@PRESETS.on("gymnasium/Swimmer-v5")
def _swimmer() -> Preset:
    return Preset(
        source=(
            "A linear policy, as ARS has it (Mania et al. 2018); population and sigma found here."
        ),
        run={"env_steps": 4_000_000, "target_return": 340.0},
        settings={
            "population_size": 32,
            "sigma": 0.1,
            "learning_rate": 0.02,
            "hidden": (),
            "squash": "clip",
        },
    )


@PRESETS.on(
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


@PRESETS.on("brax/hopper", "brax/ant")
def _brax_locomotion() -> Preset:
    return Preset(
        source=(
            "The EGGROLL paper's selected settings for Brax ant (arXiv 2511.16652, 3 x 256 "
            "units, Adam 0.01 and sigma 0.05, both decaying by 0.9995 a generation), at a "
            "quarter of its population. Chosen for hopper too, which it does not list."
        ),
        run={"env_steps": 50_000_000},
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


@PRESETS.on("brax/halfcheetah")
def _brax_halfcheetah() -> Preset:
    ant = _brax_locomotion()
    return replace(
        ant,
        source=(
            f"{ant.source} For halfcheetah, whose episodes always last 1000 steps, an eighth: a "
            "generation then takes half a minute on 2 cores."
        ),
        settings={**ant.settings, "population_size": 256},
    )
