"""Loggers for experiment-tracking services: Weights & Biases, and Trackio."""

import importlib.util
import os
from pathlib import Path
from typing import Any, Literal, TypeAlias

from agents.training.loggers import grouped
from envs.errors import UserError
from envs.installing import pip_install

TrackerName: TypeAlias = Literal["wandb", "trackio"]


def check_package(name: TrackerName) -> None:
    """Check, without importing it, that the package of a service is installed.

    Raises:
      UserError: it is not.
    """
    if importlib.util.find_spec(name) is None:
        raise UserError(f"logger={name}: its package is not installed ({pip_install(name)})")


class Tracker:
    """A logger that sends metrics to a service; the first metrics start the service's run.

    Weights & Biases keeps its files in the run's folder and uses no network, unless WANDB_MODE says
    otherwise (`wandb sync` uploads them later). Trackio keeps its own database on this machine.
    """

    def __init__(self, name: TrackerName, run: Path, config: dict[str, Any]):
        """Import the service's package, which must be installed.

        Args:
          name: the service.
          run: the run's folder, whose name is the run's.
          config: the run's configuration as JSON values.

        Raises:
          UserError: the package is not installed.
        """
        check_package(name)
        self._service: Any = importlib.import_module(name)
        self._start: dict[str, Any] = {"project": "es-rl", "name": run.name, "config": config}
        if name == "wandb":
            mode = os.environ.get("WANDB_MODE", "offline")
            self._start |= {"dir": str(run), "mode": mode}
        self._started = False

    def log(self, metrics: dict[str, float]) -> None:
        """Send the metrics of one generation, in groups."""
        if not self._started:
            self._service.init(**self._start)
            self._started = True
        self._service.log(grouped(metrics), step=int(metrics["generation"]))

    def close(self) -> None:
        """End the service's run."""
        if self._started:
            self._service.finish()
