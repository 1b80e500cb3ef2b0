"""Collects steps of environments on devices, in one program."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from envs.base import Env, State
from es_rl.devices import AXIS, Program, spread
from es_rl.play.jobs import at_step, info_names
from es_rl.play.player import Act, Collected, CollectionKeys, PyTree
from es_rl.play.rollout import where


class DeviceLanes(NamedTuple):
    """N environments between two steps."""

    state: State
    total: jax.Array
    """(N,) the return of each episode so far."""


class _Starts(NamedTuple):
    """Start states of N episodes, each for one of them."""

    state: State
    used: jax.Array
    """int32 scalar, how many of them have been handed out."""


class DeviceCollector:
    """A `Collector` of an environment on the accelerator.

    Each device steps its own lanes. Every episode starts from a key of its own. One vmapped reset
    makes start states for all lanes of a device, which are handed out one after the other. It is
    called when fewer are left than are needed, and so never while no episode ends, and about once
    for so many episodes.
    """

    def __init__(self, env: Env, act: Act, mesh: Mesh, num_lanes: int, num_steps: int):
        self._env, self._act = env, act
        self._num_steps = num_steps
        apart, by_lane = PartitionSpec(AXIS), PartitionSpec(None, AXIS)
        self._started = jax.jit(partial(self._start_lanes, num_lanes), out_shardings=spread(mesh))
        self._on_devices = jax.shard_map(
            self._collect_share,
            mesh=mesh,
            in_specs=(PartitionSpec(), apart, apart),
            out_specs=(apart, by_lane),
            check_vma=False,
        )
        self._program = Program(self._on_devices, donate_argnums=1)

    def start(self, key: jax.Array) -> DeviceLanes:
        """See `Collector`."""
        lanes: DeviceLanes = self._started(np.asarray(jax.random.key_data(key)))
        return lanes

    def shapes(self, shared: PyTree, lanes: DeviceLanes, keys: CollectionKeys) -> Collected:
        """See `Collector`."""
        collected: Collected = jax.eval_shape(self._on_devices, shared, lanes, keys)[1]
        return collected

    def compile(self, shared: PyTree, lanes: DeviceLanes, keys: CollectionKeys) -> None:
        """See `Collector`."""
        self._program.compile(shared, lanes, keys)

    def collect(
        self, shared: PyTree, lanes: DeviceLanes, keys: CollectionKeys
    ) -> tuple[DeviceLanes, Collected, int]:
        """See `Collector`; nothing fails here."""
        return *self._program(shared, lanes, keys), 0

    def _start_lanes(self, num_lanes: int, key: jax.Array) -> DeviceLanes:
        state = _reset(self._env, num_lanes, jax.random.wrap_key_data(key))
        return DeviceLanes(state, jnp.zeros(num_lanes))

    def _collect_share(
        self, shared: PyTree, lanes: DeviceLanes, keys: CollectionKeys
    ) -> tuple[DeviceLanes, Collected]:
        """What one device does."""
        actions, dynamics, starting = (jax.random.wrap_key_data(jnp.asarray(x)[0]) for x in keys)
        count = lanes.total.shape[0]

        def step(carry: tuple[DeviceLanes, _Starts], number: jax.Array) -> Any:
            lanes, starts = carry
            action, record = self._act(shared, lanes.state.obs, at_step(actions, number))
            lane_keys = jax.random.split(at_step(dynamics, number), count)
            state = jax.vmap(self._env.step)(lanes.state, action, lane_keys)
            total = lanes.total + state.reward
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
            # The row of a lane that plays on may be out of range: what is read there is not used.
            fresh = jax.tree.map(lambda x: x[starts.used + wanted - 1], starts.state)
            state = jax.tree.map(lambda new, old: where(ended, new, old), fresh, state)
            lanes = DeviceLanes(state, jnp.where(ended, 0.0, total))
            starts = starts._replace(used=starts.used + wanted[-1])
            return (lanes, starts), collected

        none_left = _Starts(lanes.state, jnp.int32(count))
        (lanes, _), collected = jax.lax.scan(step, (lanes, none_left), jnp.arange(self._num_steps))
        return lanes, collected


def _reset(env: Env, count: int, key: jax.Array) -> State:
    """Start states of so many episodes."""
    return jax.vmap(env.reset)(jax.random.split(key, count))
