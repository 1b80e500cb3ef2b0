"""Sweep sigma and the learning rate over a few seeds, and plot what each pair is worth.

    python examples/sweep_with_plot.py

Seeds count from 100 on, so that those below stay unseen for results that are reported later.
`es-rl tune` searches larger spaces.
"""

from pathlib import Path

import matplotlib
import numpy as np
import tyro

import agents
import envs

matplotlib.use("Agg")  # draws into files, and needs no screen
import matplotlib.pyplot as plt  # noqa: E402


def plot(table, sigmas, rates, path):
    figure, axes = plt.subplots(layout="constrained")
    image = axes.imshow(table, cmap="viridis")
    figure.colorbar(image, label="return, mean over seeds")
    axes.set(xlabel="learning rate", ylabel="sigma", title="CartPole")
    axes.set_xticks(range(len(rates)), rates)
    axes.set_yticks(range(len(sigmas)), sigmas)
    for (row, column), value in np.ndenumerate(table):
        axes.text(column, row, f"{value:.0f}", ha="center", va="center", backgroundcolor="white")
    figure.savefig(path)


def main(
    sigmas: tuple[float, ...] = (0.03, 0.3, 3.0),
    rates: tuple[float, ...] = (0.01, 0.1, 1.0),
    seeds: int = 3,
    env_steps: int = 10_000,
    out: Path = Path("runs/sweep"),
):
    env = envs.make("gymnasium/phys2d/CartPole-v1")
    returns = np.zeros((len(sigmas), len(rates), seeds))
    evaluator = None  # compiled once, as all runs evaluate the same network
    for row, sigma in enumerate(sigmas):
        for column, rate in enumerate(rates):
            settings = {"hidden": (16,), "optimizer": "adam", "sigma": sigma, "learning_rate": rate}
            agent = agents.make("eggroll", env, **settings)
            for n in range(seeds):
                result = agents.train(agent, env_steps=env_steps, seed=100 + n, evaluator=evaluator)
                evaluator = evaluator or agents.Evaluator(env, result.policy.actor)
                returns[row, column, n] = result.evaluation.mean
            of_seeds = " ".join(f"{value:5.0f}" for value in returns[row, column])
            print(f"sigma {sigma:5}, learning rate {rate:5}: {of_seeds}")
    out.mkdir(parents=True, exist_ok=True)
    plot(returns.mean(axis=2), sigmas, rates, out / "sweep.png")
    print("drawn in", out / "sweep.png")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
