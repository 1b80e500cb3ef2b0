"""Whether an environment on the host repeats itself: what replay and resume rest on."""

import logging
import math
import time
from typing import NamedTuple, TypeAlias
from weakref import WeakSet

import numpy as np
from gymnasium import spaces

from agents.policies.spaces import bounded, categories
from envs.base import IDLE, RESET, STEP, Env, HostEnv, Lanes
from es_rl import processes
from es_rl.play.host_rollout import busy_lanes

_STEPS = 200
_SECONDS = 0.6
"""Of the first play, at most; the others have no more steps."""
_SEED, _SEED_BESIDE = 1, 2

_log = logging.getLogger("es_rl")
_checked: WeakSet[HostEnv] = WeakSet()


class _Seen(NamedTuple):
    """What a step, or the reset, led to."""

    observation: np.ndarray
    reward: float
    end: bool


_Episode: TypeAlias = list[_Seen] | None
"""None where the environment failed."""


def check_repeats(env: Env | HostEnv, lanes: Lanes | None) -> None:
    """Play the start of one episode three times, and warn if it is not the same each time.

    The third time others play beside it, where several lanes are used: environments that share
    something in their process, as NumPy's global generator, disturb each other. An environment is
    checked once, by process 0. One that fails meanwhile is left alone: training will say so.

    Raises:
      UserError: what the environment returns is not what it declares.
      RuntimeError: it cannot be started.
    """
    if not isinstance(env, HostEnv) or lanes is None:
        return  # those on the accelerator are pure functions
    if env in _checked or not processes.is_main():
        return
    _checked.add(env)
    actions = _random_actions(env.spec.action_space)
    lanes.begin()
    # One more than there are workers: one of them has the same worker as the first.
    used = busy_lanes(lanes.busy)[: env.workers + 1]
    once = _play(lanes, used[:1], actions, time.monotonic() + _SECONDS)
    if once is None:
        return
    actions = actions[: len(once) - 1]
    again = _play(lanes, used[:1], actions)
    difference = _difference(once, again)
    if difference:
        _log.warning(
            "%s does not repeat itself: with the same seed and actions %s; what is replayed or "
            "resumed will differ",
            *(env.spec.id, difference),
        )
    elif len(used) > 1:
        difference = _difference(once, _play(lanes, used, actions))
        if difference:
            _log.warning(
                "%s is not the same beside others of its kind in one process: with the same seed "
                "and actions %s; one lane and one worker (--lanes 1 --workers 1, for ppo "
                "--num-envs 1 --workers 1) leave it alone",
                *(env.spec.id, difference),
            )


def _random_actions(space: spaces.Space) -> np.ndarray:
    """(_STEPS, ...), always the same ones."""
    rng = np.random.default_rng(0)
    if isinstance(space, spaces.Box):
        low, high = (np.where(bounded(space), edge, 0.0) for edge in (space.low, space.high))
        normal = np.clip(rng.normal(size=(_STEPS, *space.shape)), space.low, space.high)
        uniform = rng.uniform(low, high, (_STEPS, *space.shape))
        return np.where(bounded(space), uniform, normal).astype(space.dtype)
    sizes, starts = categories(space)
    chosen = rng.integers(starts, starts + sizes, (_STEPS, len(sizes)))
    return chosen.reshape(_STEPS, *(space.shape or ())).astype(space.dtype)


def _play(
    lanes: Lanes, used: np.ndarray, actions: np.ndarray, deadline: float = math.inf
) -> _Episode:
    """What the first of the lanes sees, to the end of its episode, of the actions or of time."""
    span, lane, seen = slice(0, lanes.count), used[0], []
    command = np.full(lanes.count, IDLE, np.uint8)
    command[used] = RESET
    seeds = np.full(lanes.count, _SEED_BESIDE)
    seeds[lane] = _SEED
    for i in range(len(actions) + 1):
        rows = None if i == 0 else np.stack([actions[i - 1]] * lanes.count)
        lanes.send(span, command, seeds, rows)
        received = lanes.receive(span)
        if received.lost[used].any():
            return None
        over = received.terminated | received.truncated
        seen.append(_Seen(received.obs[lane], received.reward[lane], over[lane]))
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
