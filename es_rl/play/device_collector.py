"""Collection of environment steps on devices, in one compiled program."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from envs.base import Env, State
from es_rl.devices import AXIS, Program, spread
from es_rl.play.jobs import at_step, info_names
from es_rl.play.player import Act, Collected, CollectionKeys, PyTree
from es_rl.play.rollout_data import where


class DeviceEpisodes(NamedTuple):
    """The state of N lanes between two steps."""

    state: State
    """The states of the environments; the first axis of every array is N."""
    total: jax.Array
    """(N,) float32, the return of each episode so far."""


class _Starts(NamedTuple):
    """A stock of N start states, each for one new episode."""

    state: State
    """The start states; the first axis of every array is N."""
    used: jax.Array
    """int32 scalar, the number of start states that have been used."""


class DeviceCollector:
    """A `Collector` of an environment on the accelerator.

    Each device steps its own lanes. Every episode has its own start key. One vmapped reset makes as
    many start states as a device has lanes, and ended lanes take them one after the other. When
    fewer are left than are needed, they are replaced by new ones. With n lanes this happens about
    once per n ended episodes, and never while no episode ends.
    """

    def __init__(self, env: Env, act: Act, mesh: Mesh, num_lanes: int, num_steps: int):
        self._env, self._act = env, act
        self._num_steps = num_steps
        apart, by_lane = PartitionSpec(AXIS), PartitionSpec(None, AXIS)
        self._started = jax.jit(
            partial(self._first_episodes, num_lanes), out_shardings=spread(mesh)
        )
        self._on_devices = jax.shard_map(
            self._collect_share,
            mesh=mesh,
            in_specs=(PartitionSpec(), apart, apart),
            out_specs=(apart, by_lane),
            check_vma=False,
        )
        # Without explicit placements JAX would replicate arrays of size 0, which some states hold.
        self._program = Program(
            self._on_devices,
            out_shardings=(spread(mesh), NamedSharding(mesh, by_lane)),
            donate_argnums=1,
        )

    def start(self, key: jax.Array) -> DeviceEpisodes:
        """See `Collector`."""
        episodes: DeviceEpisodes = self._started(np.asarray(jax.random.key_data(key)))
        return episodes

    def shapes(self, shared: PyTree, episodes: DeviceEpisodes, keys: CollectionKeys) -> Collected:
        """See `Collector`."""
        collected: Collected = self._program.shapes(shared, episodes, keys)[1]
        return collected

    def compile(self, shared: PyTree, episodes: DeviceEpisodes, keys: CollectionKeys) -> None:
        """See `Collector`."""
        self._program.compile(shared, episodes, keys)

    def collect(
        self, shared: PyTree, episodes: DeviceEpisodes, keys: CollectionKeys
    ) -> tuple[DeviceEpisodes, Collected, int]:
        """See `Collector`; nothing fails here."""
        return *self._program(shared, episodes, keys), 0

    def _first_episodes(self, num_lanes: int, key: jax.Array) -> DeviceEpisodes:
        state = _reset(self._env, num_lanes, jax.random.wrap_key_data(key))
        return DeviceEpisodes(state, jnp.zeros(num_lanes))

    def _collect_share(
        self, shared: PyTree, episodes: DeviceEpisodes, keys: CollectionKeys
    ) -> tuple[DeviceEpisodes, Collected]:
        """Collect the steps of one device's lanes."""
        actions, dynamics, starting = (jax.random.wrap_key_data(jnp.asarray(x)[0]) for x in keys)
        count = episodes.total.shape[0]

        def step(carry: tuple[DeviceEpisodes, _Starts], number: jax.Array) -> Any:
            episodes, starts = carry
            action, record = self._act(shared, episodes.state.obs, at_step(actions, number))
            lane_keys = jax.random.split(at_step(dynamics, number), count)
            state = jax.vmap(self._env.step)(episodes.state, action, lane_keys)
            total = episodes.total + state.reward
            ended = state.terminated | state.truncated
            totals = jnp.where(ended, total, jnp.nan)
            info = {
                name: jnp.where(ended, state.info[name].astype(jnp.float32), jnp.nan)
                for name in info_names(self._env.spec)
                if name in state.info
            }
            collected = Collected(
                record, state.reward, state.terminated, ended, state.obs, totals, info
            )
            wanted = jnp.cumsum(ended, dtype=jnp.int32)
            starts = jax.lax.cond(
                starts.used + wanted[-1] > count,
                lambda: _Starts(_reset(self._env, count, at_step(starting, number)), jnp.int32(0)),
                lambda: starts,
            )
            # The index of a lane that has not ended may be out of range; its value is not used.
            fresh = jax.tree.map(lambda x: x[starts.used + wanted - 1], starts.state)
            state = jax.tree.map(lambda new, old: where(ended, new, old), fresh, state)
            episodes = DeviceEpisodes(state, jnp.where(ended, 0.0, total))
            starts = starts._replace(used=starts.used + wanted[-1])
            return (episodes, starts), collected

        none_left = _Starts(episodes.state, jnp.int32(count))
        (episodes, _), collected = jax.lax.scan(
            step, (episodes, none_left), jnp.arange(self._num_steps)
        )
        return episodes, collected


def _reset(env: Env, count: int, key: jax.Array) -> State:
    """Return the start states of `count` episodes."""
    return jax.vmap(env.reset)(jax.random.split(key, count))
