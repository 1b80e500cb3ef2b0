"""Rollouts in calls of about half a second, so that the host can look up in between."""

import time
from collections.abc import Callable
from typing import TypeAlias

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from es_rl.devices import Program, replicated, spread
from es_rl.play.rollout import NO_LIMIT, Episodes, Progress, PyTree, Rollout

Notify: TypeAlias = Callable[[int, int], None]
"""Called from time to time with how many episodes have ended, and how many there are. It may raise
to give the rollout up."""

PACE_SECONDS = 0.5
"""How long a call should take."""
_FIRST_STEPS = 64
"""Steps of the very first call, when nothing is known of their speed."""


class PacedRollout:
    """`Rollout.advance` as a compiled program that the host calls until every job has ended."""

    def __init__(self, rollout: Rollout):
        self._rollout = rollout
        self._steps = _FIRST_STEPS
        everywhere, apart = replicated(rollout.mesh), spread(rollout.mesh)
        shared = jax.tree.map(
            lambda spec: NamedSharding(rollout.mesh, spec),
            rollout.shared_spec,
            is_leaf=lambda spec: isinstance(spec, PartitionSpec),
        )
        self._program = Program(
            self._advance,
            in_shardings=(shared, apart, apart, everywhere),
            out_shardings=apart,
            donate_argnums=2,
        )

    def compile(self, shared: PyTree, episodes: Episodes, progress: Progress) -> None:
        """Compile for arguments of these shapes; nothing else of them is used."""
        self._program.compile(shared, episodes, progress, np.int32(0))

    def __call__(
        self,
        shared: PyTree,
        episodes: Episodes,
        progress: Progress,
        notify: Notify | None = None,
    ) -> Progress:
        """Play on until every job has ended. `progress` is of no use afterwards.

        Several processes do so in one call, in which nobody is notified: between calls each would
        have to know of the others' jobs.
        """
        total = len(self._rollout.jobs.member)
        if jax.process_count() > 1:
            return self._program(shared, episodes, progress, np.int32(NO_LIMIT))[0]
        while True:
            began = time.perf_counter()
            steps = np.int32(self._steps)
            progress, ended = self._program(shared, episodes, progress, steps)
            done = int(np.asarray(ended).sum())
            if done == total:
                return progress
            seconds = time.perf_counter() - began
            self._steps = min(max(1, int(self._steps * PACE_SECONDS / seconds)), NO_LIMIT)
            if notify is not None:
                notify(done, total)

    def _advance(
        self, shared: PyTree, episodes: Episodes, progress: Progress, steps: jax.Array
    ) -> tuple[Progress, jax.Array]:
        progress = self._rollout.advance(shared, episodes, progress, steps)
        return progress, self._rollout.ended(progress)
