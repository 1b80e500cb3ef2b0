"""Statistics of a comparison: by hand, and against samples whose truth is known."""

import math
from dataclasses import replace

import numpy as np
import pytest

from experiments.comparison import statistics
from experiments.comparison.curves import axis_range, learning_curve
from experiments.comparison.results import Point, Run
from experiments.comparison.statistics import (
    Bound,
    ToThreshold,
    aggregate,
    estimate,
    final_return,
    iqm,
    mean,
    relative_score,
    times_as_long,
    to_threshold,
)
from experiments.comparison.tables import (
    bound_text,
    estimate_text,
    number,
    quantity,
    ratio_text,
    to_threshold_text,
)
from tests.experiments.comparison.synthetic import comparison, results, run, task


def runs_of(agent, values, env="a", **kwargs):
    return [run(env, agent, seed, value, **kwargs) for seed, value in enumerate(values)]


def reaching(agent, seconds, env="a", end=50.0):
    """Runs that return 10 after these seconds, or never."""
    runs = []
    for seed, at in enumerate(seconds):
        last = Point(1000, end, 9.9) if at is None else Point(1000, at, 10.0)
        runs.append(run(env, agent, seed, 0.0, curve=[Point(100, 1.0, 0.0), last], devices=2))
    return runs


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 2.0, 3.0, 100.0], 2.5),
        ([0.0, 1.0, 2.0, 3.0, 100.0], 2.0),
        ([-9.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 99.0], 2.5),
        ([1.0, 2.0, 9.0], 4.0),  # of fewer than 4 nothing is cut
    ],
)
def test_iqm_by_hand(values, expected):
    assert iqm(np.array(values)) == pytest.approx(expected)
    assert iqm(np.array(values[:2]), np.array(values[2:])) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("seeds", "statistic", "covers"),
    [(3, iqm, 0.75), (5, iqm, 0.89), (5, mean, 0.84), (20, iqm, 0.94)],
)
def test_intervals_cover_the_truth_as_often_as_the_report_says(
    seeds, statistic, covers, monkeypatch
):
    monkeypatch.setattr(statistics, "RESAMPLES", 999)
    samples = np.random.default_rng(0).normal(3.0, 2.0, (400, seeds))
    found = [estimate([sample], statistic).interval for sample in samples]
    assert np.mean([low <= 3.0 <= high for low, high in found]) == pytest.approx(covers, abs=0.035)


def test_the_order_of_seeds_and_former_calls_change_nothing():
    values = [3.1, 1.7, 2.2, 9.4, 5.5]
    assert estimate([values], iqm) == estimate([values[::-1]], iqm)
    once = comparison()
    turned = replace(once, runs=once.runs[::-1])
    assert aggregate(once) == aggregate(turned)
    pair = ("eggroll", "ppo")
    assert statistics.improvement(once, *pair) == statistics.improvement(turned, *pair)


def test_differences_between_tasks_widen_no_interval():
    near = [[1.0, 1.1, 1.2, 1.3, 1.4], [1.0, 1.1, 1.2, 1.3, 1.4]]
    far = [near[0], [value + 50 for value in near[1]]]
    low, high = estimate(near, mean).interval
    assert estimate(far, mean).interval == pytest.approx((low + 25, high + 25))
    together = estimate([near[0] + far[1]], mean).interval
    assert together[1] - together[0] > 20 * (high - low)


@pytest.mark.parametrize(
    ("ours", "theirs", "chance"),
    [
        ([1, 2], [1, 2], 0.5),
        ([3, 4], [1, 2], 1.0),
        ([1, 3], [2, 2], 0.5),
        ([2, 3], [2, 1], 0.875),
        ([5, 5], [5, 5], 0.5),
    ],
)
def test_ties_count_half_in_the_probability_of_improvement(ours, theirs, chance):
    found = results([task()], runs_of("x", ours) + runs_of("y", theirs))
    assert statistics.improvement(found, "x", "y").probability.value == chance
    assert statistics.improvement(found, "y", "x").probability.value == 1 - chance


def test_the_probability_of_improvement_is_the_mean_over_common_tasks():
    runs = runs_of("x", [2, 3]) + runs_of("y", [0, 1])
    runs += runs_of("x", [1, 1], "b") + runs_of("y", [1, 1, 1], "b") + runs_of("x", [0, 0], "c")
    found = statistics.improvement(results([task(e) for e in "abc"], runs), "x", "y")
    assert found.tasks == ("a", "b")
    assert found.probability.value == pytest.approx(0.75)


def test_where_runs_stop_when_solved_the_sooner_is_better():
    runs = reaching("x", [5, 6, None]) + reaching("y", [7, None, None])
    found = statistics.improvement(results([task(stop=True)], runs), "x", "y")
    # 5 and 6 win against all of the three; None ties with two.
    assert found.probability.value == pytest.approx((3 + 3 + 1) / 9)


def test_censored_seeds_count_as_infinite():
    def found(seconds, unit="seconds"):
        return to_threshold(results([task()], reaching("x", seconds)), task(), "x", unit)

    most = found([10, 12, 14, 16, None])
    assert (most.reached, most.seeds, most.after, most.median) == (4, 5, 1, Bound(14, False))
    assert most.interval == (Bound(1, False), Bound(50, True))
    assert to_threshold_text(most, "seconds") == "1.00 to 14.0 s [1.00, > 50.0]"
    few = found([10, None, None, None, None])
    assert few.median == Bound(50, True)
    assert bound_text(few.median, "seconds") == "> 50.0 s"
    half = found([10, 12, None, None])  # half way from a time after 1 to one above 50
    assert half.median == Bound(25.5, True)
    none = found([None] * 5)
    assert to_threshold_text(none, "seconds") == "> 50.0 s (too few seeds, no interval)"
    assert found([10, 12, 14], "device_seconds").median == Bound(24, False)
    assert found([10, 12, 14], "env_steps").median == Bound(1000, False)
    assert to_threshold_text(found([10]), "seconds") == "1.00 to 10.0 s (1 seed, no interval)"
    assert to_threshold(results([task()], []), task(), "x", "seconds") is None


def test_a_time_lies_between_the_last_evaluation_below_and_the_first_at_the_threshold():
    curve = [Point(10, 1.0, 9.99), Point(20, 2.0, 10.0), Point(30, 3.0, 0.0), Point(40, 4.0, 99.0)]
    found = results([task()], [run("a", "x", 0, 0.0, curve), run("a", "y", 0, 0.0, curve[1:])])
    spent = to_threshold(found, task(), "x", "seconds")
    assert (spent.after, spent.median) == (1.0, Bound(2.0, False))
    spent = to_threshold(found, task(), "x", "env_steps")
    assert (spent.after, spent.median) == (10, Bound(20, False))
    at_once = to_threshold(found, task(), "y", "seconds")
    assert (at_once.after, at_once.median) == (0.0, Bound(2.0, False))
    assert to_threshold_text(at_once, "seconds") == "0 to 2.00 s (1 seed, no interval)"


def test_a_ratio_of_times_has_the_width_of_the_grid():
    """Evaluated every 4 seconds, one agent is seen to take 12 and the other 8: 1 to 3 times."""

    def times(after, seconds, exceeded=False):
        return ToThreshold(5, 5, after, Bound(seconds, exceeded), None)

    assert times_as_long(times(4, 8), times(8, 12)) == (1, 3)
    assert times_as_long(times(0, 4), times(8, 12)) == (2, math.inf)
    assert times_as_long(times(4, 8), times(60, 60, exceeded=True)) == (7.5, math.inf)
    assert times_as_long(times(60, 60, exceeded=True), times(4, 12)) == (0, 0.2)
    assert ratio_text((1, 3)) == "1.00 to 3.00"
    assert ratio_text((2, math.inf)) == "at least 2.00"
    assert ratio_text((0, 0.2)) == "at most 0.200"
    assert ratio_text((0, math.inf)) == "not known"


def test_one_seed_has_no_interval_and_equal_ones_a_point():
    assert estimate_text(estimate([[5.0]], iqm)) == "5.00 (1 seed, no interval)"
    assert estimate([[5.0, 6.0], [7.0]], iqm).interval is None
    assert estimate([[500.0] * 5], iqm).interval == (500.0, 500.0)
    assert estimate_text(estimate([[500.0] * 5], iqm)) == "500.0 [500.0, 500.0]"
    assert estimate_text(None) == "-"


def test_failed_runs_and_absent_agents_are_in_no_number():
    runs = [*runs_of("x", [1, 2, 3]), Run("a", "x", 3, "ValueError: no"), Run("a", "y", 0, "no")]
    found = results([task()], runs, agents=("x", "y", "z"))
    assert statistics.final_return(found, "a", "x").value == 2.0
    for agent in ("y", "z"):
        assert statistics.final_return(found, "a", agent) is None
        assert statistics.difference(found, "a", "x", agent) is None
        assert statistics.improvement(found, "x", agent) is None
    assert set(aggregate(found).scores) == {"x"}
    assert aggregate(found).left_out == ("y: it has no run.", "z: it has no run.")


def test_scores_are_of_the_tasks_that_all_play():
    tasks = [task("a", 10, 0), task("b", -100, -200), task("c"), task("d", random_return=None)]
    tasks += [task("e", 10, 10), task("f", random_return=math.nan)]
    runs = [
        r
        for env, (x, y) in {"a": (5, 10), "b": (-150, -50), **dict.fromkeys("def", (1, 1))}.items()
        for r in (*runs_of("x", [x, x], env), *runs_of("y", [y, y], env))
    ]
    found = aggregate(results(tasks, runs + runs_of("x", [99, 99], "c")))
    assert found.tasks == ("a", "b")
    assert found.scores["x"].value == pytest.approx(0.5)
    assert found.scores["y"].value == pytest.approx(1.25)
    assert found.left_out == (
        "c: no run of y.",
        "d: no finite return of random actions is known.",
        "e: its threshold is not above the return of random actions.",
        "f: no finite return of random actions is known.",
    )
    assert aggregate(results([task()], [])).scores == {}


def test_no_score_is_above_1_where_runs_stop_when_solved():
    found = results([task(stop=True)], runs_of("x", [12, 15, 5, 5]))
    assert statistics.final_score(found, task(stop=True), "x").value == pytest.approx(0.75)


CURVES = (
    [Point(0, 0.0, 5.0), Point(10, 1.0, 0.0), Point(20, 2.0, 4.0), Point(40, 4.0, 7.0)],
    [Point(15, 1.5, 2.0), Point(30, 3.0, math.nan), Point(50, 5.0, 6.0)],
)


def ended(seed, curve, value):
    """A run that ends with its last evaluation, and whose final episodes return `value`."""
    last = replace(run("a", "x", seed, value, curve), env_steps=curve[-1].env_steps)
    return replace(last, seconds=curve[-1].seconds)


def test_a_curve_is_the_step_function_and_ends_with_the_numbers_of_the_table():
    runs = [ended(seed, *of) for seed, of in enumerate(zip(CURVES, (8.0, 10.0), strict=True))]
    found = results([task()], runs)
    axis = axis_range(found, "a", "env_steps")
    assert axis == (5, 50), "half of the first one above 0, as one seed was evaluated at 0"
    curve = learning_curve(runs, "env_steps", axis)
    np.testing.assert_array_equal(curve.x, [15, 20, 40, 50])
    np.testing.assert_array_equal(curve.value, [1, 3, 5, 9])
    np.testing.assert_array_equal(curve.band[0], [0, 2, 2, 8])
    assert curve.value[-1] == final_return(found, "a", "x").value
    first, second = curve.seeds
    np.testing.assert_array_equal([first.x, first.value], [[5, 10, 20, 40], [5, 0, 4, 8]])
    np.testing.assert_array_equal([second.x, second.value], [[15, 50], [2, 10]])
    seconds = learning_curve(runs, "seconds", axis_range(found, "a", "seconds"))
    np.testing.assert_array_equal(seconds.x, [1.5, 2, 4, 5])
    assert learning_curve(runs[:1], "seconds", (0.5, 5)).band is None
    assert learning_curve([], "seconds", (0.5, 5)) is None
    assert axis_range(results([task()], []), "a", "seconds") is None


def test_a_curve_goes_on_to_the_end_of_the_axis_where_all_seeds_have_stopped():
    runs = [ended(0, CURVES[0], 8.0), ended(1, CURVES[1], 10.0)]
    slow = replace(ended(0, [Point(100, 9.0, 0.0), Point(400, 99.0, 1.0)], 2.0), agent="y")
    axis = axis_range(results([task()], [*runs, slow]), "a", "env_steps")
    assert axis == (5, 400)
    curve = learning_curve(runs, "env_steps", axis)
    np.testing.assert_array_equal(curve.x, [15, 20, 40, 50, 400])
    np.testing.assert_array_equal(curve.value, [1, 3, 5, 9, 9])
    assert curve.stop == 50


def test_a_curve_of_many_evaluations_keeps_its_first_and_its_last():
    points = [Point(x, float(x), float(x)) for x in range(1, 2001)]
    curve = learning_curve([ended(0, points, 7.0)], "env_steps", (1, 5000))
    assert len(curve.x) == 201
    np.testing.assert_array_equal([curve.x[0], curve.value[0]], [1, 1])
    np.testing.assert_array_equal([curve.x[-2:], curve.value[-2:]], [[2000, 5000], [7, 7]])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (number(9299.34), "9,299"),
        (number(-170.26), "-170.3"),
        (number(0.91349), "0.913"),
        (number(-0.0001, 1.0), "0.00"),
        (number(0), "0"),
        (quantity(1_250_000, "env_steps"), "1.25 M"),
        (quantity(950, "env_steps"), "950"),
        (quantity(12.345, "seconds"), "12.3 s"),
    ],
)
def test_numbers_are_short(text, expected):
    assert text == expected


def test_relative_scores_by_hand():
    tasks = [task("a", random_return=2.0), task("b", random_return=-10.0), task("c")]
    found = results(
        tasks,
        runs_of("x", [5.0, 7.0], "a")
        + runs_of("y", [12.0, 8.0], "a")
        + runs_of("x", [-10.0, -4.0], "b")
        + runs_of("y", [-8.0, -4.0], "b")
        + runs_of("y", [-1.0, 1.0], "c"),
    )
    found = replace(found, relative_to="y")
    first, second, third = tasks
    assert relative_score(found, [first], "x").value == pytest.approx((6 - 2) / (10 - 2))
    assert relative_score(found, [first], "y").value == 1
    low, high = relative_score(found, [first], "x").interval
    assert low == pytest.approx(3 / 10)
    assert high == pytest.approx(5 / 6)
    assert relative_score(found, [first, second], "x").value == pytest.approx((4 / 8 + 3 / 4) / 2)
    for no_score in ([], [third], [first, third]):
        assert relative_score(found, no_score, "x") is None
    assert relative_score(found, [third], "y") is None  # no better than random actions
    unknown = replace(first, random_return=None)
    assert relative_score(found, [unknown], "x") is None
    # A seed of y is no better than random actions: resamples of it alone would divide by 0.
    unsure = relative_score(found, [replace(first, random_return=8.0)], "x")
    assert (unsure.value, unsure.interval) == (-1.0, None)
    assert "a seed of y is no better than random" in unsure.reason
