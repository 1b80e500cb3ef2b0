"""Comparisons that nobody ran, for tests of what is made of them."""

import numpy as np

from experiments.comparison.results import Point, Results, Run, Task

CART_POLE, PENDULUM = "gymnasium/phys2d/CartPole-v1", "gymnasium/phys2d/Pendulum-v0"
LANDER, ANT = "gymnasium/LunarLander-v3", "brax/ant"


def task(env="a", threshold=10.0, random_return=0.0, stop=False):
    return Task(env, threshold, 1000, 60.0, stop, random_return=random_return)


def run(env, agent, seed, value, curve=(), **kwargs):
    """A run whose final episodes return `value`."""
    return Run(env, agent, seed, None, (float(value),), 1000, 50.0, curve=tuple(curve), **kwargs)


def results(tasks, runs, agents=("x", "y")):
    return Results("synthetic", "es-rl compare", tuple(agents), tuple(tasks), tuple(runs), {}, {})


def learning(task, agent, seed, best, pace, evaluations=40, devices=2):
    """A run that comes near `best`, the faster the smaller its pace, with some luck."""
    rng = np.random.default_rng([seed, *map(ord, task.name + agent)])
    pace *= rng.uniform(0.7, 1.4)
    start = task.random_return
    steps = np.linspace(task.env_steps / evaluations, task.env_steps, evaluations)
    seconds = steps / task.env_steps * task.seconds * rng.uniform(0.7, 1.0)
    reached = start + (best - start) * (1 - np.exp(-steps / task.env_steps / pace))
    noise = 0.03 * abs(best - start)
    values = np.minimum(reached + rng.normal(0, noise, evaluations), best)
    if task.stop_when_solved and (values >= task.threshold).any():
        last = np.argmax(values >= task.threshold) + 1
        steps, seconds, values = steps[:last], seconds[:last], values[:last]
    returns = np.minimum(values[-1] + rng.normal(0, noise, 32), best).round(3)
    return Run(
        *(task.name, agent, seed, None),
        returns=tuple(returns.tolist()),
        env_steps=int(steps[-1]),
        seconds=round(float(seconds[-1]), 3),
        compile_seconds=12.345 if seed == 0 else 0.0,
        evaluation_seconds=round(float(rng.uniform(1, 3)), 3),
        devices=devices,
        curve=tuple(
            Point(int(x), round(float(s), 3), round(float(y), 3))
            for x, s, y in zip(steps, seconds, values, strict=True)
        ),
        settings={"learning_rate": 0.05, "hidden": [64, 64], "squash": None},
        source="tuned here, on seeds 100 and 101",
        policy=f"runs/{agent}/seed-{seed}/policy",
    )


def comparison(seeds=5):
    """4 agents on 4 tasks: some lose, fail, do not play, or never reach the threshold."""
    tasks = (
        Task(CART_POLE, 475.0, 2_000_000, 30.0, True, random_return=22.1),
        Task(PENDULUM, -170.0, 10_000_000, 120.0, env_kwargs={"g": 9.8}, random_return=-1220.0),
        Task(LANDER, 200.0, 4_000_000, 600.0, random_return=-180.0),
        Task(ANT, 4000.0, 50_000_000, 900.0, random_return=-60.0),
    )
    levels = {  # best return and pace
        "eggroll": ((500, 0.05), (-168, 0.2), (230, 0.2), (3100, 0.5)),
        "open_es": ((500, 0.06), (-400, 0.3), (180, 0.4), None),
        "ppo": ((500, 0.02), (-150, 0.05), (225, 0.08), (5200, 0.3)),
        "sbx_ppo": ((500, 0.1), (-166, 0.1), (229, 0.3), None),
    }
    runs = []
    for position, task in enumerate(tasks):
        for agent, told in levels.items():
            level = told[position]
            for seed in range(seeds):
                if level is not None:
                    runs.append(learning(task, agent, seed, *level))
                elif agent == "open_es":
                    error = "RuntimeError: out of memory"
                    runs.append(Run(task.name, agent, seed, error))
    runs[2] = Run(CART_POLE, "eggroll", 2, "ValueError: <b>no</b> & such $thing")
    return Results(
        suite="small",
        command="es-rl compare small --seeds 5 --out runs/compare",
        agents=tuple(levels),
        tasks=tasks,
        runs=tuple(runs),
        versions={"python": "3.11.7", "jax": "0.10.2"},
        machine={"system": "Linux x86_64", "processor": "2 x AMD EPYC", "devices": "2 x cpu"},
    )
