"""`es-rl export`: write a saved policy as an ONNX model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

import agents
from envs.errors import UserError
from experiments.flags.outputs import check_output
from experiments.flags.parsing import parse
from experiments.startup import start_jax


@dataclass(frozen=True)
class ExportFlags:
    """Write a saved policy as an ONNX model: observation in, action out.

    Normalisation, memory, squashing and the bounds of the action space are part of the model.
    """

    policy: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="POLICY")]
    """A run's folder, or a policy's."""
    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    """The .onnx file to write."""


def main(arguments: list[str]) -> int:
    """Run the command and return its exit code."""
    flags: ExportFlags = parse("export", ExportFlags, arguments)
    if flags.file.suffix.lower() != ".onnx":
        raise UserError(f"file={flags.file}: must end in .onnx")
    check_output("file", flags.file)
    start_jax()
    # Files that its environment names are not opened, as the environment is not made.
    policy = agents.load_policy(flags.policy, trusted=True)
    flags.file.parent.mkdir(parents=True, exist_ok=True)
    policy.export_onnx(flags.file)
    print(f"ONNX model of {policy.agent} on {policy.spec.id}: {flags.file}")
    return 0
