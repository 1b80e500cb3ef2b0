"""Tuned settings of evolution for locomotion and landing, one small function each.

Each preset names its source.
"""

from dataclasses import replace

from agents.presets.preset import Preset, PresetTable

PRESETS = PresetTable()


def _ars(
    source: str,
    *,
    env_steps: int,
    draws: int,
    best: int,
    sigma: float,
    step_size: float,
    reward_offset: float = 0.0,
    sigma_decay: float = 1.0,
) -> Preset:
    """Augmented random search, version 2-t (Mania et al. 2018, arXiv 1803.07055).

    Its linear policy of standardised observations, its plain gradient steps, and its shift of the
    rewards. Its learning rate in our units is 2 x step size x sigma, as it adds differences of
    returns where our estimate has half of them, divided by sigma. Rank 4 is nearly full for such
    narrow matrices.
    """
    return Preset(
        source=f"{source} Augmented random search, Mania et al. 2018.",
        run={"env_steps": env_steps},
        settings={
            "population_size": 2 * draws,
            "top_draws": best,
            "sigma": sigma,
            "sigma_decay": sigma_decay,
            "learning_rate": 2 * step_size * sigma,
            "optimizer": "sgd",
            "rank": 4,
            "hidden": (),
            "squash": "clip",
            "reward_offset": reward_offset,
        },
    )


@PRESETS.on("gymnasium/LunarLander-v3", "gymnasium/LunarLanderContinuous-v3")
def _lunar_lander() -> Preset:
    return Preset(
        source="Found here: 250 (discrete) and 271 (continuous) after 2 M steps.",
        run={"env_steps": 4_000_000, "target_return": 250.0, "eval_every": 5},
        settings={"population_size": 128, "sigma": 0.1, "learning_rate": 0.05},
    )


@PRESETS.on("gymnasium/Swimmer-v5")
def _swimmer() -> Preset:
    return _ars(
        "Found here, of 2 settings on seed 100: 356 after 0.66 M steps. From seeds 0 to 4: 340 "
        "after 0.34 to 0.50 M. ARS has one draw, sigma 0.01 and a step size of 0.02.",
        env_steps=2_000_000,
        draws=8,
        best=4,
        sigma=0.1,
        step_size=0.05,
    )


@PRESETS.on("gymnasium/Hopper-v5")
def _hopper() -> Preset:
    return _ars(
        "Found here, among 9 settings on seeds 100 to 106: 2,800 after 0.36 to 0.55 M steps on all "
        "three seeds that it was tried on; from seeds 0 to 9 after 0.31 to 0.96 M. None of 19 "
        "settings that es-rl tune drew came near it within 0.15 M. With ARS's sigma of 0.025 and "
        "step size of 0.01 it takes 0.5 to 1 M.",
        env_steps=1_000_000,
        draws=8,
        best=4,
        sigma=0.04,
        step_size=0.015,
        reward_offset=-1.0,
        sigma_decay=0.997,
    )


@PRESETS.on("gymnasium/HalfCheetah-v5")
def _half_cheetah() -> Preset:
    return _ars(
        "ARS's own settings, with 8 draws in place of 32: 3,000 after 0.7 to 1.3 M steps on seeds "
        "100 and 101, where 32 draws, of which the best 4 count, reach 2,360 after 1.5 M.",
        env_steps=4_000_000,
        draws=8,
        best=4,
        sigma=0.03,
        step_size=0.02,
    )


@PRESETS.on("gymnasium/Walker2d-v5")
def _walker2d() -> Preset:
    return _ars(
        "ARS's own settings.",
        env_steps=10_000_000,
        draws=40,
        best=30,
        sigma=0.025,
        step_size=0.03,
        reward_offset=-1.0,
    )


@PRESETS.on("gymnasium/Ant-v5")
def _ant() -> Preset:
    return _ars(
        "ARS's own settings; not tried to the end here.",
        env_steps=20_000_000,
        draws=60,
        best=20,
        sigma=0.025,
        step_size=0.015,
        reward_offset=-1.0,
    )


@PRESETS.on("gymnasium/Humanoid-v5")
def _humanoid() -> Preset:
    return _ars(
        "ARS's own settings; not tried to the end here.",
        env_steps=20_000_000,
        draws=230,
        best=230,
        sigma=0.0075,
        step_size=0.02,
        reward_offset=-5.0,
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
