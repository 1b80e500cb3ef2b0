"""Bad command lines, made up from the flags that commands, agents and runs declare."""

from dataclasses import dataclass, fields
from importlib import import_module
from typing import Any, get_type_hints

from agents import list_agents
from agents.registry import config_type
from agents.training.run_config import RunConfig
from experiments import cli
from experiments.commands.train import TrainFlags
from experiments.commands.tune import TuneFlags
from tests.experiments.bad_values import ENV, Case, bad_values, misspelt, plain, words


@dataclass(frozen=True)
class Field:
    """A flag of a command, and the words before it."""

    command: tuple[str, ...]
    name: str
    kind: Any

    @property
    def flag(self):
        return "--" + {"modules": "import", "settings_file": "settings"}.get(
            self.name, self.name
        ).replace("_", "-")

    @property
    def positional(self):
        return (
            self.name in ("env", "run", "suite", "sections", "policy", "file")
            and self.command[0] != "envs"
        )


def flags_of(command, cls, *, besides=()):
    hints = get_type_hints(cls)
    names = [field.name for field in fields(cls) if field.name not in besides]
    return [Field(command, name, hints[name]) for name in names]


def all_fields():
    configs = {config_type(agent): agent for agent in list_agents()}
    for config, agent in configs.items():
        if not any(issubclass(other, config) for other in configs if other is not config):
            yield from flags_of(("train", ENV, "--agent", agent), config)
    yield from flags_of(("train", ENV), TrainFlags, besides=("settings", "run"))
    yield from flags_of(("train", ENV), RunConfig)
    words_before = {
        "replay": ("replay", "nowhere"),
        "compare": ("compare", "classic"),
        "report": ("report", "nowhere"),
        "export": ("export", "nowhere", "policy.onnx"),
    }
    yield from flags_of(("tune", ENV), TuneFlags, besides=("settings",))
    for command in cli.COMMANDS:
        if command not in ("train", "tune"):
            module = import_module(cli.module_of(command))
            (cls,) = (value for name, value in vars(module).items() if name.endswith("Flags"))
            yield from flags_of(words_before.get(command, (command,)), cls)


ALL_FIELDS = list(all_fields())


def bad_flag(field):
    """Strategy of cases in which a flag has a value that it does not take."""
    if plain(field.kind) is bool:
        # tyro names what is left over.
        return words.map(lambda word: Case((*field.command, f"{field.flag}={word}"), word))
    values = bad_values(field.name, field.kind)
    if field.positional:
        at = {"sections": len(field.command), "file": 2}.get(field.name, 1)
        start, rest = field.command[:at], field.command[at + 1 :]
        return values.map(lambda value: Case((*start, *value, *rest), " ".join(value).strip()))
    return values.map(lambda value: Case((*field.command, field.flag, *value), field.flag))


def misspelt_flag(field):
    own = {f.flag for f in ALL_FIELDS} | {"--no-" + f.flag.removeprefix("--") for f in ALL_FIELDS}
    wrong = misspelt([field.flag]).filter(lambda flag: flag not in own and flag[:3] != "--q")
    return wrong.map(lambda flag: Case((*field.command, flag, "3"), flag))
