"""Computation of actions for lanes on the host: many lanes per call, in blocks of a fixed size."""

from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from es_rl.play.jobs import Array, step_keys
from es_rl.play.player import Behaviour, PyTree
from es_rl.play.rollout_data import where

BLOCK = 32
"""The number of lanes in a block, that is the number of rows of a matrix product. A product of
another size may round differently, so with a fixed block size the number of lanes does not change
any return."""


class _Carry(NamedTuple):
    """The data that one half of the lanes keeps on the device between steps.

    All arrays are (blocks, BLOCK, ...), with one entry per lane.
    """

    selected: PyTree
    """What `Behaviour.select` returned for the lane's member."""
    memory: PyTree
    """The policy's memory of the episode."""
    obs_sum: jax.Array
    """The sum of the episode's observation vectors so far."""
    obs_squares: jax.Array
    """The sum of the squares of these vectors."""


@dataclass(frozen=True, eq=False)
class HostActing:
    """Computes the actions of lanes, in blocks. Each function is compiled once.

    In all functions `shared` is the shared data of the `Behaviour`, and `keys` is the key data of
    the episodes.
    """

    behaviour: Behaviour
    """How members act."""

    def vector(self, shared: PyTree, keys: Array, obs: Array) -> Any:
        """Return the shape of the vector that `Behaviour.act` returns for one observation."""

        def one(shared: PyTree, keys: jax.Array, obs: jax.Array) -> jax.Array:
            selected = self.behaviour.select(shared, jnp.int32(0))
            key = jax.random.wrap_key_data(keys)[0]
            return self.behaviour.act(shared, selected, self.behaviour.memory, obs, key)[2]

        return jax.eval_shape(one, shared, keys, obs)

    @cached_property
    def start(self) -> Any:
        """(shared, keys, obs) -> a carry for one half, whose values do not matter."""

        def start(shared: PyTree, keys: jax.Array, obs: jax.Array) -> _Carry:
            nobody = jnp.zeros((obs.shape[0] // BLOCK, BLOCK), jnp.int32)
            zeros = jnp.zeros((*nobody.shape, *self.vector(shared, keys, obs[0]).shape))
            return _Carry(*self._of_members(shared, nobody), zeros, zeros)

        return jax.jit(start)

    @cached_property
    def act(self) -> Any:
        """(shared, keys, carry, numbers, obs) -> (actions, carry).

        For one half of n lanes, `obs` is (n, ...) and `numbers` is (4, n) int32. The rows of
        `numbers` are: 1 if the lane's episode starts now and 0 otherwise; the member; the index of
        the episode in `keys`; the steps of the episode so far.
        """

        def act(
            shared: PyTree, keys: jax.Array, carry: _Carry, numbers: jax.Array, obs: jax.Array
        ) -> Any:
            fresh, member, episode, steps = numbers.reshape(4, -1, BLOCK)
            fresh = fresh.astype(bool)

            def refill(carry: _Carry) -> _Carry:
                zeros = jnp.zeros_like(carry.obs_sum)
                new = _Carry(*self._of_members(shared, member), zeros, zeros)
                return jax.tree.map(partial(where, fresh), new, carry)

            # In most steps of long episodes no lane starts. The lookup of the factors is most of
            # the extra cost of a perturbed network, so it is skipped then.
            carry = jax.lax.cond(fresh.any(), refill, lambda carry: carry, carry)

            def block(
                rows: tuple[_Carry, jax.Array, jax.Array, jax.Array],
            ) -> tuple[jax.Array, _Carry]:
                carry, episode, steps, obs = rows
                episode_key = jax.random.wrap_key_data(keys)[episode]
                policy_keys, _ = jax.vmap(step_keys)(episode_key, steps)
                actions, memory, vector = jax.vmap(self.behaviour.act, in_axes=(None, 0, 0, 0, 0))(
                    shared, carry.selected, carry.memory, obs, policy_keys
                )
                sums = carry.obs_sum + vector, carry.obs_squares + vector**2
                return actions, carry._replace(memory=memory, obs_sum=sums[0], obs_squares=sums[1])

            obs = obs.reshape(-1, BLOCK, *obs.shape[1:])
            actions, carry = jax.lax.map(block, (carry, episode, steps, obs))
            return actions.reshape(-1, *actions.shape[2:]), carry

        return jax.jit(act, donate_argnums=2)

    def _of_members(self, shared: PyTree, member: jax.Array) -> tuple[PyTree, PyTree]:
        select = jax.vmap(jax.vmap(self.behaviour.select, in_axes=(None, 0)), in_axes=(None, 0))
        memory = jax.tree.map(
            lambda x: jnp.broadcast_to(x, (*member.shape, *x.shape)), self.behaviour.memory
        )
        return select(shared, member), memory


def as_float32(obs: np.ndarray) -> np.ndarray:
    """Convert floating-point observations to float32, without a copy if they are already."""
    floats = np.issubdtype(obs.dtype, np.floating)
    return obs.astype(np.float32, copy=False) if floats else obs
