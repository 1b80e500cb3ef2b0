"""Search spaces: what is drawn goes together, and a space of one's own is checked."""

import optuna
import pytest

from agents.registry import configure
from envs.errors import UserError
from experiments.tuning.spaces import Space, evolution, load

CART = "gymnasium/phys2d/CartPole-v1"
DOUBLE = "brax/inverted_double_pendulum"


def space(agent, env=CART, name=None, **fixed):
    base = {**vars(configure(agent, env)), **fixed}
    return Space(load(name, agent), name or "bundled", base, tuple(fixed))


def trials(count):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [study.ask() for _ in range(count)]


@pytest.mark.parametrize("env", [CART, DOUBLE])
@pytest.mark.parametrize(
    ("agent", "fixed"),
    [
        ("eggroll", {}),
        ("eggroll", {"noise_reuse": 0}),
        ("eggroll", {"noise_reuse": 8}),
        ("eggroll", {"optimizer": "adam"}),
        ("open_es", {}),
        ("ppo", {}),
        ("ppo", {"num_envs": 12}),
        ("ppo", {"num_envs": 3, "num_steps": 7}),
        ("sbx_ppo", {}),
    ],
)
def test_what_is_drawn_goes_together_whatever_is_fixed(agent, env, fixed):
    # Otherwise trials would be lost to settings that an agent refuses.
    chosen, seen = space(agent, env, **fixed), set()
    searched = chosen.searched(agent, env)
    for trial in trials(100):
        drawn = chosen.draw(trial)
        assert configure(agent, env, **drawn)
        assert {name: drawn[name] for name in fixed} == fixed
        assert all(drawn[n] == chosen.base[n] for n in drawn if n not in searched)
        seen.add(tuple(drawn.values()))
    assert len(seen) > 90
    assert not set(fixed) & set(searched)


def test_learning_rates_follow_the_optimizer_that_is_fixed():
    for trial in trials(30):
        drawn = space("eggroll", optimizer="sgd", sigma=0.1).draw(trial)
        assert 0.2 * 0.01 <= drawn["learning_rate"] <= 20 * 0.01
        assert "learning_rate / sigma^2" in trial.params
        assert "optimizer" not in trial.params


OWN = """
def good(trial, base):
    return {"sigma": trial.suggest_float("sigma", 0.1, 0.2)}
def nothing(trial, base):
    return None
def misspelt(trial, base):
    return {"sgima": 1.0}
def refused(trial, base):
    return {"sigma": -trial.suggest_float("sigma", 0.1, 0.2)}
def backwards(trial, base):
    return {"sigma": trial.suggest_float("sigma", 0.2, 0.1)}
def of_one(trial):
    return {"sigma": trial.suggest_float("sigma", 0.1, 0.2)}
number = 3
"""


@pytest.mark.parametrize(
    ("name", "fixed", "says"),
    [
        ("own_space:missing", {}, "^space=own_space:missing: must be a function, which own_space"),
        ("own_space:number", {}, "must be a function, which own_space has not"),
        ("own_space:of_one", {}, r"^space=own_space:of_one: must be a function of \(trial, base\)"),
        ("own_space", {}, "^space=own_space: must be MODULE:FUNCTION"),
        ("no_such:good", {}, "^space=no_such:good: no_such must be a module that can be imported"),
        ("own_space:nothing", {}, "^space=own_space:nothing: must return a dict .*, not None"),
        ("own_space:misspelt", {}, "^space=own_space:misspelt: what it returns: .* mean sigma"),
        ("own_space:refused", {}, "^space=own_space:refused: sigma=-0.1.*: must be greater than 0"),
        ("own_space:backwards", {}, "^space=own_space:backwards: suggest_float of 'sigma': .*low"),
        ("own_space:good", {"sigma": 0.3}, "nothing is left to search"),
        ("own_space:good", {"rank": 0}, "^rank=0: must be an integer"),
    ],
)
def test_a_space_of_ones_own_is_checked(name, fixed, says, tmp_path, monkeypatch):
    (tmp_path / "own_space.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=says):
        space("eggroll", name=name, **fixed).searched("eggroll", CART)
    assert space("eggroll", name="own_space:good").searched("eggroll", CART) == ("sigma",)


def test_settings_that_cannot_go_together_are_refused_and_not_a_crash():
    with pytest.raises(UserError, match="^num_steps=1: must be at least 2 with num_envs=1"):
        space("ppo", num_envs=1, num_steps=1).searched("ppo", CART)


def test_an_agent_without_a_space_needs_one():
    with pytest.raises(UserError, match="agent=random: .*must come with --space"):
        load(None, "random")
    assert load(None, "open_es") is evolution
