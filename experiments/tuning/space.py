"""Search spaces: TOML files that say which settings of an agent are searched, and how.

A file has a table for each setting, in the order in which they are drawn. Its fields are

    choices      the values to choose from; or:
    low, high    the ends of a range, both included; whole numbers for a setting of whole numbers
    log          whether numbers of the range are drawn on a logarithmic scale
    when         a table of other settings and their values: without them the setting is not drawn,
                 and has the agent's default. A setting that is drawn later is not looked at
    times        names of settings that multiply what was drawn
    over         names of settings that divide what was drawn; 0 counts as 1
    divisor_of   names of settings: what was drawn is a share of their product, and the setting is
                 the largest divisor of the product within that share, or else the smallest one
    multiple_of  the name of a setting (0 counts as 1) of which the setting is made a multiple
    least        the least value of a setting of whole numbers

With several tables (`[[learning_rate]]`) the first whose `when` holds is drawn. The text "none"
stands for None. None, and 0 for a setting of whole numbers, stay what they are, whatever `times`,
`over` or `divisor_of` say.
"""

import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, dataclass, fields, replace
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from types import NoneType
from typing import Any, TypeAlias, get_args, get_type_hints

from agents.registry import config_type
from agents.settings import expected
from envs.errors import UserError
from experiments.settings_files import check_known, from_toml, read_toml

_BUNDLED = {"eggroll": "evolution", "open_es": "evolution", "ppo": "ppo", "sbx_ppo": "ppo"}
"""The file of each agent that has a space of its own, without its ending."""
_SPACES = Path(__file__).parent / "spaces"
_NAMES = ("times", "over", "divisor_of")
"""The fields that are lists of names of settings."""
Draw: TypeAlias = Callable[["Dimension"], Any]
"""Draws a choice, or a number of the range, of a dimension."""


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """How a setting is drawn; the fields are those of the file."""

    name: str
    """The name in the study: that of the setting, and `when` if there are several tables."""
    setting: str
    """The name of the setting."""
    whole: bool
    """Whether the setting is a whole number."""
    choices: tuple[Any, ...] = ()
    """The values to choose from, as Python values; none if there is a range."""
    low: float = 0.0
    """The lower end of the range."""
    high: float = 0.0
    """The upper end of the range."""
    log: bool = False
    """Whether the range is logarithmic."""
    when: tuple[tuple[str, Any], ...] = ()
    """Settings and the values that they must have."""
    times: tuple[str, ...] = ()
    """Settings that multiply what was drawn."""
    over: tuple[str, ...] = ()
    """Settings that divide what was drawn."""
    divisor_of: tuple[str, ...] = ()
    """Settings whose product has the setting as a divisor."""
    multiple_of: str | None = None
    """The setting of which the setting is a multiple."""
    least: int = 1
    """The least value of a whole number that is no 0."""

    @property
    def scaled(self) -> bool:
        """Whether what is drawn is not the setting itself."""
        return bool(self.times or self.over or self.divisor_of)

    @property
    def draws_whole_numbers(self) -> bool:
        """Whether the range is one of whole numbers."""
        return self.whole and not self.scaled

    def holds(self, settings: Mapping[str, Any], waiting: Collection[str]) -> bool:
        """Whether `when` holds; settings in `waiting` are drawn later, and are not looked at."""
        return all(name in waiting or settings[name] == value for name, value in self.when)

    def value(self, drawn: Any, settings: Mapping[str, Any]) -> Any:
        """The setting that comes of what was drawn, beside the other settings."""
        if drawn is None or isinstance(drawn, bool | str | tuple) or (self.whole and drawn == 0):
            return drawn
        names = self.divisor_of or self.times
        number = drawn * math.prod(settings[name] for name in names)
        number /= math.prod(settings[name] or 1 for name in self.over)
        return self.fitted(number, settings)

    def fitted(self, value: Any, settings: Mapping[str, Any]) -> Any:
        """The value of the setting that is next to a number and goes with the other settings."""
        if not self.whole or value is None or value == 0:
            return value
        step = max(settings[self.multiple_of], 1) if self.multiple_of else 1
        if self.divisor_of:
            product = math.prod(settings[name] for name in self.divisor_of)
            return _divisor(product, value, step, self.least)
        return max(round(value / step), math.ceil(self.least / step)) * step

    def drawn(self, value: Any, settings: Mapping[str, Any]) -> Any:
        """What must be drawn for a setting to have this value.

        Raises:
          ValueError: the value is never drawn.
        """
        for choice in self.choices:
            found = self.value(choice, settings)
            if found == value or (_is_number(found, value) and math.isclose(found, value)):
                return choice
        if not self.choices and not self.divisor_of and _is_number(value):
            factor = self.value(1.0, settings) if self.scaled else 1
            if self.low <= value / factor <= self.high:
                return value if factor == 1 else value / factor
        raise ValueError(f"{self.setting}={value!r} is not in the space")


@dataclass(frozen=True)
class Space:
    """The settings of an agent that are searched."""

    dimensions: tuple[Dimension, ...]
    """How each setting is drawn, in this order; dimensions of one setting follow each other."""
    defaults: Mapping[str, Any]
    """The values of searched settings that no dimension draws: the agent's defaults."""

    @property
    def settings(self) -> tuple[str, ...]:
        """The names of the settings that are searched."""
        return tuple(dict.fromkeys(each.setting for each in self.dimensions))

    def without(self, fixed: Collection[str]) -> "Space":
        """The space of the settings that are not fixed."""
        free = tuple(each for each in self.dimensions if each.setting not in fixed)
        return Space(free, self.defaults)

    def draw(self, draw: Draw, base: Mapping[str, Any]) -> dict[str, Any]:
        """Draw settings.

        Args:
          draw: draws one dimension.
          base: the values of all settings; those of settings that are searched are replaced.
        """
        settings = dict(base)
        for setting, found in self._each(settings):
            settings[setting] = (
                self.defaults[setting] if found is None else found.value(draw(found), settings)
            )
        return settings

    def drawn(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """What must be drawn for these settings, by the name of the dimension.

        Settings with a value that is never drawn are left out.
        """
        known: dict[str, Any] = {}
        for setting, found in self._each(settings):
            if found is not None:
                with suppress(ValueError):
                    known[found.name] = found.drawn(settings[setting], settings)
        return known

    def fitted(self, base: Mapping[str, Any]) -> dict[str, Any]:
        """Settings with those that are searched changed as little as must be to go together.

        A preset need not go together with what flags have fixed, such as the size of a minibatch
        with the number of environments.
        """
        settings = dict(base)
        for setting, found in self._each(settings):
            settings[setting] = (
                self.defaults[setting]
                if found is None
                else found.fitted(settings[setting], settings)
            )
        return settings

    def _each(self, settings: Mapping[str, Any]) -> Iterator[tuple[str, Dimension | None]]:
        """Yield each setting with the dimension that draws it, if any; `settings` may be changed
        meanwhile."""
        waiting = set(self.settings)
        for setting, variants in groupby(self.dimensions, key=attrgetter("setting")):
            waiting.discard(setting)
            yield setting, next((each for each in variants if each.holds(settings, waiting)), None)


def _is_number(*values: Any) -> bool:
    return all(isinstance(x, int | float) and not isinstance(x, bool) for x in values)


def _divisor(number: int, most: float, step: int, least: int) -> int:
    """The largest divisor of a number that is at most `most`, or else the smallest.

    Divisors are at least `least` and multiples of `step`, unless there is none: then the number.
    """
    small = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    divisors = {*small, *(number // d for d in small)}
    fitting = [d for d in divisors if d % step == 0 and d >= least]
    return max((d for d in fitting if d <= most), default=min(fitting, default=number))


def load(path: Path | None, agent: str) -> Space:
    """Load the space of a file, or the one that is bundled for an agent.

    Args:
      path: the file; None for the bundled space.
      agent: the registered name of the agent.

    Raises:
      UserError: there is no such file, it is invalid, or nothing is bundled for the agent.
    """
    known = {each.name: each for each in fields(config_type(agent))}
    if path is None:
        if agent not in _BUNDLED:
            raise UserError(f"agent={agent}: has no space to search: must come with --space FILE")
        raw = read_toml(_SPACES / f"{_BUNDLED[agent]}.toml")
        raw = {name: table for name, table in raw.items() if name in known}
    else:
        try:
            raw = read_toml(path)
        except UserError as error:
            raise UserError(f"space={path}: {error}") from error
    try:
        return _space(raw, agent)
    except UserError as error:
        raise UserError(f"space={path}: {error}") from error


def _space(raw: dict[str, Any], agent: str) -> Space:
    known = {each.name: each.default for each in fields(config_type(agent))}
    check_known(raw, "the space", known)
    if not raw:
        raise UserError("is empty: must have a table for each setting to search")
    dimensions = []
    for setting, value in raw.items():
        tables = value if isinstance(value, list) else [value]
        for table in tables:
            if not isinstance(table, dict):
                raise UserError(f"{setting}: must be a table, not {table!r}")
            found = _dimension(setting, table, agent)
            conditions = ", ".join(f"{name} = {x}" for name, x in found.when)
            several = len(tables) > 1 and conditions
            name = f"{setting} ({conditions})" if several else setting
            dimensions.append(replace(found, name=name))
    names = [each.name for each in dimensions]
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled is not None:
        raise UserError(f"{doubled}: two tables are alike, each must have a `when` of its own")
    _check_order(dimensions)
    defaults = {name: known[name] for name in raw if known[name] is not MISSING}
    return Space(tuple(dimensions), defaults)


def _check_order(dimensions: Sequence[Dimension]) -> None:
    """Refuse a setting that is drawn before those that it is computed from."""
    later = {each.setting for each in dimensions}
    for setting, variants in groupby(dimensions, key=attrgetter("setting")):
        for each in variants:
            others = (*each.times, *each.over, *each.divisor_of, *filter(None, [each.multiple_of]))
            early = next((name for name in others if name in later), None)
            if early is not None:
                raise UserError(f"{setting}: must come after {early}, which it is computed from")
        later.discard(setting)


def _dimension(setting: str, table: dict[str, Any], agent: str) -> Dimension:
    allowed = ("choices", "low", "high", "log", "when", *_NAMES, "multiple_of", "least")
    check_known(table, setting, allowed)
    hints = get_type_hints(config_type(agent))
    numeric = [name for name, kind in hints.items() if _plain(kind) in (int, float)]
    kind = _plain(hints[setting])
    given: dict[str, Any] = {"name": setting, "setting": setting, "whole": kind is int}
    for field in _NAMES:
        names = table.get(field, [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise UserError(f"{setting}: {field} must be a list of settings, not {names!r}")
        check_known(dict.fromkeys(names), f"{setting}, {field}", numeric)
        given[field] = tuple(names)
    if "multiple_of" in table:
        check_known({str(table["multiple_of"]): None}, f"{setting}, multiple_of", numeric)
        given["multiple_of"] = table["multiple_of"]
    when = table.get("when", {})
    if not isinstance(when, dict):
        raise UserError(f"{setting}: when must be a table of settings, not {when!r}")
    check_known(when, f"{setting}, when", hints)
    given["when"] = tuple((name, from_toml(agent, name, x)) for name, x in when.items())
    given["least"] = _checked(setting, "least", table.get("least", 1), int)
    if kind not in (int, float) and any(table.get(f) for f in (*_NAMES, "multiple_of", "low")):
        raise UserError(f"{setting}: is no number: must have choices alone")
    scaled = any(given[field] for field in _NAMES)
    given |= _values(setting, table, agent, scaled=scaled)
    return Dimension(**given)


def _values(setting: str, table: dict[str, Any], agent: str, *, scaled: bool) -> dict[str, Any]:
    """The choices or the range of a dimension."""
    kind = get_type_hints(config_type(agent))[setting]
    number = float if scaled else kind
    if ("choices" in table) == ("low" in table or "high" in table):
        raise UserError(f"{setting}: must have either choices, or low and high")
    if "choices" in table:
        if "log" in table:
            raise UserError(f"{setting}: log must come with low and high")
        listed = table["choices"]
        if not isinstance(listed, list) or not listed:
            raise UserError(f"{setting}: choices must be a list, not {listed!r}")
        choices = [from_toml(agent, setting, choice) for choice in listed]
        for choice in choices:
            if choice is not None:
                _checked(setting, "choices", choice, number)
        if len({json.dumps(choice) for choice in choices}) < len(choices):
            raise UserError(f"{setting}: choices must be different")
        return {"choices": tuple(choices)}
    if "low" not in table or "high" not in table:
        raise UserError(f"{setting}: must have both low and high")
    low, high = (_checked(setting, end, table[end], _plain(number)) for end in ("low", "high"))
    log = _checked(setting, "log", table.get("log", False), bool)
    if not low < high:
        raise UserError(f"{setting}: low, {low}, must be less than high, {high}")
    if log and not low > 0:
        raise UserError(f"{setting}: low, {low}, must be greater than 0 for log")
    return {"low": low, "high": high, "log": log}


def _plain(kind: Any) -> Any:
    """A type without None."""
    options = [option for option in get_args(kind) if option is not NoneType]
    return options[0] if NoneType in get_args(kind) else kind


def _checked(setting: str, field: str, value: Any, kind: Any) -> Any:
    wanted = expected(value, kind)
    if wanted is not None:
        raise UserError(f"{setting}: {field} must be {wanted}, not {value!r}")
    return value
