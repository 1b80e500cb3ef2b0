"""The flags of a command in groups, so that a help page begins with those that matter most."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, field, fields, make_dataclass
from typing import Annotated, Any, TypeAlias, TypeVar, get_type_hints

import docstring_parser
import tyro

from agents.settings import check

T = TypeVar("T")
Groups: TypeAlias = Mapping[str, Sequence[str]]
"""Maps the titles of groups to the names of fields, in the order of the help page. The group of the
most important flags has the title ""; names that no dataclass has are left out."""
MACHINE = (
    *("lanes", "devices", "workers", "shard_update", "matmul_precision"),
    *("step_timeout", "start_timeout"),
)
"""Flags about the machine: they change nothing of what is computed but its rounding."""
_FIRST = ("population_size", "sigma", "learning_rate")
"""The settings of an agent that are shown first, if it has them."""


def parse_groups(
    command: str, arguments: Sequence[str], groups: Groups, *sources: Any, about: str
) -> list[Any]:
    """Parse the flags of several dataclasses together.

    tyro prints its own message and exits if they are invalid.

    Args:
      command: the name of the command, for the usage line.
      arguments: the arguments after the command's name.
      groups: what is shown in which order; fields that are in none keep their values.
      *sources: instances of the dataclasses with the defaults. No two have a field in common.
      about: what the command does, for the help page.

    Returns:
      An instance of each dataclass with the values from the arguments.

    Raises:
      UserError: a value is out of range, or does not fit into 32 bits.
    """
    flags = {name: flag for source in sources for name, flag in _flags(source).items()}
    boxes: list[tuple[str, Any, Field]] = []
    for title, names in groups.items():
        # The names of the dataclasses are shown nowhere.
        box: Any = make_dataclass("Box", [(n, *flags[n]) for n in names if n in flags])
        shown = Annotated[tyro.conf.OmitArgPrefixes[box], tyro.conf.arg(name=title, help="")]
        boxes.append((f"box_{len(boxes)}", shown, field(default_factory=box)))
    every: Any = make_dataclass("Flags", boxes)
    # tyro's help leaves out a positional argument that was given before.
    helps = any(each in ("-h", "--help") for each in arguments)
    parsed = tyro.cli(
        every,
        args=["--help"] if helps else arguments,
        prog=f"es-rl {command}",
        description="\n\n".join(" ".join(part.split()) for part in about.split("\n\n")),
    )
    given = {name: x for box in vars(parsed).values() for name, x in vars(box).items()}
    made = [
        type(source)(**{name: given.get(name, x) for name, x in vars(source).items()})
        for source in sources
    ]
    for each in made:
        check(each)
    return made


def parse(command: str, kind: type[T], arguments: Sequence[str], groups: Groups | None = None) -> T:
    """Parse the flags of one dataclass, whose docstring says what the command does.

    tyro prints its own message and exits if they are invalid.

    Args:
      command: the name of the command, for the usage line.
      kind: the dataclass of the flags.
      arguments: the arguments after the command's name.
      groups: what is shown in which order; all flags in one group unless given.

    Raises:
      UserError: a value is out of range, or does not fit into 32 bits.
    """
    flags = fields(kind)  # type: ignore[arg-type]
    required = [f.name for f in flags if f.default is f.default_factory is MISSING]
    source = kind(**dict.fromkeys(required, tyro.MISSING))
    shown = groups or {"": [each.name for each in flags]}
    parsed: T = parse_groups(command, arguments, shown, source, about=kind.__doc__ or "")[0]
    return parsed


def dashed(name: str) -> str:
    """The name of a setting, as its flag has it after the two dashes."""
    return name.replace("_", "-")


def _flags(source: Any) -> dict[str, tuple[Any, Any]]:
    """The annotation of each field, with its docstring as the help, and its default."""
    docs: dict[str, str] = {}
    for kind in reversed(type(source).__mro__[:-1]):
        documented = docstring_parser.parse_from_object(kind).params
        # tyro itself would break the lines where the docstring breaks them.
        docs |= {p.arg_name: " ".join((p.description or "").split()) for p in documented}
    found = {}
    hints = get_type_hints(type(source), include_extras=True)
    for each in fields(source):
        value = getattr(source, each.name)
        empty = "(default: none)" if value == () else None
        told = tyro.conf.arg(help=docs.get(each.name), help_behavior_hint=empty)
        found[each.name] = (Annotated[hints[each.name], told], field(default=value))
    return found


def of_agent(agent: str, settings: Any, network: type) -> dict[str, Sequence[str]]:
    """The groups of an agent's settings: its own, the most important first, and the network's.

    Args:
      agent: the agent's name.
      settings: its configuration.
      network: the dataclass of the network's settings.
    """
    of_network = {each.name for each in fields(network)}
    every = [name for name in vars(settings) if name not in MACHINE]
    own = [name for name in every if name not in of_network]
    return {
        agent: sorted(own, key=lambda name: name not in _FIRST),
        "network": [name for name in every if name in of_network],
    }
