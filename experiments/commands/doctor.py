"""`es-rl doctor`: shows versions and the machine, and checks that everything works."""

import importlib.util
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

import agents
import envs
from agents.policies.network import NetworkConfig
from agents.training.filming import Film, film
from agents.training.provenance import git_state, versions
from agents.untrained import untrained_policy
from envs.errors import UserError, one_line
from envs.installing import pip_install
from experiments.flags.parsing import parse
from experiments.startup import machine, start_jax
from experiments.videos import FORMATS, write_video

State: TypeAlias = Literal["ok", "--", "failed"]

_EXTRAS = {
    "atari": ("ale_py", "cv2"),
    "box2d": ("Box2D",),
    "craftax": ("craftax",),
    "gymnax": ("gymnax", "seaborn", "six"),
    "jumanji": ("jumanji",),
    "minigrid": ("minigrid",),
    "navix": ("navix",),
    "onnx": ("jax2onnx", "onnx", "onnxruntime"),
    "pgx": ("pgx",),
    "playground": ("mujoco_playground",),
    "sbx": ("sbx", "torch"),
    "trackio": ("trackio",),
    "tune": ("optuna",),
    "wandb": ("wandb",),
    "bench": ("evosax",),
    "cuda": ("jax_cuda13_plugin",),
}
"""The modules that each optional extra installs."""


@dataclass(frozen=True)
class DoctorFlags:
    """Show versions and the machine, then check what the other commands need."""

    json: bool = False
    """Print one JSON object instead of lines."""


@dataclass(frozen=True)
class Check:
    """The result of one check; the state "--" means that an optional part is not installed."""

    name: str
    """What was checked."""
    state: State
    """Whether it works."""
    says: str
    """One line: what works, or what is wrong and how to repair it."""


class Missing(Exception):
    """An optional part is not installed; the message says how to install it."""


def main(arguments: list[str]) -> int:
    """Run the command and return its exit code: 1 if something that is required does not work."""
    flags: DoctorFlags = parse("doctor", DoctorFlags, arguments)
    start_jax()
    facts = _facts()
    if not flags.json:
        _print_facts(facts)
    checks = []
    for check in _checks():
        checks.append(check)
        if not flags.json:
            print(f"{check.state:<8}{check.name:<23}{check.says}", flush=True)
    works = all(check.state != "failed" for check in checks)
    if flags.json:
        print(json.dumps({**facts, "checks": [asdict(c) for c in checks], "works": works}))
    return 0 if works else 1


def _facts() -> dict[str, Any]:
    """Versions, the machine, matrix precision and the git state, as JSON values."""
    try:
        found = machine()
    except RuntimeError as error:  # JAX finds no usable device
        found = {"devices": f"none ({one_line(error)})"}
    config: Any = jax.config
    return {
        "versions": versions(),
        "machine": found,
        "matmul_precision": {
            "es-rl": NetworkConfig().matmul_precision,
            "jax": config.jax_default_matmul_precision or "default",
        },
        "git": git_state(),
    }


def _print_facts(facts: dict[str, Any]) -> None:
    precision, git = facts["matmul_precision"], facts["git"]
    state = "none, this is no checkout"
    if git is not None:
        state = f"{git['commit']}{', with uncommitted changes' if git['uncommitted'] else ''}"
    lines = {
        **facts["versions"],
        **facts["machine"],
        "matmul precision": f"{precision['es-rl']} (JAX itself: {precision['jax']})",
        "git": state,
    }
    for name, value in lines.items():
        print(f"{name:<31}{value}")
    print(flush=True)


def _checks() -> Iterator[Check]:
    """Run all checks, and yield each result as soon as it is known."""
    for name, probe in PROBES.items():
        yield _check(name, probe)
    for extra in _EXTRAS:
        yield _check(f"extra {extra}", partial(_has_extra, extra))


def _check(name: str, probe: Callable[[], str]) -> Check:
    try:
        return Check(name, "ok", probe())
    except Missing as missing:
        return Check(name, "--", one_line(missing))
    except Exception as error:  # any failure; the other checks still run
        return Check(name, "failed", f"{type(error).__name__}: {one_line(error)}")


def _computes() -> str:
    ones = jnp.ones((64, 64))
    total = jax.jit(lambda x: jnp.sum(x @ x))(ones)
    if float(total) != 64.0**3:
        raise RuntimeError(f"the sum of a product of ones is {float(total)}: must be {64**3}")
    (device,) = total.devices()
    return f"a jitted product on {device.platform}:{device.id}"


def _steps_on_the_host() -> str:
    env = envs.make("gymnasium/CartPole-v1", max_episode_steps=1, workers=2, step_timeout=30.0)
    played = agents.evaluate(untrained_policy("zero", env.spec), env, episodes=2)
    if not (played.returns == 1).all():
        raise RuntimeError(f"rewards are {played.returns.tolist()}: must be 1")
    return "2 workers stepped gymnasium/CartPole-v1"


def _draws() -> str:
    try:
        env = envs.make("gymnasium/InvertedPendulum-v5", max_episode_steps=1)
        frames = film(untrained_policy("zero", env.spec), env).frames
    except UserError as error:  # optional, as training needs no rendering
        raise Missing(str(error)) from error
    if frames[0].std() == 0:
        raise RuntimeError("MuJoCo draws empty pictures")
    return f"MuJoCo draws without a display, {frames[0].shape[1]} x {frames[0].shape[0]}"


def _writes_videos() -> str:
    frames = [np.full((64, 64, 3), shade, np.uint8) for shade in (0, 120, 240)]
    with tempfile.TemporaryDirectory() as folder:
        for ending in FORMATS:
            path = Path(folder, f"film{ending}")
            write_video(path, Film(frames, 30.0, 0.0))
            if path.stat().st_size == 0:
                raise RuntimeError(f"a {ending} file is empty")
    return " and ".join(FORMATS)


def _keeps_what_is_compiled() -> str:
    config: Any = jax.config
    folder = config.jax_compilation_cache_dir
    if not config.jax_enable_compilation_cache or folder is None:
        raise Missing("off (JAX_ENABLE_COMPILATION_CACHE=true keeps compiled programs)")
    if "://" in folder:
        return f"{folder}, not looked at"
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise RuntimeError(
            f"{folder} cannot be written ({error.strerror}): let JAX_COMPILATION_CACHE_DIR name "
            "another folder"
        ) from error
    return folder


def _has_extra(extra: str) -> str:
    missing = [name for name in _EXTRAS[extra] if importlib.util.find_spec(name) is None]
    if missing:
        raise Missing(f"no {' and no '.join(missing)} ({pip_install(extra)})")
    if extra == "cuda" and jax.default_backend() != "gpu":
        return "installed, but JAX uses no GPU"
    return "installed"


PROBES: dict[str, Callable[[], str]] = {
    "computing": _computes,
    "host workers": _steps_on_the_host,
    "drawing": _draws,
    "videos": _writes_videos,
    "compilation cache": _keeps_what_is_compiled,
}
"""The checks by name: each returns what works as text, and raises if something does not work."""
