"""What the progress bar of training shows."""

import io
import sys

from experiments.progress import shown_progress


class Terminal(io.StringIO):
    """Standard error, as if a person saw it."""

    def isatty(self):
        return True


def test_no_return_of_another_environment_is_shown(monkeypatch):
    """Otherwise it would pass for a return of the task, or the bar would fail without one."""
    monkeypatch.setenv("COLUMNS", "200")
    shown = []
    for name in ("return_mean", "train_env_return_mean"):
        monkeypatch.setattr(sys, "stderr", Terminal())
        with shown_progress(100) as (show, _):
            metrics = {"generation": 1, "env_steps": 50, "steps_per_second": 9.0}
            show({**metrics, name: 40.0, "eval_return_mean": 3.0})
        shown.append(sys.stderr.getvalue())
    assert "return 40.0  evaluation 3.0" in shown[0]
    assert "return 40.0" not in shown[1]
    assert "steps/s  evaluation 3.0" in shown[1]
