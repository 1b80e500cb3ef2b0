"""Kill training runs at random moments with SIGKILL, resume them, and compare every bit.

    python -m tests.stress evolution=100 host=20 ppo=20 host_ppo=20
    python -m tests.stress jumanji/Snake-v1=1 playground/CheetahRun=1

Each number says how many runs of a case are killed, or of three short generations on an
environment. Exit code 0 says that all of them ended as the run that was left alone: the same
policies, the same metrics but for times, the same final state; and that their policies replay the
saved returns in a process of their own.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CASES = {
    "evolution": (
        "gymnasium/phys2d/CartPole-v1 --population-size 32 --hidden 8 --env-steps 60000"
        " --eval-every 2 --eval-episodes 8 --checkpoint-every 3"
    ),
    "host": (
        "gymnasium/CartPole-v1 --population-size 16 --hidden 8 --env-steps 15000 --workers 2"
        " --eval-every 2 --eval-episodes 8 --checkpoint-every 2"
    ),
    "ppo": (
        "gymnasium/phys2d/CartPole-v1 --agent ppo --num-envs 4 --num-steps 64 --minibatch-size 64"
        " --num-epochs 2 --env-steps 10000 --eval-every 4 --eval-episodes 8 --checkpoint-every 5"
    ),
    "host_ppo": (
        "gymnasium/CartPole-v1 --agent ppo --num-envs 4 --num-steps 64 --minibatch-size 64"
        " --num-epochs 2 --env-steps 5000 --workers 2 --eval-every 4 --eval-episodes 8"
        " --checkpoint-every 3"
    ),
}
_SHORT = (
    " --population-size 16 --group-size 0 --network mlp --hidden 8 --episode-steps 30"
    " --env-steps 1000 --eval-every 2 --eval-episodes 4 --checkpoint-every 1"
)
_TIMES = ("wall_seconds", "evaluation_seconds", "steps_per_second")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="+", metavar="CASE=RUNS")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    wanted = dict(case.split("=") for case in options.cases)
    # Imported before the first fork, so that every run starts at once; JAX itself starts after it.
    import orbax.checkpoint  # noqa: F401
    import tensorboardX  # noqa: F401

    moments = random.Random(options.seed)
    failures = 0
    for case, runs in wanted.items():
        with tempfile.TemporaryDirectory() as folder:
            failures += _stress(case, int(runs), Path(folder), moments)
    return 1 if failures else 0


def _stress(case: str, runs: int, folder: Path, moments: random.Random) -> int:
    """How many of the runs ended otherwise than the one that nobody killed."""
    arguments = [*CASES.get(case, case + _SHORT).split(), "--target-return", "1e9", "--out"]
    _run([*arguments, str(folder / "warm")])  # so that all others find everything compiled
    began = time.perf_counter()
    assert _run([*arguments, str(folder / "left-alone")]) == 0
    length = time.perf_counter() - began
    expected = _outcome(folder / "left-alone")
    failures = early = done = 0
    while done < runs:
        out = folder / f"killed-{done}-{early}"
        _run([*arguments, str(out)], kill_after=moments.uniform(0.0, length))
        if not (out / "config.json").exists():
            early += 1  # nothing had begun, so there is nothing to resume
            continue
        checkpoints = sorted(p.name for p in (out / "checkpoints").glob("[0-9]*"))
        code = _run(["--resume", str(out)])
        same = code == 0 and _outcome(out) == expected and _replays(out)
        failures += not same
        done += 1
        if not same:
            print(f"{case} run {done}: killed at {checkpoints}, exit code {code}: DIFFERS")
    print(
        f"{case}: {done - failures} of {done} killed runs ended as the one left alone did "
        f"({length:.1f} s long; {early} more were killed before they had begun)",
        flush=True,
    )
    return failures


def _run(arguments: list[str], kill_after: float | None = None) -> int:
    """`es-rl train` in a process of its own; its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        from experiments.cli import main as es_rl

        try:
            es_rl(["train", *arguments])
        except SystemExit as end:
            os._exit(end.code if isinstance(end.code, int) else 1)
        os._exit(0)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _replays(run: Path) -> bool:
    """Whether a new process plays the same returns that are saved with the policy."""
    saved = json.loads((run / "policy" / "policy.json").read_text())["evaluation"]
    of = [f"--seed={saved['seed']}", f"--episodes={len(saved['returns'])}", "--json"]
    command = [sys.executable, "-m", "experiments.cli", "replay", str(run), *of]
    played = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(played.stdout.splitlines()[-1])["returns"] == saved["returns"]


def _outcome(run: Path) -> dict[str, object]:
    """All of a run that must not depend on whether it was killed."""
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    latest = max((run / "checkpoints").glob("[0-9]*"), key=lambda path: int(path.name))
    return {
        "metrics": [{k: v for k, v in m.items() if k not in _TIMES} for m in metrics],
        "policies": [
            (run / name / "weights.safetensors").read_bytes() for name in ("policy", "best")
        ],
        "state": json.loads((latest / "progress" / "metadata").read_text())["digests"]["state"],
        "generations": latest.name,
    }


if __name__ == "__main__":
    sys.exit(main())
