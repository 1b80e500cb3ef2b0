"""Benchmarks of whole generations: lanes against a fixed scan, the environment alone, and
evosax."""

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import Mesh, PartitionSpec

import envs
from agents.evolution.agent import EvolutionAgent
from agents.evolution.config import EggrollConfig
from envs.base import Env
from envs.installing import pip_install
from es_rl.devices import AXIS, Program, make_mesh, replicated
from es_rl.play.device_player import DevicePlayer
from es_rl.play.jobs import Array, Jobs, Played, reset_key, step_keys
from es_rl.play.player import Behaviour, Notify, PyTree
from experiments.benchmarks.timing import Contender, Row, Table, side_by_side

_NETWORK = {"hidden": (256, 256, 256)}
_LOCOMOTION = {"sigma": 0.05, "activation": "layer_norm_relu"}


@dataclass(frozen=True, eq=False)
class Lockstep:
    """The method of other libraries, with the interface of `Rollout`: each job has its own lane,
    and all lanes step until the horizon."""

    env: Env
    behaviour: Behaviour
    jobs: Jobs
    mesh: Mesh

    def play(self, shared: PyTree, keys: jax.Array) -> Played:
        """Play as `Rollout.play` does; the number of jobs must be a multiple of the number of
        devices."""
        apart = PartitionSpec(AXIS)
        results = jax.shard_map(
            self._play_share,
            mesh=self.mesh,
            in_specs=(PartitionSpec(), apart, apart),
            out_specs=apart,
            check_vma=False,
        )(shared, jnp.asarray(self.jobs.member), keys[self.jobs.episode])
        everywhere = jax.sharding.NamedSharding(self.mesh, PartitionSpec())
        return Played(*jax.lax.with_sharding_constraint(results, everywhere))

    def _play_share(self, shared: PyTree, member: jax.Array, keys: jax.Array) -> Any:
        behaviour, horizon = self.behaviour, self.env.spec.max_episode_steps
        selected = jax.vmap(behaviour.select, in_axes=(None, 0))(shared, member)

        def step(lane: Any, selected: PyTree, key: jax.Array) -> Any:
            state, memory, playing, total, length, sums, squares = lane
            policy_key, env_key = step_keys(key, state.steps)
            action, memory, vector = behaviour.act(shared, selected, memory, state.obs, policy_key)
            state = self.env.step(state, action, env_key)
            total, length = total + playing * state.reward, length + playing
            sums, squares = sums + playing * vector, squares + playing * vector**2
            playing = playing & ~(state.terminated | state.truncated)
            return state, memory, playing, total, length, sums, squares

        def start(selected: PyTree, key: jax.Array) -> Any:
            state = self.env.reset(reset_key(key))
            vector = behaviour.act(shared, selected, behaviour.memory, state.obs, key)[2]
            zeros = jnp.zeros_like(vector)
            zero = jnp.float32(0), jnp.int32(0), zeros, zeros
            return state, behaviour.memory, jnp.bool_(True), *zero

        carry = jax.lax.fori_loop(
            0,
            horizon,
            lambda _, carry: jax.vmap(step)(carry, selected, keys),
            jax.vmap(start)(selected, keys),
        )
        return *carry[3:], jnp.full(1, len(member) * horizon), {}


class LockstepPlayer(DevicePlayer):
    """Plays the jobs of another player in lockstep, in one program."""

    def __init__(self, own: DevicePlayer):
        super().__init__(own.rollout)
        rollout = own.rollout
        lockstep = Lockstep(rollout.env, rollout.behaviour, rollout.jobs, rollout.mesh)

        def whole(shared: PyTree, keys: jax.Array) -> Played:
            return lockstep.play(shared, jax.random.wrap_key_data(keys))

        everywhere = replicated(rollout.mesh)
        self._whole = Program(whole, in_shardings=everywhere, out_shardings=everywhere)

    def compile(self, shared: PyTree, keys: Array) -> None:
        self._whole.compile(shared, keys)

    def play(self, shared: PyTree, keys: Array, notify: Notify | None = None) -> Played:
        return self._whole(shared, keys)


@dataclass(frozen=True)
class _Task:
    env: str
    kwargs: dict[str, Any]
    settings: dict[str, Any]
    """All settings of the agent; presets are not used, as they may change."""
    population: int = 256
    """The number of members."""
    with_evosax: bool = False
    """Whether evosax is measured on this task too."""

    @property
    def title(self) -> str:
        kwargs = "".join(f", {name}={value}" for name, value in self.kwargs.items())
        return f"{self.env}{kwargs}, {self.population} members, MLP 3x256"


# An environment in which nothing falls represents late generations: all episodes last 1000 steps.
_FIRST = (
    _Task("brax/inverted_pendulum", {"backend": "generalized"}, {"sigma": 0.1}, with_evosax=True),
    _Task("brax/hopper", {"backend": "spring"}, _LOCOMOTION, with_evosax=True),
    _Task("gymnasium/phys2d/CartPole-v1", {}, {"sigma": 0.3}),
)
_FULL_LENGTH = (
    _Task("brax/hopper", {"backend": "spring", "terminate_when_unhealthy": False}, _LOCOMOTION),
    _Task("brax/ant", {"backend": "spring", "terminate_when_unhealthy": False}, _LOCOMOTION),
)


def generation(rounds: int, devices: int | None) -> Iterator[Table]:
    """(c) Times of a generation, without compilation."""
    for what, tasks in (("first generation", _FIRST), ("full-length episodes", _FULL_LENGTH)):
        for task in tasks:
            yield _generation(task, what, rounds, devices)


def make_agent(
    task: _Task, devices: int | None, *, lockstep: bool = False, **settings: Any
) -> EvolutionAgent:
    """An agent with the lanes of `Rollout`, or in lockstep."""
    env = envs.make(task.env, **task.kwargs)
    settings = {"population_size": task.population, **_NETWORK, **task.settings, **settings}
    assert isinstance(env, Env)
    agent = EvolutionAgent("eggroll", env, EggrollConfig(devices=devices, **settings))
    if lockstep:
        assert isinstance(agent.player, DevicePlayer)
        agent.player = LockstepPlayer(agent.player)
    return agent


def _generation(task: _Task, what: str, rounds: int, devices: int | None) -> Table:
    count = make_mesh(devices).size
    made = {
        f"lanes, {count} devices": make_agent(task, count),
        f"fixed scan, {count} devices": make_agent(task, count, lockstep=True),
    }
    if count > 1:
        made["fixed scan, 1 device"] = make_agent(task, 1, lockstep=True)
    last: dict[str, Any] = {}

    def contender(name: str, agent: EvolutionAgent) -> Contender:
        def run(state: Any) -> Any:
            _, last[name] = agent.step(state)
            return last[name]

        return Contender(name, run, agent.compile, lambda seed: agent.init(jax.random.key(seed)))

    contenders = [contender(name, agent) for name, agent in made.items()]
    contenders.append(_environment_alone(task, count))
    notes = [
        "utilization: of the steps that were executed, those of unfinished episodes (last round).",
        "environment alone: fixed scan of the physics with one random action per lane, no policy.",
    ]
    if task.with_evosax:
        if importlib.util.find_spec("evosax") is None:
            notes.append(f"evosax: not installed ({pip_install('bench')})")
        else:
            contenders.append(_evosax(task))
    taken = side_by_side(contenders, rounds)
    ours = taken[contenders[0].name][0]
    rows = []
    for c in contenders:
        seconds, compile_seconds = taken[c.name]
        steps, used = (
            (float(last[c.name]["env_steps"]), float(last[c.name]["lane_utilization"]))
            if c.name in last
            else (None, None)
        )
        rows.append(
            Row(
                c.name,
                {
                    "seconds": seconds,
                    "ours is faster": seconds / ours,
                    "compile s": compile_seconds,
                    "env steps": steps,
                    "utilization": used,
                },
            )
        )
    columns = {
        "seconds": ".3f",
        "ours is faster": ".2f",
        "compile s": ".1f",
        "env steps": ",.0f",
        "utilization": ".3f",
    }
    return Table(f"(c) {what}, {task.title}", columns, rows, notes)


def _environment_alone(task: _Task, devices: int) -> Contender:
    env = envs.make(task.env, **task.kwargs)
    assert isinstance(env, Env)
    sample = [env.spec.action_space.sample() for _ in range(task.population)]
    actions = jnp.asarray(np.stack(sample))

    def share(actions: jax.Array, keys: jax.Array) -> jax.Array:
        states = jax.vmap(lambda key: env.reset(reset_key(key)))(keys)

        def step(_: int, states: Any) -> Any:
            return jax.vmap(env.step)(states, actions, keys)

        states = jax.lax.fori_loop(0, env.spec.max_episode_steps, step, states)
        # The result depends on every part of the states; otherwise XLA would remove the physics.
        numbers = [x for x in jax.tree.leaves(states) if jnp.issubdtype(x.dtype, np.number)]
        return jnp.stack([jnp.sum(x).astype(jnp.float32) for x in numbers])[None]

    apart = PartitionSpec(AXIS)
    mesh = make_mesh(devices)
    program = Program(
        jax.shard_map(share, mesh=mesh, in_specs=apart, out_specs=apart, check_vma=False)
    )
    return Contender(
        f"environment alone, {devices} devices",
        lambda keys: program(actions, keys),
        lambda keys: program.compile(actions, keys),
        lambda seed: jax.random.split(jax.random.key(seed), task.population),
    )


def _evosax(task: _Task) -> Contender:
    """evosax's own loop in one jit: ask, evaluate and tell of its OpenES on its BraxProblem."""
    from evosax.algorithms import Open_ES
    from evosax.problems import BraxProblem

    class Policy(nn.Module):
        outputs: int

        @nn.compact
        def __call__(self, obs: jax.Array, key: jax.Array) -> jax.Array:
            x = obs
            for width in _NETWORK["hidden"]:
                x = nn.tanh(nn.Dense(width)(x))
            return nn.tanh(nn.Dense(self.outputs)(x))

    env = envs.make(task.env, **task.kwargs)
    (outputs,) = env.spec.action_space.shape or ()
    problem = BraxProblem(
        env_name=task.env.removeprefix("brax/"),
        policy=Policy(outputs),
        episode_length=env.spec.max_episode_steps,
        env_kwargs=task.kwargs,
    )
    solution = problem.sample(jax.random.key(0))
    es = Open_ES(task.population, solution, optimizer=optax.adam(0.02))
    params = es.default_params

    def run(key: jax.Array, es_state: Any, problem_state: Any) -> Any:
        ask_key, eval_key, tell_key = jax.random.split(key, 3)
        population, es_state = es.ask(ask_key, es_state, params)
        fitness, problem_state, _ = problem.eval(eval_key, population, problem_state)
        es_state, metrics = es.tell(tell_key, population, -fitness, es_state, params)
        return es_state, problem_state, jnp.mean(fitness)

    program = Program(run)

    def prepare(seed: int) -> Any:
        keys = jax.random.split(jax.random.key(seed), 3)
        return keys[0], es.init(keys[1], solution, params), problem.init(keys[2])

    return Contender(
        "evosax OpenES, 1 device",
        lambda given: program(*given),
        lambda given: program.compile(*given),
        prepare,
    )


def lanes(rounds: int, devices: int | None) -> list[Table]:
    """(d) Lane utilization and steps of live episodes per second, for several numbers of lanes."""
    count = make_mesh(devices).size
    rows = []
    for population in (256, 2048):
        task = _Task("brax/hopper", {"backend": "spring"}, _LOCOMOTION, population)
        for in_all in sorted({count, 4 * count, 16 * count, 64, 32 * count, 64 * count, 256}):
            rows.append(_lanes(task, in_all, count, rounds))
    columns = {
        "lanes": ",.0f",
        "members": ",.0f",
        "executed / useful": ".3f",
        "worst": ".3f",
        "useful steps/s": ",.0f",
        "seconds": ".3f",
    }
    title = f"(d) first generation of brax/hopper, backend=spring, MLP 3x256, {count} devices"
    notes = ["executed / useful: lane steps over env steps; median and worst of the seeds."]
    return [Table(title, columns, rows, notes)]


def _lanes(task: _Task, in_all: int, devices: int, rounds: int) -> Row:
    agent = make_agent(task, devices, lanes=in_all)
    excess, speeds = [], []

    def run(state: Any) -> Any:
        _, metrics = agent.step(state)
        excess.append(1 / float(metrics["lane_utilization"]))
        speeds.append(float(metrics["env_steps"]))
        return metrics

    def prepare(seed: int) -> Any:
        return agent.init(jax.random.key(seed))

    contender = Contender("", run, agent.compile, prepare)
    seconds, _ = side_by_side([contender], rounds)[""]
    return Row(
        f"{task.population} members, {in_all} lanes",
        {
            "members": task.population,
            "lanes": in_all,
            "executed / useful": float(np.median(excess[1:])),
            "worst": max(excess[1:]),
            "useful steps/s": float(np.median(speeds[1:])) / seconds,
            "seconds": seconds,
        },
    )
