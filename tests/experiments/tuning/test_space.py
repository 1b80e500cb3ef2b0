"""Search spaces: what is drawn goes together, and files are checked."""

import itertools
import random

import pytest

from agents.presets.evolution import tuned_ids
from agents.presets.ppo import ppo_tuned_ids
from agents.registry import configure, preset
from envs.errors import UserError
from experiments.tuning.space import load

CART = "gymnasium/phys2d/CartPole-v1"
DOUBLE = "brax/inverted_double_pendulum"


def random_draw(generator):
    def draw(dimension):
        if dimension.choices:
            return generator.choice(dimension.choices)
        if dimension.draws_whole_numbers:
            return generator.randint(dimension.low, dimension.high)
        return generator.uniform(dimension.low, dimension.high)

    return draw


FIXED = {
    "eggroll": [
        {},
        {"population_size": 90, "noise_reuse": 6},
        {"noise_reuse": 0},
        {"noise_reuse": 8},
        {"top_draws": 2},
        {"group_size": 2},
        {"optimizer": "adam"},
    ],
    "open_es": [{}],
    "ppo": [{}, {"num_envs": 12}, {"num_envs": 3, "num_steps": 7}],
    "sbx_ppo": [{}],
}


@pytest.mark.parametrize("agent", FIXED)
def test_what_is_drawn_goes_together_whatever_is_fixed(agent):
    # Otherwise trials would be lost to settings that an agent refuses.
    generator = random.Random(0)
    for fixed, env in itertools.product(FIXED[agent], (CART, DOUBLE)):
        space = load(None, agent).without(fixed)
        base = space.fitted({**vars(configure(agent, env)), **fixed})
        assert configure(agent, env, **base)
        seen = set()
        for _ in range(300):
            drawn = space.draw(random_draw(generator), base)
            assert configure(agent, env, **drawn)
            seen.add(tuple(drawn.values()))
            assert all(drawn[name] == base[name] for name in base if name not in space.settings)
        assert len(seen) > 250


def test_learning_rates_of_sgd_are_multiples_of_sigma_squared():
    space = load(None, "eggroll").without(["optimizer", "sigma"])
    base = vars(configure("eggroll", CART, optimizer="sgd", sigma=0.1))
    drawn = space.draw(lambda d: d.choices[0] if d.choices else 2.0, base)
    assert drawn["learning_rate"] == pytest.approx(0.02)
    base = vars(configure("eggroll", CART, optimizer="adam", sigma=0.1))
    drawn = space.draw(lambda d: d.choices[0] if d.choices else 0.2, base)
    assert drawn["learning_rate"] == 0.2


@pytest.mark.parametrize("agent", FIXED)
def test_what_is_said_to_have_been_drawn_gives_the_preset(agent):
    # The sampler would otherwise learn that the first trial had other settings.
    space = load(None, agent)
    ids = tuned_ids() if agent in ("eggroll", "open_es") else ppo_tuned_ids()
    for env in ids:
        settings = vars(configure(agent, env))
        drawn = space.drawn(settings)
        assert space.fitted(settings) == settings
        dimensions = {each.name: each for each in space.dimensions}
        for name, value in drawn.items():
            each = dimensions[name]
            assert each.value(value, settings) == pytest.approx(settings[each.setting])
        assert len(drawn) > len(space.settings) // 2
    settings = vars(configure("eggroll", CART))
    assert load(None, "eggroll").drawn(settings)["learning_rate (optimizer = sgd)"] == (
        pytest.approx(1 / 0.8**2)
    )
    assert preset("eggroll", CART).settings["sigma"] == 0.8


def test_a_setting_whose_condition_does_not_hold_has_the_default():
    space = load(None, "eggroll")
    base = vars(configure("eggroll", CART, top_draws=4))
    choices = {"group_size": 0.5, "population_size": 32}
    drawn = space.draw(lambda d: choices.get(d.setting, d.choices[0] if d.choices else d.low), base)
    assert drawn["group_size"] == 16
    assert drawn["top_draws"] is None


BAD = {
    "sgima": ("[sgima]\nlow = 1\nhigh = 2", "did you mean sigma?"),
    "field": ("[sigma]\nlow = 1\nhigh = 2\nlogg = true", "did you mean log?"),
    "empty": ("", "is empty: must have"),
    "no table": ("sigma = 0.1", "sigma: must be a table"),
    "both": ("[sigma]\nlow = 1\nhigh = 2\nchoices = [1]", "must have either choices, or low"),
    "neither": ("[sigma]\nlog = true", "must have either choices, or low"),
    "half": ("[sigma]\nlow = 1", "must have both low and high"),
    "order": ("[sigma]\nlow = 2\nhigh = 1", "must be less than high"),
    "log of 0": ("[sigma]\nlow = 0\nhigh = 1\nlog = true", "must be greater than 0"),
    "text": ('[sigma]\nlow = "a"\nhigh = 1', "low must be a number"),
    "whole": ("[rank]\nlow = 1.5\nhigh = 2", "low must be a whole number"),
    "choice": ('[shaping]\nchoices = ["zscor"]', "choices must be one of zscore"),
    "no choices": ("[shaping]\nchoices = []", "choices must be a list"),
    "alike": ("[rank]\nchoices = [1, 1]", "choices must be different"),
    "range of texts": ("[shaping]\nlow = 1\nhigh = 2", "is no number: must have choices"),
    "when": ("[rank]\nchoices = [1]\nwhen = { sgima = 1 }", "did you mean sigma?"),
    "times": ('[sigma]\nchoices = [1.0]\ntimes = ["rnak"]', "did you mean rank?"),
    "later": (
        '[learning_rate]\nlow = 1\nhigh = 2\ntimes = ["sigma"]\n[sigma]\nchoices = [1.0]',
        "must come after sigma",
    ),
    "two alike": ("[[rank]]\nchoices = [1]\n[[rank]]\nchoices = [2]", "two tables are alike"),
    "no TOML": ("[sigma", "is no TOML file"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_spaces_are_refused(case, tmp_path):
    text, says = BAD[case]
    path = tmp_path / "space.toml"
    path.write_text(text)
    with pytest.raises(UserError, match="space=") as refused:
        load(path, "eggroll")
    assert says in str(refused.value)


def test_an_agent_without_a_space_needs_one(tmp_path):
    with pytest.raises(UserError, match="agent=random: .*must come with --space"):
        load(None, "random")
