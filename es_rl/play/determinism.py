"""A check that an environment on the host is deterministic, which replay and resume depend on."""

import logging
import math
import time
from typing import NamedTuple, TypeAlias

import numpy as np

from envs.base import IDLE, RESET, STEP, LanePool
from es_rl.play.host_player import busy_lanes

_SECONDS = 0.6
"""The seconds that the first play may take. The other plays have at most as many steps."""
_SEED, _SEED_BESIDE = 1, 2
"""The seeds of the compared episode and of the episodes that are played in other lanes."""

_log = logging.getLogger("es_rl")


class _Seen(NamedTuple):
    """The result of a step or of the reset."""

    observation: np.ndarray
    """The observation."""
    reward: float
    """The reward; 0 for the reset."""
    end: bool
    """Whether the episode has ended."""


_Episode: TypeAlias = list[_Seen] | None
"""The results of the reset and of each step; None if the environment failed."""


def check_repeats(env_id: str, pool: LanePool, workers: int, actions: np.ndarray) -> None:
    """Play the start of one episode up to three times, and warn if it is not always the same.

    If several lanes are used, other lanes play as well during the third time: environments that
    share global data in their process, such as NumPy's global random generator, disturb each other.
    If the environment fails, there is no warning: training will report the failure.

    Args:
      env_id: the name of the environment, for messages.
      pool: the lanes to play on.
      workers: the number of worker processes that step the lanes.
      actions: (steps, ...), the actions of the episode, which may end earlier.

    Raises:
      UserError: the environment violates its spaces or Gymnasium's interface.
      RuntimeError: the environment cannot be started.
    """
    pool.begin()
    # With one lane more than there are workers, another lane has the same worker as the first.
    used = busy_lanes(pool.busy)[: workers + 1]
    once = _play(pool, used[:1], actions, _SECONDS)
    if once is None:
        return
    actions = actions[: len(once) - 1]
    again = _play(pool, used[:1], actions)
    difference = _difference(once, again)
    if difference:
        _log.warning(
            "%s does not repeat itself: with the same seed and actions %s; what is replayed or "
            "resumed will differ",
            *(env_id, difference),
        )
    elif len(used) > 1:
        difference = _difference(once, _play(pool, used, actions))
        if difference:
            _log.warning(
                "%s is not the same beside others of its kind in one process: with the same seed "
                "and actions %s; one lane and one worker (--lanes 1 --workers 1, for ppo "
                "--num-envs 1 --workers 1) leave it alone",
                *(env_id, difference),
            )


def _play(
    pool: LanePool, used: np.ndarray, actions: np.ndarray, seconds: float = math.inf
) -> _Episode:
    """Play on the lanes `used`, and return what the first of them returns.

    The play ends with the first lane's episode, after the last action, or after `seconds`, which
    are counted from the end of the reset, as a worker may have to start for the reset.
    """
    span, lane, seen = slice(0, pool.count), used[0], []
    command = np.full(pool.count, IDLE, np.uint8)
    command[used] = RESET
    seeds = np.full(pool.count, _SEED_BESIDE)
    seeds[lane] = _SEED
    deadline = math.inf
    for i in range(len(actions) + 1):
        rows = None if i == 0 else np.stack([actions[i - 1]] * pool.count)
        pool.send(span, command, seeds, rows)
        received = pool.receive(span)
        if received.lost[used].any():
            return None
        if i == 0:
            deadline = time.monotonic() + seconds
        over = received.terminated | received.truncated
        seen.append(_Seen(received.obs[lane].copy(), received.reward[lane], over[lane]))
        if over[lane] or time.monotonic() > deadline:
            break
        command[used] = np.where(over[used], RESET, STEP)
    return seen


def _difference(once: _Episode, again: _Episode) -> str:
    """Describe the first difference between two plays of an episode; "" if there is none."""
    if once is None or again is None:
        return ""
    for step, pair in enumerate(zip(once, again, strict=False)):
        for name, *values in zip(_Seen._fields, *pair, strict=True):
            first, second = map(np.asarray, values)
            if not np.array_equal(first, second, equal_nan=first.dtype.kind == "f"):
                return f"the {name} of step {step} differs"
    return ""
