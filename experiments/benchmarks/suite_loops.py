"""Benchmark of the suites on the accelerator: our lanes against each suite's own loop with
auto-reset, both with random actions."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import envs
from agents.policies.actors import RandomActor
from envs.available import obstacle
from envs.base import Env
from es_rl.devices import make_mesh
from es_rl.play.device_player import DevicePlayer
from es_rl.play.jobs import make_jobs
from es_rl.play.player import Behaviour
from es_rl.play.rollout import Rollout
from experiments.benchmarks.timing import Contender, Row, Table, side_by_side

_LANES = 32


class _Loop(NamedTuple):
    """A suite's own environments with auto-reset, vectorised as its authors do."""

    reset: Callable[[jax.Array], Any]
    """Keys (n, ...) -> states."""
    step: Callable[[Any, jax.Array, jax.Array], tuple[Any, Any]]
    """(states, actions (n, ...), keys (n, ...)) -> (states, observations and rewards)."""


def _brax(name: str, limit: int, **kwargs: Any) -> _Loop:
    import brax.envs

    lasting = {"episode_length": limit, "auto_reset": True, "batch_size": _LANES}
    env = brax.envs.create(name, **lasting, **kwargs)
    # It makes a batch of states from one key.
    reset, step = lambda keys: env.reset(keys[0]), env.step
    return _Loop(reset, lambda state, action, key: (step(state, action), ()))


def _playground(name: str, limit: int) -> _Loop:
    from mujoco_playground import registry, wrapper

    impl = {"impl": "jax"} if jax.default_backend() == "cpu" else {}
    env = registry.load(name, config_overrides=impl)
    env = wrapper.wrap_for_brax_training(env, episode_length=limit)
    return _Loop(env.reset, lambda state, action, key: (env.step(state, action), ()))


def _gymnax(name: str, limit: int) -> _Loop:
    import gymnax

    return _like_gymnax(*gymnax.make(name))


def _like_gymnax(env: Any, params: Any) -> _Loop:
    def step(states: Any, actions: jax.Array, keys: jax.Array) -> tuple[Any, Any]:
        stepped = jax.vmap(env.step, (0, 0, 0, None))(keys, states, actions, params)
        obs, states, reward, done, _ = stepped
        return states, (obs, reward, done)

    return _Loop(lambda keys: jax.vmap(env.reset, (0, None))(keys, params)[1], step)


def _craftax(name: str, limit: int) -> _Loop:
    from craftax.craftax_env import make_craftax_env_from_name

    env = make_craftax_env_from_name(f"{name}-v1", auto_reset=True)
    return _like_gymnax(env, env.default_params)


def _kinetix(name: str, limit: int) -> _Loop:
    from kinetix.environment import ActionType, ObservationType, make_kinetix_env
    from kinetix.util.saving import load_from_json_file

    level, static, params = load_from_json_file(name)
    env = make_kinetix_env(
        ActionType.CONTINUOUS,
        ObservationType.SYMBOLIC_FLAT,
        lambda key: level,
        params,
        static,
        auto_reset=True,
    )
    return _like_gymnax(env, params)


def _jumanji(name: str, limit: int) -> _Loop:
    from jumanji.registration import make
    from jumanji.wrappers import VmapAutoResetWrapper

    env = VmapAutoResetWrapper(make(name))
    return _Loop(
        lambda keys: env.reset(keys)[0], lambda states, actions, keys: env.step(states, actions)
    )


def _navix(name: str, limit: int) -> _Loop:
    import navix

    env = navix.make(name)
    step = jax.vmap(env.step)
    return _Loop(jax.vmap(env.reset), lambda states, actions, keys: (step(states, actions), ()))


def _pgx(name: str, limit: int) -> _Loop:
    import pgx
    from pgx.experimental import auto_reset

    env = pgx.make(name)
    step = jax.vmap(auto_reset(env.step, env.init))
    return _Loop(jax.vmap(env.init), lambda *given: (step(*given), ()))


_LOOPS: dict[str, Callable[..., _Loop]] = {
    "brax": _brax,
    "craftax": _craftax,
    "gymnax": _gymnax,
    "jumanji": _jumanji,
    "kinetix": _kinetix,
    "navix": _navix,
    "pgx": _pgx,
    "playground": _playground,
}


class _Task(NamedTuple):
    """An environment, and how long the two contenders play it."""

    id: str
    """Its id."""
    limit: int
    """The number of steps after which episodes are truncated."""
    episodes: int
    """The number of episodes that our lanes play to their ends."""
    steps: int
    """The number of steps that each lane of the suite's own loop makes."""
    kwargs: dict[str, Any] = {}
    """Arguments of the environment."""


_TASKS = (
    _Task("brax/ant", 250, 64, 500, {"terminate_when_unhealthy": False}),
    _Task("brax/ant", 1000, 512, 500),
    _Task("playground/CartpoleBalance", 1000, 512, 16_000),
    _Task("gymnax/Pendulum-v1", 200, 4096, 25_600),
    _Task("gymnax/CartPole-v1", 500, 65_536, 45_000),
    _Task("gymnax/Breakout-MinAtar", 1000, 16_384, 5000),
    _Task("jumanji/Snake-v1", 1000, 8192, 6000),
    _Task("jumanji/Knapsack-v1", 50, 32_768, 10_000),
    _Task("kinetix/s/h1_thrust_over_ball", 256, 1024, 800),
    _Task("navix/Navix-DoorKey-8x8-v0", 100, 4096, 6000),
    _Task("craftax/Craftax-Classic-Symbolic", 200, 256, 400),
    _Task("pgx/2048", 1000, 8192, 4000),
)


def suites(rounds: int) -> Iterator[Table]:
    """(i) Env steps per second of our lanes and of the suites' own loops."""
    for task in _TASKS:
        if obstacle(task.id) is None:
            yield _suite(task, rounds)


def _suite(task: _Task, rounds: int) -> Table:
    env = envs.make(task.id, max_episode_steps=task.limit, **task.kwargs)
    assert isinstance(env, Env)
    actor = RandomActor(env.spec.action_space)
    counted: list[_Counted] = []
    suite, _, name = task.id.partition("/")
    own = _LOOPS[suite](name, task.limit, **task.kwargs)
    contenders = [
        _lanes(env, actor, task.episodes, counted),
        _own_loop(own, actor, task.steps),
    ]
    taken = side_by_side(contenders, rounds)
    played, made = (float(np.median(x)) for x in zip(*counted[1:], strict=True))
    theirs = _LANES * task.steps
    rates = [
        count / taken[contender.name][0]
        for contender, count in zip(contenders, (played, theirs), strict=True)
    ]
    rows = [
        Row(
            contender.name,
            {
                "env steps/s": rate,
                "ratio to the suite's": rate / rates[1],
                "busy lanes": busy,
                "compile s": taken[contender.name][1],
            },
        )
        for contender, rate, busy in zip(contenders, rates, (played / made, 1.0), strict=True)
    ]
    columns = {
        "env steps/s": ",.0f",
        "ratio to the suite's": ".2f",
        "busy lanes": ".0%",
        "compile s": ".1f",
    }
    notes = [
        f"{_LANES} lanes on one device, random actions. Ours play {task.episodes:,} episodes to "
        f"their ends ({played:,.0f} steps, {played / task.episodes:,.0f} an episode), theirs "
        f"{theirs:,} steps with auto-reset. When no episode is left to begin, lanes are idle "
        "until the longest has ended; their steps do not count."
    ]
    given = "".join(f", {name}={value}" for name, value in task.kwargs.items())
    return Table(f"(i) {task.id}, at most {task.limit} steps{given}", columns, rows, notes)


class _Counted(NamedTuple):
    """The steps of one round of our lanes."""

    played: int
    """The steps of episodes."""
    made: int
    """The steps of all lanes, those of idle lanes included."""


def _lanes(env: Env, actor: RandomActor, episodes: int, counted: list[_Counted]) -> Contender:
    """Our lanes, which play whole episodes; the steps of each round are added to `counted`."""

    def act(shared: Any, selected: Any, memory: Any, obs: jax.Array, key: jax.Array) -> Any:
        return *actor.act(None, memory, obs, key), jnp.zeros(0)

    behaviour = Behaviour(lambda shared, member: (), (), act)
    jobs = make_jobs(episodes, 1, sharing=1)
    player = DevicePlayer(Rollout(env, behaviour, jobs, make_mesh(1), _LANES))

    def play(keys: np.ndarray) -> Any:
        played = player.play((), keys)
        counted.append(_Counted(int(np.sum(played.lengths)), int(np.sum(played.lane_steps))))
        return played.returns

    data = np.asarray(_keys(jax.random.key(0), episodes))
    return Contender(
        "our lanes",
        play,
        lambda keys: player.compile((), keys),
        lambda number: data + np.uint32(number),
    )


def _own_loop(loop: _Loop, actor: RandomActor, steps: int) -> Contender:
    """The suite's own loop, of some steps of all lanes."""

    def run(key: jax.Array) -> Any:
        def step(number: int | jax.Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
            now = jax.random.fold_in(key, number)
            draw = jax.vmap(lambda key: actor.act(None, (), jnp.zeros(0), key)[0])
            actions = draw(jax.random.split(now, _LANES))
            return loop.step(carry[0], actions, _keys(now, _LANES))

        # The observations are carried along, as XLA would not compute what nobody reads.
        begun = loop.reset(_keys(key, _LANES))
        return jax.lax.fori_loop(1, steps, step, step(0, (begun, None)))

    compiled = jax.jit(run)
    return Contender(
        "the suite's own loop",
        compiled,
        lambda key: jax.block_until_ready(compiled(key)),
        lambda number: jax.random.key(number),
    )


def _keys(key: jax.Array, count: int) -> jax.Array:
    """`count` keys in the old form, which most suites want."""
    return jax.random.key_data(jax.random.split(key, count))
