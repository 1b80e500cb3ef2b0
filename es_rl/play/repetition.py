"""Whether an environment on the host repeats itself: what replay and resume rest on."""

import logging
import math
import time
from typing import NamedTuple, TypeAlias

import numpy as np

from envs.base import IDLE, RESET, STEP, LanePool
from es_rl.play.host_player import busy_lanes

_SECONDS = 0.6
"""How long the first play may take; the others have no more steps than it."""
_SEED, _SEED_BESIDE = 1, 2

_log = logging.getLogger("es_rl")


class _Seen(NamedTuple):
    """What a step, or the reset, led to."""

    observation: np.ndarray
    reward: float
    end: bool


_Episode: TypeAlias = list[_Seen] | None
"""None where the environment failed."""


def check_repeats(env_id: str, pool: LanePool, workers: int, actions: np.ndarray) -> None:
    """Play the start of one episode three times, and warn if it is not the same each time.

    The third time others play beside it, where several lanes are used: environments that share
    something in their process, as NumPy's global generator, disturb each other. An environment
    that fails meanwhile is left alone: training will say so.

    Args:
      env_id: for messages.
      pool: what to play on.
      workers: how many processes step the lanes.
      actions: (steps, ...) of the episode, if it lasts so long.

    Raises:
      UserError: what the environment returns is not what it declares.
      RuntimeError: it cannot be started.
    """
    pool.begin()
    # One more than there are workers: one of them has the same worker as the first.
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
    """What the first of the lanes sees, to the end of its episode, of the actions or of time.

    Time is counted from the end of the reset, for which a worker may have to start.
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
    """In what two plays of an episode differ first; "" where in nothing."""
    if once is None or again is None:
        return ""
    for step, pair in enumerate(zip(once, again, strict=False)):
        for name, *values in zip(_Seen._fields, *pair, strict=True):
            first, second = map(np.asarray, values)
            if not np.array_equal(first, second, equal_nan=first.dtype.kind == "f"):
                return f"the {name} of step {step} differs"
    return ""
