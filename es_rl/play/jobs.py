"""The jobs of a rollout, their results, and the source of all randomness in an episode.

Every episode has a key. The keys of its start state and of each of its steps are derived from it in
this module and nowhere else. A simulator on the host gets a seed that is derived from the same key.
Keys are passed as key data, the integers that `jax.random.key_data` returns: a NumPy array of them
can be used on all devices of all processes, and costs less per call than typed keys.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from envs.base import EnvSpec

Array: TypeAlias = jax.Array | np.ndarray
TRAINING_SEEDS = 1 << 30
"""Training resets simulators with seeds below this number, evaluation with seeds from this number
to just below its double. Many simulators only accept signed 32-bit integers."""


class Jobs(NamedTuple):
    """J jobs. A job is one episode that one member plays."""

    member: np.ndarray
    """(J,) int32, the member that plays."""
    episode: np.ndarray
    """(J,) int32, the episode. Jobs of the same episode share start state and randomness."""


class Played(NamedTuple):
    """The results of J jobs, in job order."""

    returns: Array
    """(J,), undiscounted returns: float32 on the accelerator, float64 on the host."""
    lengths: Array
    """(J,) int32, the number of environment steps; 0 if the environment failed."""
    obs_sum: Array
    """(J, d), sums of the observation vectors that `act` returned."""
    obs_squares: Array
    """(J, d), sums of the squares of these vectors."""
    lane_steps: Array
    """(devices,) int32, the number of executed steps of all lanes, including idle lanes."""
    info: dict[str, Array]
    """(J,) float32 for each name: what the environment reported at the end of the episode, NaN if
    it reported nothing. "success" is 1, or 0 for failure; the other names are those of
    `EnvSpec.info_keys`. Names that an environment never reports are left out if that is known."""
    nonfinite_actions: Array | None = None
    """(J,) int32, the number of steps whose action was not finite. None on the accelerator, where
    such actions are not counted, but the observations that follow from them are."""


def info_names(spec: EnvSpec) -> tuple[str, ...]:
    """Return the scalars that an environment may report, in the order of `Received.info`."""
    return ("success", *spec.info_keys)


def info_metric(name: str) -> str:
    """Return the name of the metric of one entry of `Played.info`, its mean over episodes."""
    return "success_rate" if name == "success" else f"info_{name}_mean"


def without_unreported(metrics: dict[str, Any], info: Iterable[str]) -> dict[str, Any]:
    """Return the metrics without the means of scalars that no episode reported, which are NaN.

    Args:
      metrics: the metrics, with one for each name in `info`.
      info: the names of the scalars that episodes may report.
    """
    unreported = {metric for metric in map(info_metric, info) if np.isnan(metrics[metric])}
    return {name: value for name, value in metrics.items() if name not in unreported}


def make_jobs(population_size: int, episodes_per_member: int, sharing: int) -> Jobs:
    """Make one job per member and episode. `sharing` neighbouring members share their episodes."""
    member = np.repeat(np.arange(population_size, dtype=np.int32), episodes_per_member)
    repeat = np.tile(np.arange(episodes_per_member, dtype=np.int32), population_size)
    return Jobs(member, (member // sharing) * episodes_per_member + repeat)


def episode_keys(key: jax.Array, count: int) -> jax.Array:
    """Return `count` keys, one per episode. The first n keys are the same for every count >= n."""
    return jax.vmap(lambda episode: jax.random.fold_in(key, episode))(jnp.arange(count))


def reset_key(episode_key: jax.Array) -> jax.Array:
    """Return the key of an episode's start state."""
    return jax.random.fold_in(episode_key, 0)


def step_keys(episode_key: jax.Array, steps: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the keys of one step, for the policy and for the environment."""
    # The number 0 is used for the reset.
    policy_key, env_key = jax.random.split(jax.random.fold_in(episode_key, steps + 1))
    return policy_key, env_key


def at_step(key: jax.Array, step: jax.Array | int) -> jax.Array:
    """Return the key of one step of several lanes, from a `key` that has only one purpose."""
    return jax.random.fold_in(key, step)


def episode_seeds(keys: Array, *, evaluation: bool) -> np.ndarray:
    """Return one seed (int64) per episode for a simulator's `reset`.

    Args:
      keys: (episodes, ...) key data.
      evaluation: whether to return seeds that training never uses: see `TRAINING_SEEDS`.
    """
    bits = np.asarray(keys)[..., -1] & (TRAINING_SEEDS - 1)
    return bits.astype(np.int64) + evaluation * TRAINING_SEEDS


def wide_sum(counts: Array) -> jax.Array:
    """Sum at most 2^24 counts on a device that only has 32-bit integers; see `as_int`.

    The sum must be below 2^40.

    Returns:
      (2,) uint32 (high, low), where the sum is 256 * high + low.
    """
    counts = jnp.asarray(counts).astype(jnp.uint32)
    return jnp.stack([jnp.sum(part, dtype=jnp.uint32) for part in (counts >> 8, counts & 255)])


def as_int(wide: np.ndarray) -> int:
    """Convert the result of `wide_sum` to one number, on the host."""
    return int(wide[0]) * 256 + int(wide[1])


def as_int32(wide: jax.Array) -> jax.Array:
    """Convert the result of `wide_sum` to int32 on the device; larger sums become about 2^30."""
    high, low = wide
    high = jnp.minimum(high + (low >> 8), 2**22)
    return (high * 256 + (low & 255)).astype(jnp.int32)


def pack(played: Played) -> jax.Array:
    """Pack the results of one device into one int32 array, so that one exchange is enough.

    Returns:
      (jobs + 1, 2 + 2 d + k) if the environment reports k scalars.
    """
    per_job = [played.returns[:, None], played.obs_sum, played.obs_squares]
    per_job += [played.info[name][:, None] for name in sorted(played.info)]
    # Floats are sent as the integers of their bits. An exchange of floats might change the bits of
    # integers that are packed as floats.
    bits = jax.lax.bitcast_convert_type(jnp.concatenate(per_job, axis=1), jnp.int32)
    rows = jnp.concatenate([jnp.asarray(played.lengths)[:, None], bits], axis=1)
    return jnp.concatenate([rows, jnp.broadcast_to(played.lane_steps, (1, rows.shape[1]))])


def unpack(packed: jax.Array, jobs: int, info: Iterable[str]) -> Played:
    """Unpack the arrays that all devices have packed (devices, ..., ...), without padding."""
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
