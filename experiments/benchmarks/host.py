"""Benchmark of environments on the host: our workers and Gymnasium's vector environments."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import gymnasium
import jax
import numpy as np
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv

import envs
from agents.evolution.agent import EvolutionAgent, EvolutionState
from agents.evolution.config import EggrollConfig
from envs.base import RESET, STEP
from es_rl.play.host_acting import HostActing
from experiments.benchmarks.timing import Contender, Row, Table, side_by_side

_MEMBERS = 256
_STEPS = {"CartPole-v1": 500, "HalfCheetah-v5": 100}
"""Steps of each lane in a round of Gymnasium's vector environments, or of the workers alone."""


def host(rounds: int) -> Iterator[Table]:
    """(f) Env steps per second of a population on the host."""
    for name in _STEPS:
        yield _host(name, rounds)


def _host(name: str, rounds: int) -> Table:
    env: Any = envs.make(f"gymnasium/{name}")
    agent = EvolutionAgent("eggroll", env, EggrollConfig(population_size=_MEMBERS))
    state = agent.init(jax.random.key(0))
    if name == "CartPole-v1":  # train first, as untrained episodes are short
        metrics: dict[str, Any] = {"return_mean": 0.0}
        while metrics["return_mean"] < 490.0:
            state, metrics = agent.step(state)
    made = [partial(gymnasium.make, name, disable_env_checker=True)] * _MEMBERS
    with _quiet():  # MuJoCo prints a message for each environment
        vectors = {
            "SyncVectorEnv": SyncVectorEnv(made),
            # The default context, fork, is not safe in a process that uses JAX.
            "AsyncVectorEnv": AsyncVectorEnv(made, context="forkserver"),
        }
    steps: dict[str, float] = {}
    rows = {
        f"es_rl, {env.workers} workers": partial(_ours, agent, state),
        **{f"{n}, same policy": partial(_vector, agent, state, v) for n, v in vectors.items()},
        f"{env.workers} workers alone, random actions": partial(_alone, agent),
    }

    def contender(row: str, play: Any) -> Contender:
        def run(number: int) -> None:
            steps[row] = play(number)

        return Contender(row, run, lambda number: None)

    taken = side_by_side([contender(row, play) for row, play in rows.items()], rounds)
    for vector in vectors.values():
        vector.close()
    agent.close()
    speeds = {row: steps[row] / taken[row][0] for row in rows}
    ours = next(iter(speeds.values()))
    return Table(
        f"(f) gymnasium/{name} on the host, {_MEMBERS} members, MLP 2x64",
        {"env steps/s": ",.0f", "ours is faster": ".2f"},
        [Row(row, {"env steps/s": v, "ours is faster": ours / v}) for row, v in speeds.items()],
        [
            "es_rl: steps of live episodes, from the first reset to the end of the last one.",
            "vector environments: one for each member; steps in which they reset count too.",
        ],
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Discard stderr, also of processes that are started within this context."""
    shown = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(shown, 2)
        os.close(shown)


def _ours(agent: EvolutionAgent, state: EvolutionState, number: int) -> float:
    members, keys = agent.ask(replace(state, key=jax.random.key(number)))
    return float(np.sum(agent.player.play(members, keys).lengths))


def _vector(agent: EvolutionAgent, state: EvolutionState, vector: VectorEnv, number: int) -> float:
    members, keys = agent.ask(state)
    player: Any = agent.player
    acting, space = HostActing(player.behaviour), vector.single_action_space
    act = partial(acting.act, members, keys)
    numbers = np.zeros((4, _MEMBERS), np.int32)
    numbers[:2] = np.ones(_MEMBERS), np.arange(_MEMBERS)
    obs, _ = vector.reset(seed=number)
    carry = acting.start(members, keys, obs.astype(np.float32))
    horizon = _STEPS[agent.env.spec.id.removeprefix("gymnasium/")]
    for _ in range(horizon):
        actions, carry = act(carry, numbers, obs.astype(np.float32))
        obs, *_ = vector.step(np.asarray(actions, space.dtype))
        numbers[0] = 0
    return float(horizon * _MEMBERS)


def _alone(agent: EvolutionAgent, number: int) -> float:
    """Step the lanes of a rollout with random actions, in two alternating halves as the rollout
    does."""
    player: Any = agent.player
    pool, space = player.pool, agent.env.spec.action_space
    horizon = _STEPS[agent.env.spec.id.removeprefix("gymnasium/")]
    half = pool.count // 2
    spans = slice(0, half), slice(half, 2 * half)
    rng = np.random.default_rng(number)
    actions = np.stack([space.sample() for _ in range(half)])
    stepped = 0  # counts resets too, as for the vector environments
    pool.begin()
    for span in spans:
        pool.send(span, np.full(half, RESET), rng.integers(1 << 31, size=half), None)
    for _ in range(horizon):
        for span in spans:
            received = pool.receive(span)
            ended = received.terminated | received.truncated
            command = np.where(ended, RESET, STEP)
            stepped += half
            rng.shuffle(actions)
            pool.send(span, command, rng.integers(1 << 31, size=half), actions)
    for span in spans:
        pool.receive(span)
    return float(stepped)
