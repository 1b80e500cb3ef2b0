"""Plays jobs on devices, in calls of about half a second, so that the host can report progress."""

import time
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from es_rl.devices import Program, all_at_once, replicated, spread
from es_rl.play.jobs import Array, Played
from es_rl.play.player import PACE_SECONDS, Notify, PyTree
from es_rl.play.rollout import NO_LIMIT, Rollout
from es_rl.play.rollout_data import Episodes, Progress

_FIRST_STEPS = 64
"""The number of steps in the very first call, before their speed is known."""


class DevicePlayer:
    """A `Player` that runs a `Rollout` as two compiled programs: start and advance."""

    def __init__(self, rollout: Rollout):
        self.rollout = rollout
        self._steps = _FIRST_STEPS
        everywhere, apart = replicated(rollout.mesh), spread(rollout.mesh)
        shared: Any = jax.tree.map(
            lambda spec: NamedSharding(rollout.mesh, spec),
            rollout.shared_spec,
            is_leaf=lambda spec: isinstance(spec, PartitionSpec),
        )
        self._start = Program(
            self._start_play, in_shardings=(shared, everywhere), out_shardings=apart
        )
        self._advance = Program(
            self._advance_play,
            in_shardings=(shared, apart, apart, everywhere),
            out_shardings=(apart, apart, everywhere),
            donate_argnums=2,
        )

    def shapes(self, shared: PyTree, keys: Array) -> Played:
        _, progress = self._start.shapes(shared, keys)
        played: Played = jax.eval_shape(self.rollout.finish, progress)
        return played

    def compile(self, shared: PyTree, keys: Array) -> None:
        episodes, progress = self._start.shapes(shared, keys)
        all_at_once(
            lambda: self._start.compile(shared, keys),
            lambda: self._advance.compile(shared, episodes, progress, np.int32(0)),
        )

    def play(self, shared: PyTree, keys: Array, notify: Notify | None = None) -> Played:
        """See `Player`.

        With several processes, everything is played in one call and `notify` is not called:
        otherwise the processes would have to exchange the state of their jobs between calls.
        """
        episodes, progress = self._start(shared, keys)
        total = len(self.rollout.jobs.member)
        if jax.process_count() > 1:
            _, _, played = self._advance(shared, episodes, progress, np.int32(NO_LIMIT))
            return played
        while True:
            began = time.perf_counter()
            progress, ended, played = self._advance(
                shared, episodes, progress, np.int32(self._steps)
            )
            done = int(np.asarray(ended).sum())
            if done == total:
                return played
            seconds = time.perf_counter() - began
            self._steps = min(max(1, int(self._steps * PACE_SECONDS / seconds)), NO_LIMIT)
            if notify is not None:
                notify(done, total)

    def first_observation(self, keys: Array) -> None:
        """See `Player`; always None on devices."""

    def _start_play(self, shared: PyTree, keys: jax.Array) -> tuple[Episodes, Progress]:
        return self.rollout.start(shared, jax.random.wrap_key_data(keys))

    def _advance_play(
        self, shared: PyTree, episodes: Episodes, progress: Progress, steps: jax.Array
    ) -> tuple[Progress, jax.Array, Played]:
        progress = self.rollout.advance(shared, episodes, progress, steps)
        # Results are only complete after the last call. Computing them in every call costs less
        # than one more program.
        return progress, self.rollout.ended(progress), self.rollout.finish(progress)
