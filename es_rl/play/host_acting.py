"""How lanes on the host act: in one call for many, in blocks of one size."""

from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from es_rl.play.jobs import step_keys
from es_rl.play.rollout import Behaviour, PyTree, where

BLOCK = 32
"""Rows of a matrix product. One of another size may round differently, so actions are computed in
blocks of this size, however many lanes there are: they then change no return."""


class _Carry(NamedTuple):
    """What one half keeps on the device between steps; all arrays are (blocks, rows, ...)."""

    selected: PyTree
    memory: PyTree
    obs_sum: jax.Array
    obs_squares: jax.Array


@partial(jax.tree_util.register_dataclass, data_fields=["leaves"], meta_fields=["structure"])
@dataclass(frozen=True)
class Constants:
    """What stays the same during a play, taken apart once.

    Left to JAX it happens in every call, in Python where there are Flax's dataclasses or typed
    keys, and takes longer than the actions of a small network.
    """

    leaves: list[jax.Array]
    """Of (shared, keys); of typed keys their data."""
    structure: tuple[Any, tuple[Any, ...]]
    """The tree, and for each leaf the kind of key that it is, or None."""

    @staticmethod
    def of(shared: PyTree, keys: jax.Array) -> "Constants":
        """Of what a `Behaviour` shares, and one typed key per episode."""
        leaves, tree = jax.tree.flatten((shared, keys))
        kinds = [jax.random.key_impl(x) if _is_key(x) else None for x in leaves]
        leaves = [jax.random.key_data(x) if _is_key(x) else x for x in leaves]
        return Constants(leaves, (tree, tuple(kinds)))

    def together(self) -> tuple[PyTree, jax.Array]:
        """(shared, keys)."""
        tree, kinds = self.structure
        leaves = [
            x if kind is None else jax.random.wrap_key_data(x, impl=kind)
            for x, kind in zip(self.leaves, kinds, strict=True)
        ]
        shared, keys = jax.tree.unflatten(tree, leaves)
        return shared, keys


def _is_key(x: Any) -> bool:
    return bool(jnp.issubdtype(jnp.result_type(x), jax.dtypes.prng_key))


@dataclass(frozen=True, eq=False)
class HostActing:
    """Computes the actions of lanes, in blocks; compiles once."""

    behaviour: Behaviour

    @cached_property
    def start(self) -> Any:
        """(constants, obs) -> the carry of a half, with any values."""

        def start(constants: Constants, obs: jax.Array) -> _Carry:
            shared, keys = constants.together()
            nobody = jnp.zeros((obs.shape[0] // BLOCK, BLOCK), jnp.int32)
            selected, memory = self._of_members(shared, nobody)
            first = jax.tree.map(lambda x: x[0, 0], (selected, memory))
            vector = jax.eval_shape(self.behaviour.act, shared, *first, obs[0], keys[0])[2]
            zeros = jnp.zeros((*nobody.shape, *vector.shape))
            return _Carry(selected, memory, zeros, zeros)

        return jax.jit(start)

    @cached_property
    def act(self) -> Any:
        """(constants, carry, numbers, obs) -> (actions, carry).

        For a half of n lanes: `obs` is (n, ...), `numbers` (4, n) int32, whose rows are 1 where an
        episode starts, else 0; the member; the number of the episode's key; its steps so far.
        """

        def act(constants: Constants, carry: _Carry, numbers: jax.Array, obs: jax.Array) -> Any:
            shared, keys = constants.together()
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
                policy_keys, _ = jax.vmap(step_keys)(keys[episode], steps)
                actions, memory, vector = jax.vmap(self.behaviour.act, in_axes=(None, 0, 0, 0, 0))(
                    shared, carry.selected, carry.memory, obs, policy_keys
                )
                sums = carry.obs_sum + vector, carry.obs_squares + vector**2
                return actions, carry._replace(memory=memory, obs_sum=sums[0], obs_squares=sums[1])

            obs = obs.reshape(-1, BLOCK, *obs.shape[1:])
            actions, carry = jax.lax.map(block, (carry, episode, steps, obs))
            return actions.reshape(-1, *actions.shape[2:]), carry

        return jax.jit(act, donate_argnums=1)

    def _of_members(self, shared: PyTree, member: jax.Array) -> tuple[PyTree, PyTree]:
        select = jax.vmap(jax.vmap(self.behaviour.select, in_axes=(None, 0)), in_axes=(None, 0))
        memory = jax.tree.map(
            lambda x: jnp.broadcast_to(x, (*member.shape, *x.shape)), self.behaviour.memory
        )
        return select(shared, member), memory


def as_float32(obs: np.ndarray) -> np.ndarray:
    """Observations as policies see them: floating-point ones as float32."""
    return obs.astype(np.float32) if np.issubdtype(obs.dtype, np.floating) else obs
