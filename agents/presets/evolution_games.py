"""Settings of evolution for games and grid worlds, one small function each.

Each preset names its source.
"""

from agents.presets.preset import Preset, PresetTable

PRESETS = PresetTable()


@PRESETS.on("jumanji/Knapsack-v1")
def _knapsack() -> Preset:
    return Preset(
        source=(
            "Tried here, among 18 settings on seed 100: 15.7 after 13.9 M steps; a smaller sigma "
            "(0.2) and population (512) 14.9 after 12.1 M, random actions 13.5."
        ),
        run={"env_steps": 10_000_000},
        settings={
            "hidden": (),
            "population_size": 2048,
            "rank": 4,
            "sigma": 0.4,
            "learning_rate": 0.1,
            "group_size": 64,
        },
    )


@PRESETS.on("navix/Navix-Dynamic-Obstacles-6x6-Random-v0")
def _dynamic_obstacles() -> Preset:
    return Preset(
        source=(
            "Tried here, among 8 settings on seed 100 alone: 0.44 after 2.3 M steps. The defaults, "
            "a small cnn, earned 0.28 in one run and 0.47 after 5.1 M steps in another: whether it "
            "gains is not clear."
        ),
        run={"env_steps": 10_000_000},
        settings={
            "network": "mlp",
            "hidden": (),
            "rank": 4,
            "sigma": 0.2,
            "learning_rate": 0.05,
            "group_size": 32,
        },
    )


@PRESETS.on("jumanji/Snake-v1", "navix/Navix-FourRooms-v0")
def _drawn_actions() -> Preset:
    return Preset(
        source=(
            "Tried here on seed 100, 7 settings on Snake and 6 on FourRooms, up to 16 M and 6.5 M "
            "steps: none gets beyond random actions. These, which draw their actions, do not "
            "circle: 6.1 on Snake and 0.016 on FourRooms, where greedy ones earn 0.05 and 0."
        ),
        run={"env_steps": 10_000_000},
        settings={"sample_actions": True, "stochastic_evaluation": True},
    )
