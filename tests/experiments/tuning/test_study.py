"""The study: trials that train nothing, so that what is tested is what becomes of them."""

import csv
import json
import tomllib
from dataclasses import replace

import pytest
from optuna.trial import TrialState

from agents.registry import configure
from envs.errors import UserError
from experiments.comparison.trials import Stopped
from experiments.flags.settings_files import read_settings
from experiments.tuning import outputs
from experiments.tuning.spaces import Space, evolution
from experiments.tuning.study import from_json, opened_study
from experiments.tuning.trial import Evaluated, Protocol, SeedResult, area_of

ENV = "gymnasium/phys2d/CartPole-v1"
PROTOCOL = Protocol(
    env=ENV,
    env_kwargs={},
    train_env_kwargs=None,
    agent="eggroll",
    base=vars(configure("eggroll", ENV, squash="clip")),
    fixed=("squash",),
    space="evolution",
    seeds=2,
    first_seed=100,
    env_steps=1000,
    seconds=None,
    objective="final",
    evaluations=10,
    eval_episodes=None,
)
SEARCHED = Space(evolution, "evolution", PROTOCOL.base, PROTOCOL.fixed).searched("eggroll", ENV)


@pytest.fixture
def opened(tmp_path):
    def opened(function=evolution, **changes):
        protocol = replace(PROTOCOL, **changes)
        space = Space(function, protocol.space, protocol.base, protocol.fixed)
        return opened_study(tmp_path / "study.db", protocol, space, SEARCHED)

    return opened


def ignore(trial):
    pass


def earns_sigma(settings, report, ended):
    for seed in (100, 101):
        curve = (Evaluated(1.0, 1000, 0.5, settings["sigma"]),)
        ended(SeedResult(seed, settings["sigma"], 1000, 0.5, curve))
    return settings["sigma"]


def test_a_study_goes_on_and_begins_with_the_preset(opened, tmp_path):
    with opened() as tuning:
        tuning.run(2, earns_sigma, ignore)
        first = [t.params for t in tuning.study.trials]
    with opened() as tuning:
        tuning.run(4, earns_sigma, ignore)
        trials = tuning.study.trials
        assert [t.params for t in trials][:2] == first
        assert [t.number for t in trials] == [0, 1, 2, 3]
        assert trials[0].user_attrs["settings"] == json.loads(json.dumps(PROTOCOL.base))
        assert trials[0].params == {}
        assert trials[0].user_attrs["settings"]["sigma"] == 0.8
        assert len({t.user_attrs["settings"]["sigma"] for t in trials}) == 4, "drawn anew"
        assert {t.user_attrs["settings"]["squash"] for t in trials} == {"clip"}
        tuning.run(4, pytest.fail, ignore)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seeds": 3}, "seeds=3: must be 2, as the study"),
        ({"objective": "area"}, "objective=area: must be final, as the study"),
        ({"base": {**PROTOCOL.base, "squash": "tanh"}}, "squash=tanh: must be clip, as the study"),
        ({"space": "mine:space"}, "space=mine:space: must be evolution, as the study"),
        ({"env_kwargs": {"a": 1}}, "out=.*another env_kwargs: must be another folder"),
        ({"train_env_kwargs": {"a": 1}}, "out=.*another train_env_kwargs: must be another folder"),
    ],
)
def test_a_study_with_other_settings_is_refused(opened, change, says):
    with opened():
        pass
    with pytest.raises(UserError, match=says), opened(**change):
        pass


def test_a_file_that_is_no_study_is_refused(opened, tmp_path):
    (tmp_path / "study.db").write_text("precious, and longer than the header of a database" * 9)
    with pytest.raises(UserError, match="study.db is no study, which it must be"), opened():
        pass
    assert (tmp_path / "study.db").read_text().startswith("precious")


@pytest.mark.parametrize("error", [Stopped(2), KeyboardInterrupt()])
def test_a_trial_that_was_stopped_is_tried_again(opened, error):
    def stopped(settings, report, ended):
        raise error

    with opened() as tuning:
        tuning.run(1, earns_sigma, ignore)
        with pytest.raises(type(error)):
            tuning.run(2, stopped, ignore)
        assert len(tuning.settled()) == 1
    with opened() as tuning:
        tuning.run(2, earns_sigma, ignore)
        _, stopped_one, again = tuning.study.trials
        assert stopped_one.state == TrialState.FAIL
        assert again.user_attrs["settings"] == stopped_one.user_attrs["settings"]
        assert again.params == stopped_one.params
        assert [t.number for t in tuning.settled()] == [0, 2]


def test_a_trial_that_a_killed_process_was_running_is_tried_again_but_not_for_ever(opened):
    class Killed(BaseException):
        """What no code of ours catches, as a process that is killed."""

    def killed(settings, report, ended):
        raise Killed

    for _ in range(3):
        with pytest.raises(Killed), opened() as tuning:
            tuning.run(1, killed, ignore)
    with opened() as tuning:
        tuning.run(2, earns_sigma, ignore)
        states = [t.state for t in tuning.study.trials]
        assert states == [TrialState.FAIL] * 3 + [TrialState.COMPLETE]
        asked = [t.user_attrs["settings"] for t in tuning.study.trials]
        assert asked[0] == asked[1] == asked[2] != asked[3]
        assert [t.number for t in tuning.settled()] == [2, 3]


def test_a_space_with_other_choices_than_before_is_refused_and_the_study_kept(opened):
    def ranks(*choices):
        return lambda trial, base: {"rank": trial.suggest_categorical("rank", choices)}

    with opened(ranks(1, 2)) as tuning:
        tuning.run(2, lambda *of: 1.0, ignore)
    with (
        opened(ranks(1, 2, 4)) as tuning,
        pytest.raises(UserError, match="space=evolution: suggest_categorical of 'rank': "),
    ):
        tuning.run(3, pytest.fail, ignore)
    with opened(ranks(1, 2)) as tuning:
        tuning.run(3, lambda *of: 1.0, ignore)
        assert [t.state for t in tuning.settled()] == [TrialState.COMPLETE] * 3


def test_a_user_error_fails_the_trial_alone_and_any_other_ends_the_study(opened):
    errors = iter([UserError("sigma=9: must be\nsmaller"), None, ZeroDivisionError("here")])

    def fails(settings, report, ended):
        error = next(errors)
        if error is not None:
            raise error
        return 1.0

    with opened() as tuning:
        with pytest.raises(ZeroDivisionError):
            tuning.run(9, fails, ignore)
        first, second, third = tuning.settled()
        assert outputs.message_of(first) == "sigma=9: must be smaller"
        assert second.state == TrialState.COMPLETE
        assert outputs.message_of(third) == "ZeroDivisionError: here"
        assert "trial 0: failed: sigma=9: must be smaller; best 1" in outputs.line_of(tuning, first)


def test_trials_below_the_median_are_pruned_early(opened):
    values = iter([10, 11, 12, 13, 14, 1, 20, 12.5])
    steps = []

    def earns(settings, report, ended):
        value, now = next(values), []
        steps.append(now)
        for step in range(1, 21):
            now.append(step)
            # The last trial is good at first, and then worse than the median.
            report(step, value if value != 12.5 or step < 15 else 2.0)
        return float(value)

    with opened() as tuning:
        tuning.run(8, earns, ignore)
        states = [t.state for t in tuning.study.trials]
    assert [len(now) for now in steps] == [20] * 5 + [3, 20, 15], "the sixth after the warm-up"
    assert states == [TrialState.COMPLETE] * 5 + [
        TrialState.PRUNED,
        TrialState.COMPLETE,
        TrialState.PRUNED,
    ]


def test_the_files_say_what_was_found(opened, tmp_path):
    def sometimes(settings, report, ended):
        report(3, 0.5)
        if len(calls) == 1:
            raise UserError("sigma=0: must be more")
        return earns_sigma(settings, report, ended)

    calls = []

    def after(trial):
        calls.append(trial.number)
        outputs.write_all(tuning, tmp_path, "es-rl tune X")
        assert {path.name for path in tmp_path.iterdir()} >= {"trials.csv", "study.png"}

    with opened() as tuning:
        tuning.run(12, sometimes, after)
        best = tuning.best()
    rows = list(csv.DictReader((tmp_path / "trials.csv").read_text().splitlines()))
    assert [row["number"] for row in rows] == [str(n) for n in range(12)]
    assert rows[1]["state"] == "failed"
    assert rows[1]["message"] == "sigma=0: must be more"
    assert rows[0]["seed_100"] == rows[0]["value"] == rows[0]["sigma"] == "0.8"
    values = [float(row["value"]) for row in rows if row["value"]]
    assert max(values) == best.value
    text = (tmp_path / "best.toml").read_text()
    for part in ("es-rl tune X", "Objective: final", "seeds 100 to 101"):
        assert part in text
    written = read_settings(tmp_path / "best.toml", "eggroll")
    assert written == {k: v for k, v in written.items() if k not in ("devices", "lanes")}
    assert configure("eggroll", ENV, **written) == configure(
        "eggroll", ENV, **from_json(best.user_attrs["settings"])
    )
    assert tomllib.loads(text)["agent"] == "eggroll"
    found = json.loads((tmp_path / "importances.json").read_text())
    assert sum(found.values()) == pytest.approx(1)
    assert (tmp_path / "study.png").read_bytes().startswith(b"\x89PNG")


def test_the_area_is_the_mean_of_the_curve_over_the_budget():
    def curve(*points):
        return [Evaluated(share, 0, 0.0, mean) for share, mean in points]

    assert area_of(curve((1.0, 7.0))) == 7
    assert area_of(curve((0.5, 0.0), (1.0, 10.0))) == pytest.approx(2.5)
    assert area_of(curve((0.1, 0.0), (0.2, 10.0))) == pytest.approx(2.5), "of what is spent"
