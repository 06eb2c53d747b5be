"""Widgets from the settings' own descriptions, and the settings' values back from what widgets hold."""

import contextlib
import dataclasses
import functools
import re
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from ..trainer_core import options, recipe
from ..trainer_core.errors import BadInput, ScionError
from ..trainer_core.options import Option
from .host.api import io

EXACT = 2**53 - 1
"""The largest whole number that a browser keeps exactly."""

NOBODY_MEETS = 10**5


@dataclass(frozen=True)
class Widget:
    """A node's widget that stands for one setting of the recipe."""

    id: str
    setting: str
    """Its dotted name."""
    advanced: bool = False
    default: Any = None
    """Where a graph wants another default than the command line."""
    help: str = ""
    """Where the setting's own help is not true of this node."""

    @property
    def option(self) -> Option:
        return _settings()[self.setting]

    def input(self):
        """The host's input for it: optional, so that what a script queues need name only what it changes, and what was
        queued by a workflow of today still runs when there are more settings."""
        option, shown = self.option, self._default()
        said = {
            "tooltip": tooltip(dataclasses.replace(option, help=self.help or option.help)),
            "advanced": self.advanced or None,
            "optional": True,
        }
        kind = _kind(option)
        if option.choices:
            return io.Combo.Input(self.id, options=list(option.choices), default=shown, **said)
        if kind is bool:
            return io.Boolean.Input(self.id, default=shown, **said)
        if kind is int:
            low, high = _bounds(option)
            # A seed that the browser changes after every run would train anew each time.
            return io.Int.Input(
                self.id, default=shown, min=int(low), max=int(high), control_after_generate=False, **said
            )
        if kind is float:
            low, high = _bounds(option)
            # Browsers would round to the step, and so a beta of 0.9995 to 1.
            return io.Float.Input(self.id, default=shown, min=low, max=high, step=_step(option), round=False, **said)
        multiline = typing.get_origin(kind) is list and not option.separated
        return io.String.Input(self.id, default=shown, multiline=multiline or None, dynamic_prompts=False, **said)

    def value(self, held: Any) -> Any:
        """The setting's value for what the widget holds."""
        option, kind = self.option, _kind(self.option)
        if kind is float and type(None) in typing.get_args(option.type) and held == 0:
            return None
        if typing.get_origin(kind) is not list or not isinstance(held, str):
            return held
        if option.separated:
            try:
                return options.from_text(held, option)
            except TypeError:  # half a JSON list: the recipe says so, together with whatever else is wrong
                return held
        return [line.strip() for line in held.splitlines() if line.strip()]

    def _default(self) -> Any:
        return self.shown(self.option.default if self.default is None else self.default)

    def shown(self, value: Any) -> Any:
        """What the widget holds for a value of the setting; the reverse of `value`."""
        if value is None:
            return 0.0
        if isinstance(value, list):
            return ", ".join(value) if self.option.separated else "\n".join(value)
        return value


@functools.cache
def _settings() -> dict[str, Option]:
    """The host builds its schemas anew at every queue, and reading the types takes a millisecond for each setting."""
    return recipe.settings()


def values_of(widgets: Iterable[Widget], held: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted name for what widgets hold; what is not there has its default."""
    values = {}
    for widget in widgets:
        if widget.id in held or widget.default is not None:
            values[widget.setting] = widget.value(held.get(widget.id, widget.default))
    return values


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """`{"adapter.rank": 4}` as a recipe has it: `{"adapter": {"rank": 4}}`."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        part, _, key = name.rpartition(".")
        (found.setdefault(part, {}) if part else found)[key] = value
    return found


def tooltip(option: Option) -> str:
    """Help, unit and range of a setting in one text."""
    help = option.help.replace("Empty =", "0 =") if option.type == float | None else option.help
    parts = [help] + ([f"({_told_range(option)})"] if _told_range(option) else [])
    if not option.separated:
        parts.append("One a line.")
    return (". " if not option.separated and help[-1] not in ".)" else " ").join(parts)


def _told_range(option: Option) -> str:
    """The range with its unit; bounds that nobody meets are left out."""
    if option.choices:
        return ""
    span = option.range
    if option.high is not None and option.high >= NOBODY_MEETS:
        span = f"above {option.above:g}" if option.above is not None else f"at least {option.low:g}"
    return " ".join(filter(None, (span, option.unit)))


def checked(widgets: Iterable[Widget], held: Mapping[str, Any]) -> recipe.Recipe:
    """The recipe that widgets ask for, every other setting at its default.

    Raises:
        BadInput: with every problem at once, named as the widgets are.
    """
    try:
        return recipe.from_dict(nested(values_of(widgets, held)), dataset_known=False)
    except BadInput as error:
        raise BadInput(*(named_as_widgets(problem, widgets) for problem in error.problems)) from None


@contextlib.contextmanager
def said_of_widgets(widgets: Iterable[Widget]) -> Iterator[None]:
    """What the engine says of a setting inside the block is said of the widget that holds it."""
    try:
        yield
    except ScionError as error:
        error.args = (named_as_widgets(str(error), widgets),)
        raise


def named_as_widgets(message: str, widgets: Iterable[Widget]) -> str:
    """A message about settings, named as the widgets are that hold them."""
    names = {w.setting: w.id for w in widgets}
    pattern = re.compile("|".join(rf"\b{re.escape(name)}\b" for name in sorted(names, key=len, reverse=True)))
    return pattern.sub(lambda found: names[found[0]], message)


def _kind(option: Option) -> Any:
    """A setting's type, without "or nothing"."""
    inner = [kind for kind in typing.get_args(option.type) if kind is not type(None)]
    return inner[0] if type(None) in typing.get_args(option.type) else option.type


def _bounds(option: Option) -> tuple[float, float]:
    low = option.low if option.low is not None else (option.above or 0)
    return low, min(option.high if option.high is not None else EXACT, EXACT)


def _step(option: Option) -> float:
    """What one press of an arrow changes. Its decimals are those that are shown: some more than the default has."""
    default = option.default or 0.1
    exponent = Decimal(repr(default)).as_tuple().exponent
    return float(f"1e{min(-2, exponent - (1 if default >= 0.01 else 3))}")
