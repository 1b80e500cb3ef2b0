"""Tuned settings of evolution for classic control and pixels, one small function each.

Each preset names its source.
"""

from agents.presets.preset import Preset, PresetTable

PRESETS = PresetTable()
_LINEAR = {"hidden": (), "optimizer": "sgd", "rank": 4}
"""For tasks that a linear policy with ten to twenty weights solves (Mania et al. 2018).

SGD is used because Adam takes steps of the same length in every weight, including those that hardly
matter; on the double pendulum it takes several times as long. If fitness is linear in the weights,
a learning rate of sigma^2 moves the mean by sigma; about twice that is used. The noise of such a
narrow matrix has a low rank anyway; a higher r brings it closer to Gaussian noise.
"""


@PRESETS.on("gymnasium/phys2d/CartPole-v1", "gymnasium/CartPole-v1", "gymnax/CartPole-v1")
def _cart_pole() -> Preset:
    return Preset(
        source=(
            "Found here, among 15 settings on seeds 100-109, and seen on 110-115: 475 after 6,900 "
            "steps on the host in the mean, on all of them. Training episodes of 200 steps take "
            "half the seconds, but no longer tell 498 from 500."
        ),
        run={"env_steps": 2_000_000, "target_return": 500.0, "eval_every": 5},
        settings={"population_size": 32, "sigma": 0.8, "learning_rate": 1.0, **_LINEAR},
    )


@PRESETS.on("gymnasium/phys2d/Pendulum-v0", "gymnasium/Pendulum-v1", "gymnax/Pendulum-v1")
def _pendulum() -> Preset:
    return Preset(
        source=(
            "Found here, among some 500 settings on seeds 100-107 of the accelerator's variant, "
            "then 120 on up to 96 seeds from 100 on, and seen on the host on 100-131: -200 after "
            "0.15 to 0.43 M steps on all of them. Groups that share their start states take the "
            "luck of the start out of the fitness, and a quarter of an episode is enough to learn "
            "the swing from. With a population of 32 it takes half the steps, but on 1 to 5 of 24 "
            "seeds, by the settings, it stays at -730, swinging up to one side alone."
        ),
        run={"env_steps": 5_000_000, "target_return": -170.0},
        settings={
            "population_size": 64,
            "group_size": 16,
            "sigma": 0.3,
            "learning_rate": 0.12,
            "rank": 2,
            "optimizer": "sgd",
            "hidden": (32,),
            "activation": "relu",
            "episode_steps": 50,
        },
    )


@PRESETS.on("brax/inverted_pendulum", "gymnasium/InvertedPendulum-v5")
def _inverted_pendulum() -> Preset:
    return Preset(
        source=(
            "Found here, among 16 settings on seeds 100-103, a dozen of them as good, and seen on "
            "104-115: 950 after 6,000 to 18,000 steps on all of them."
        ),
        run={"env_steps": 3_000_000, "target_return": 1000.0, "eval_every": 5},
        settings={
            "population_size": 32,
            "sigma": 0.25,
            "learning_rate": 0.1,
            "squash": "clip",
            **_LINEAR,
        },
    )


@PRESETS.on("brax/inverted_double_pendulum", "gymnasium/InvertedDoublePendulum-v5")
def _inverted_double_pendulum() -> Preset:
    return Preset(
        source=(
            "Found here, among some 230 settings on seeds 100-107, and seen on 108-115: 9100 after "
            "33,000 to 156,000 steps on all of them. With Adam, or a hidden layer, it takes 0.1 to "
            "3 M; without a group that shares its start states some seeds take more than 0.4 M. "
            "Not tuned for Gymnasium's, which starts further from the upright."
        ),
        run={"env_steps": 15_000_000, "target_return": 9000.0},
        settings={
            "population_size": 32,
            "group_size": 32,
            "sigma": 0.3,
            "learning_rate": 0.2,
            "squash": "clip",
            **_LINEAR,
            "rank": 8,
        },
    )


@PRESETS.on("gymnasium/Acrobot-v1")
def _acrobot() -> Preset:
    return Preset(
        source=(
            "Found here, among 26 settings on seeds 100-107, and seen on 108-115: -100 after 2,000 "
            "to 19,000 steps on all of them. Episodes of 500 steps take four times as many."
        ),
        run={"env_steps": 2_000_000, "target_return": -85.0, "eval_every": 5},
        settings={
            "population_size": 24,
            "sigma": 0.9,
            "learning_rate": 1.6,
            "episode_steps": 100,
            **_LINEAR,
        },
    )


@PRESETS.on("gymnasium/MountainCarContinuous-v0")
def _mountain_car_continuous() -> Preset:
    return Preset(
        source=(
            "Found here, among 11 settings on seeds 100-107, and seen on 108-115: 90 after 7,000 "
            "to 17,000 steps on all of them. Without standardised observations none of 4 settings "
            "reached the top, and standing still is the best that is known. It ends near 93; 32 "
            "hidden units, sigma 0.5 and learning rate 0.4 reach 94 from most seeds."
        ),
        run={"env_steps": 1_000_000, "target_return": 90.0, "eval_every": 5},
        settings={
            "population_size": 24,
            "sigma": 0.8,
            "learning_rate": 1.3,
            "episode_steps": 300,
            **_LINEAR,
        },
    )


@PRESETS.on("gymnax/Breakout-MinAtar")
def _breakout() -> Preset:
    return Preset(
        source=(
            "Found here, among 9 settings on seed 100. Sampled actions matter: with the most "
            "likely ones almost all members return the same, and nothing is learned from that."
        ),
        run={"env_steps": 20_000_000, "eval_every": 10, "eval_episodes": 64},
        settings={
            "network": "cnn",
            "hidden": (32,),
            "population_size": 256,
            "episodes_per_member": 4,
            "sample_actions": True,
            "sigma": 0.1,
            "learning_rate": 0.02,
        },
    )
