"""What is asked to be played, what comes of it, and where all randomness of an episode comes from.

An episode has a key. Its start state, and each of its steps, have keys that are derived from it
here and nowhere else; a simulator on the host gets a seed that is derived from it instead. Keys
travel as key data, the integers that `jax.random.key_data` returns: NumPy arrays of them are at
once on all devices of all processes, and cost less in each call than typed keys.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from envs.base import EnvSpec

Array: TypeAlias = jax.Array | np.ndarray
TRAINING_SEEDS = 1 << 30
"""Training resets simulators with seeds below this number, evaluation with seeds from here to twice
as much: many simulators take a signed integer of 32 bits."""


class Jobs(NamedTuple):
    """The episodes to play, J of them."""

    member: np.ndarray
    """(J,) int32, who plays."""
    episode: np.ndarray
    """(J,) int32, which episode: jobs with the same number share start state and randomness."""


class Played(NamedTuple):
    """What came of J jobs, in job order."""

    returns: Array
    """(J,), undiscounted: float32 on the accelerator, float64 on the host."""
    lengths: Array
    """(J,) int32, env steps; 0 where the environment failed."""
    obs_sum: Array
    """(J, d) sums of the observation vectors that `act` returned."""
    obs_squares: Array
    """(J, d) sums of their squares."""
    lane_steps: Array
    """(devices,) int32, how many steps were executed, those of idle lanes included."""
    info: dict[str, Array]
    """(J,) float32 of each name: what the environment reported at the end of the episode, NaN where
    it reported nothing. "success" is 1, or 0 for failure; the other names are those of
    `EnvSpec.info_keys`. What an environment is known never to report is left out."""
    nonfinite_actions: Array | None = None
    """(J,) int32, how many steps had an action that was not finite. None on the accelerator, where
    such actions are not counted, but the observations that follow from them are."""


def info_names(spec: EnvSpec) -> tuple[str, ...]:
    """What an environment may report at the end of an episode, in the order of `Received.info`."""
    return ("success", *spec.info_keys)


def info_metric(name: str) -> str:
    """The metric that is the mean over episodes of what `Played.info` has under a name."""
    return "success_rate" if name == "success" else f"info_{name}_mean"


def without_unreported(metrics: dict[str, Any], info: Iterable[str]) -> dict[str, Any]:
    """Metrics without the means of what no episode has reported, which are NaN.

    Args:
      metrics: with one of each name of `info`.
      info: the names of what episodes may report.
    """
    unreported = {metric for metric in map(info_metric, info) if np.isnan(metrics[metric])}
    return {name: value for name, value in metrics.items() if name not in unreported}


def make_jobs(population_size: int, episodes_per_member: int, sharing: int) -> Jobs:
    """One job per member and episode; `sharing` neighbouring members play the same episodes."""
    member = np.repeat(np.arange(population_size, dtype=np.int32), episodes_per_member)
    repeat = np.tile(np.arange(episodes_per_member, dtype=np.int32), population_size)
    return Jobs(member, (member // sharing) * episodes_per_member + repeat)


def episode_keys(key: jax.Array, count: int) -> jax.Array:
    """`count` keys, one per episode; the first ones do not depend on `count`."""
    return jax.vmap(lambda episode: jax.random.fold_in(key, episode))(jnp.arange(count))


def reset_key(episode_key: jax.Array) -> jax.Array:
    """The key of an episode's start state."""
    return jax.random.fold_in(episode_key, 0)


def step_keys(episode_key: jax.Array, steps: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The keys of one step: for the policy and for the environment."""
    # Number 0 belongs to the reset.
    policy_key, env_key = jax.random.split(jax.random.fold_in(episode_key, steps + 1))
    return policy_key, env_key


def at_step(key: jax.Array, step: jax.Array | int) -> jax.Array:
    """The key of one step of several lanes, for a use that has `key` of its own."""
    return jax.random.fold_in(key, step)


def episode_seeds(keys: Array, *, evaluation: bool) -> np.ndarray:
    """One seed per episode for a simulator's `reset`, int64.

    Args:
      keys: (episodes, ...) key data.
      evaluation: whether to return seeds that training never uses: see `TRAINING_SEEDS`.
    """
    bits = np.asarray(keys)[..., -1] & (TRAINING_SEEDS - 1)
    return bits.astype(np.int64) + evaluation * TRAINING_SEEDS


def wide_sum(counts: Array) -> jax.Array:
    """The sum, below 2^40, of at most 2^24 counts on a device of 32 bits; see `as_int`.

    Returns:
      (2,) uint32: how many times 256, and the rest.
    """
    counts = jnp.asarray(counts).astype(jnp.uint32)
    return jnp.stack([jnp.sum(part, dtype=jnp.uint32) for part in (counts >> 8, counts & 255)])


def as_int(wide: np.ndarray) -> int:
    """The number that `wide_sum` returned, on the host."""
    return int(wide[0]) * 256 + int(wide[1])


def pack(played: Played) -> jax.Array:
    """What one device has played as one int32 array, so that one exchange is enough.

    Returns:
      (jobs + 1, 2 + 2 d + k) where the environment reports k scalars.
    """
    per_job = [played.returns[:, None], played.obs_sum, played.obs_squares]
    per_job += [played.info[name][:, None] for name in sorted(played.info)]
    # Numbers of integers, as bits: those of floating-point numbers need not survive.
    bits = jax.lax.bitcast_convert_type(jnp.concatenate(per_job, axis=1), jnp.int32)
    rows = jnp.concatenate([jnp.asarray(played.lengths)[:, None], bits], axis=1)
    return jnp.concatenate([rows, jnp.broadcast_to(played.lane_steps, (1, rows.shape[1]))])


def unpack(packed: jax.Array, jobs: int, info: Iterable[str]) -> Played:
    """What `pack` has packed on all devices (devices, ..., ...), without the padding."""
    rows = packed[:, :-1].reshape(-1, packed.shape[-1])[:jobs]
    values = jax.lax.bitcast_convert_type(rows[:, 1:], jnp.float32)
    names = sorted(info)
    size = (values.shape[1] - 1 - len(names)) // 2
    return Played(
        returns=values[:, 0],
        lengths=rows[:, 0],
        obs_sum=values[:, 1 : 1 + size],
        obs_squares=values[:, 1 + size : 1 + 2 * size],
        lane_steps=packed[:, -1, 0],
        info={name: values[:, 1 + 2 * size + i] for i, name in enumerate(names)},
    )
