"""How lanes on the host act: in one call for many, in blocks of one size."""

from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from es_rl.play.jobs import Array, step_keys
from es_rl.play.player import Behaviour, PyTree
from es_rl.play.rollout import where

BLOCK = 32
"""Rows of a matrix product. One of another size may round differently, so actions are computed in
blocks of this size, however many lanes there are: they then change no return."""


class _Carry(NamedTuple):
    """What one half keeps on the device between steps; all arrays are (blocks, rows, ...)."""

    selected: PyTree
    memory: PyTree
    obs_sum: jax.Array
    obs_squares: jax.Array


@dataclass(frozen=True, eq=False)
class HostActing:
    """Computes the actions of lanes, in blocks; compiles once.

    In both functions `shared` is that of the `Behaviour`, and `keys` the key data of the episodes.
    """

    behaviour: Behaviour

    def vector(self, shared: PyTree, keys: Array, obs: Array) -> Any:
        """The shape of the vector that `Behaviour.act` returns, for one observation."""

        def one(shared: PyTree, keys: jax.Array, obs: jax.Array) -> jax.Array:
            selected = self.behaviour.select(shared, jnp.int32(0))
            key = jax.random.wrap_key_data(keys)[0]
            return self.behaviour.act(shared, selected, self.behaviour.memory, obs, key)[2]

        return jax.eval_shape(one, shared, keys, obs)

    @cached_property
    def start(self) -> Any:
        """(shared, keys, obs) -> the carry of a half, with any values."""

        def start(shared: PyTree, keys: jax.Array, obs: jax.Array) -> _Carry:
            nobody = jnp.zeros((obs.shape[0] // BLOCK, BLOCK), jnp.int32)
            zeros = jnp.zeros((*nobody.shape, *self.vector(shared, keys, obs[0]).shape))
            return _Carry(*self._of_members(shared, nobody), zeros, zeros)

        return jax.jit(start)

    @cached_property
    def act(self) -> Any:
        """(shared, keys, carry, numbers, obs) -> (actions, carry).

        For a half of n lanes: `obs` is (n, ...), `numbers` (4, n) int32, whose rows are 1 where an
        episode starts, else 0; the member; the number of the episode's key; its steps so far.
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

            # In most steps of long episodes nobody starts, and looking factors up is what a
            # perturbed network costs beyond an unperturbed one.
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
    """Observations as policies see them: floating-point ones as float32; no copy if they are."""
    floats = np.issubdtype(obs.dtype, np.floating)
    return obs.astype(np.float32, copy=False) if floats else obs
