"""Single episodes for films: the states of an episode on devices, or a policy for one on the host.

Each is the same episode that a `Player` plays in an evaluation. On the host the two are identical
in every bit. On devices they agree up to rounding, which chaotic physics amplifies in long
episodes.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from envs.base import Env, State
from es_rl.play.host_acting import HostActing, as_float32
from es_rl.play.host_player import with_idle_lanes
from es_rl.play.jobs import Array, reset_key, step_keys
from es_rl.play.player import Behaviour, PyTree

EVALUATION_LANES = 32
"""The number of lanes of an evaluation, on each device or on the host. It does not depend on the
number of episodes: a matrix product of another size may round differently, and a replayed episode
must give the recorded return."""
HostActor: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""A function obs -> action for one episode. It must be called for every step from the start on."""


_PORTION = 256
"""Steps that are played at once, so that the memory does not grow with the limit of steps."""


def _alike(x: Any) -> Any:
    """Repeat arrays to the number of lanes of an evaluation, so that results round the same way."""
    return jax.tree.map(lambda x: jnp.stack([x] * EVALUATION_LANES), x)


def host_actors(behaviour: Behaviour, shared: PyTree, keys: Array) -> Iterator[HostActor]:
    """Yield for each key a function that acts as member 0 in the episode of this key.

    The function keeps the policy's memory of the episode.
    """
    # Use the same program as an evaluation, as another program might round differently.
    acting = HostActing(behaviour)
    lanes = with_idle_lanes(EVALUATION_LANES) // 2

    def actor(key: np.ndarray) -> HostActor:
        carry: Any = None
        fresh, _, _, steps = numbers = np.zeros((4, lanes), np.int32)
        fresh[:] = 1

        def act(obs: np.ndarray) -> np.ndarray:
            nonlocal carry
            rows = np.stack([as_float32(np.asarray(obs))] * lanes)
            if carry is None:
                carry = acting.start(shared, key[None], rows)
            actions, carry = acting.act(shared, key[None], carry, numbers, rows)
            actions = np.asarray(actions)
            fresh[:] = 0
            steps[:] += 1
            return actions[0]

        return act

    return map(actor, np.asarray(keys))


def device_states(
    env: Env, behaviour: Behaviour, shared: PyTree, keys: Array
) -> Iterator[Iterator[State]]:
    """Yield for each key the states of its episode, played by member 0, from the start state on."""
    selected = behaviour.select(shared, jnp.int32(0))

    def one_lane(lane: tuple[State, Any], shared: PyTree, key: jax.Array) -> tuple[State, Any]:
        state, memory = lane
        policy_key, env_key = step_keys(key, state.steps)
        action, memory, _ = behaviour.act(shared, selected, memory, state.obs, policy_key)
        return env.step(state, action, env_key), memory

    @jax.jit
    def start(keys: jax.Array) -> tuple[State, Any]:
        states = jax.vmap(lambda key: env.reset(reset_key(key)))(keys)
        return states, _alike(behaviour.memory)

    @jax.jit
    def go_on(shared: PyTree, lanes: tuple[State, Any], keys: jax.Array) -> tuple[Any, State]:
        def body(lanes: tuple[State, Any], _: None) -> tuple[tuple[State, Any], State]:
            following = jax.vmap(one_lane, in_axes=(0, None, 0))(lanes, shared, keys)
            return following, jax.tree.map(lambda x: x[0], following[0])

        return jax.lax.scan(body, lanes, None, min(_PORTION, env.spec.max_episode_steps))

    def states(keys: jax.Array) -> Iterator[State]:
        lanes = start(keys)
        yield jax.tree.map(lambda x: x[0], jax.device_get(lanes[0]))
        while True:
            lanes, portion = go_on(shared, lanes, keys)
            portion = jax.device_get(portion)
            ended = portion.terminated | portion.truncated
            for i in range(len(ended)):
                yield jax.tree.map(lambda x: np.array(x[i]), portion)  # noqa: B023
                if ended[i]:
                    return

    return (states(_alike(key)) for key in jax.random.wrap_key_data(jnp.asarray(keys)))
