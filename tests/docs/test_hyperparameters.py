"""The sweep of hyperparameters goes on where it was stopped, and its figures show quartiles."""

import numpy as np

from docs import hyperparameters as sweep


def test_quartiles_are_of_the_latest_evaluations():
    curves = [[(10, 0.0), (40, 4.0)], [(20, 1.0), (60, 5.0)], [(10, 2.0), (90, 9.0)]]
    x, quartiles = sweep.over_seeds(curves, 100)
    assert x.tolist() == list(range(20, 101))
    np.testing.assert_array_equal(quartiles[:, x == 20].ravel(), [0.5, 1, 1.5])
    np.testing.assert_array_equal(quartiles[:, x == 59].ravel(), [1.5, 2, 3])
    np.testing.assert_array_equal(quartiles[:, x == 100].ravel(), [4.5, 5, 7])


def test_a_score_is_the_median_of_late_means():
    curves = [[(10, 0.0), (60, 4.0), (90, 6.0)], [(50, 1.0)], [(99, 7.0)]]
    assert sweep.score(curves, 100) == 5


def test_a_stopped_sweep_goes_on(tmp_path, monkeypatch):
    path, trained = tmp_path / "results" / "results.csv", []
    cheap = sweep.settings_of(sweep.CART_POLE, {"population_size": 2, "hidden": []})
    other = sweep.settings_of(sweep.CART_POLE, {"population_size": 4, "hidden": []})
    monkeypatch.setattr(sweep, "wanted", lambda: {("cart-pole", cheap): 3, ("cart-pole", other): 1})

    def train(agent, evaluator, task, seed):
        trained.append((agent.config.population_size, seed))
        if len(trained) == 3:
            raise KeyboardInterrupt
        return [(100 * seed, -0.25), (200 * seed, 1.5)]

    monkeypatch.setattr(sweep, "train", train)
    try:
        sweep.measure(sweep.Results.read(path))
    except KeyboardInterrupt:
        sweep.measure(sweep.Results.read(path))
    assert trained == [(2, 100), (2, 101), (2, 102), (2, 102), (4, 100)]
    results = sweep.Results.read(path)
    assert list(sweep.missing(results)) == []
    assert results.of("cart-pole", other) == [[(10_000, -0.2), (20_000, 1.5)]]


def test_everything_that_figures_show_was_measured():
    assert list(sweep.missing(sweep.Results.read(sweep.RESULTS))) == []
