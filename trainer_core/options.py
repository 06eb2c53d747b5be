"""One source for every setting: dataclass fields that carry help, unit and range, and what is built from them."""

import copy
import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MISSING = dataclasses.MISSING


@dataclass(frozen=True)
class Option:
    """What one setting means, for checks, command-line help, node tooltips and documentation tables."""

    name: str
    type: Any
    default: Any
    help: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    above: float | None = None
    choices: tuple[str, ...] = ()
    refused: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Values that others know and that are no choice here, each with why."""
    advanced: bool = False
    separated: bool = True
    """Whether commas on the command line separate a list's entries; off for prompts, which are full of commas. A JSON
    list is always one, and text that begins with `re:` never is."""
    decides: bool = True
    """Whether the value can change the trained weights (and so is part of a run's fingerprint)."""
    per_folder: bool = False
    """Whether each folder of a dataset may have its own value."""

    @property
    def range(self) -> str:
        """The allowed values in words; empty where any value goes."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.above is not None and self.high is not None:
            return f"above {self.above:g}, at most {self.high:g}"
        if self.above is not None:
            return f"above {self.above:g}"
        if self.low is not None and self.high is not None:
            return f"{self.low:g} to {self.high:g}"
        if self.low is not None:
            return f"at least {self.low:g}"
        return f"at most {self.high:g}" if self.high is not None else ""

    def complaint(self, value) -> str | None:
        """What is wrong with a value of the right type; None if nothing is."""
        values = value if isinstance(value, (list, tuple)) else [value]
        for entry in values:
            if self.choices and entry in self.refused:
                return f"{entry!r} cannot be used: {self.refused[entry]} ({self.range})"
            if self.choices and entry not in self.choices:
                near = difflib.get_close_matches(str(entry).lower(), self.choices, 1)
                return f"{entry!r} is not {self.range}" + (f"; did you mean {near[0]!r}?" if near else "")
            if isinstance(entry, bool) or not isinstance(entry, (int, float)):
                continue
            if isinstance(entry, float) and not math.isfinite(entry):
                return f"{entry} is not a finite number" + (f" ({self.range})" if self.range else "")
            if (
                (self.low is not None and entry < self.low)
                or (self.high is not None and entry > self.high)
                or (self.above is not None and entry <= self.above)
            ):
                number = f"{entry:g}" if isinstance(entry, float) else _short(entry)
                return f"{number} is out of range: {self.range}" + (f" {self.unit}" if self.unit else "")
        return None


def option(default: Any = MISSING, *, help: str, factory: Any = MISSING, **described) -> Any:
    """A dataclass field with its description; see `Option` for the keywords."""
    metadata = {"option": {"help": help, **described}}
    if factory is not MISSING:
        return dataclasses.field(default_factory=factory, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def options_of(part: type) -> dict[str, Option]:
    """The settings of a part by name, in the order of their declaration; parts within parts are left out."""
    hints = typing.get_type_hints(part)
    found = {}
    for field in dataclasses.fields(part):
        described = field.metadata.get("option")
        if described is not None:
            default = field.default if field.default is not MISSING else field.default_factory()
            found[field.name] = Option(field.name, hints[field.name], default, **described)
    return found


def parts_of(part: type) -> dict[str, type]:
    """The parts within a part: fields whose type is itself a dataclass."""
    hints = typing.get_type_hints(part)
    return {f.name: hints[f.name] for f in dataclasses.fields(part) if dataclasses.is_dataclass(hints[f.name])}


def entry_of(kind: Any) -> type | None:
    """The part of which a setting is a list ("dataset.folders"); None where it is no list of parts."""
    inner = typing.get_args(kind)[:1] if typing.get_origin(kind) is list else ()
    return inner[0] if inner and dataclasses.is_dataclass(inner[0]) else None


def build(part: type, values: Any, where: str = "") -> tuple[Any, list[str]]:
    """A part from plain values (JSON, TOML), and every problem with them.

    Args:
        part: the dataclass.
        values: a mapping of settings; missing ones take their defaults.
        where: dotted path of this part, for the messages ("dataset").

    Returns:
        The part (built from the values that were usable) and the problems, one sentence each.
    """
    if not isinstance(values, dict):
        return part(), [f"{where or 'recipe'}: expected settings, got {_kind(values)}"]
    options, parts = options_of(part), parts_of(part)
    known, problems, kept = [*options, *parts], [], {}
    for name, value in values.items():
        path = f"{where}.{name}" if where else name
        if name in parts:
            kept[name], inner = build(parts[name], value, path)
            problems += inner
        elif name in options and isinstance(value, (list, tuple)) and entry_of(options[name].type):
            built = [build(entry_of(options[name].type), entry, f"{path}[{n}]") for n, entry in enumerate(value)]
            kept[name] = [entry for entry, _ in built]
            problems += [problem for _, inner in built for problem in inner]
        elif name in options:
            try:
                kept[name] = coerce(value, options[name].type)
            except TypeError as error:
                problems.append(f"{path}: {error}")
        else:
            near = difflib.get_close_matches(name, known, 1)
            problems.append(f"{path}: unknown setting" + (f"; did you mean {near[0]!r}?" if near else ""))
    return part(**kept), problems


def coerce(value: Any, kind: Any) -> Any:
    """`value` as the annotated type, without guessing: an int may stand for a float, nothing else is converted.

    Raises:
        TypeError: in words for a person.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return coerce(value, next(a for a in arguments if a is not type(None)))
    if origin is list:
        if not isinstance(value, (list, tuple)):
            raise TypeError(f"expected a list, got {_kind(value)}")
        return [coerce(entry, arguments[0]) for entry in value]
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise TypeError(f"{_short(value)} is too large a number") from None
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"expected {_NAMES[kind]}, got {_kind(value)}")
    return value


_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false", dict: "settings"}


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    name = _NAMES.get(type(value), "a list" if isinstance(value, (list, tuple)) else type(value).__name__)
    return f"{name} ({_short(value)})"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}…"


def problems_of(part: Any, where: str = "") -> list[str]:
    """Every value of a part, and of the parts within it, that is out of its range, one sentence each.

    A part may add what no single field can say by a method `problems(where) -> list[str]`.
    """
    found = []
    for name, described in options_of(type(part)).items():
        value = getattr(part, name)
        complaint = None if value is None else described.complaint(value)
        if complaint:
            found.append(f"{where}.{name}: {complaint}" if where else f"{name}: {complaint}")
        if entry_of(described.type):
            for n, entry in enumerate(value):
                found += problems_of(entry, f"{where}.{name}[{n}]" if where else f"{name}[{n}]")
    for name in parts_of(type(part)):
        found += problems_of(getattr(part, name), f"{where}.{name}" if where else name)
    if hasattr(part, "problems"):
        found += part.problems(where)
    return found


def as_dict(part: Any) -> dict[str, Any]:
    """Plain values of a part, ready for JSON; in a list of parts, what an entry does not set is left out."""
    values = {}
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if isinstance(value, list) and value and dataclasses.is_dataclass(value[0]):
            entries = [as_dict(entry) for entry in value]
            values[field.name] = [{k: v for k, v in entry.items() if v is not None} for entry in entries]
        elif dataclasses.is_dataclass(value):
            values[field.name] = as_dict(value)
        else:
            values[field.name] = copy.deepcopy(value)
    return values


def from_text(text: str, described: Option) -> Any:
    """A setting's value from the command line ("4", "true", "a, b", "none").

    Raises:
        TypeError: in words for a person.
    """
    kind, optional = described.type, False
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        arguments = typing.get_args(kind)
        optional = type(None) in arguments
        kind = next(a for a in arguments if a is not type(None))
    # An empty text is a text: where another part's value would be taken instead, it says that there is none.
    if optional and text.strip().lower() in ("none", "null", *(() if kind is str else ("",))):
        return None
    if kind is bool:
        words = {
            "true": True,
            "yes": True,
            "on": True,
            "1": True,
            "false": False,
            "no": False,
            "off": False,
            "0": False,
        }
        if text.strip().lower() not in words:
            raise TypeError(f"expected true or false, got {text!r}")
        return words[text.strip().lower()]
    if typing.get_origin(kind) is list:
        (inner,) = typing.get_args(kind)
        if text.strip().startswith("[") or entry_of(kind):
            try:
                values = json.loads(text)
            except (json.JSONDecodeError, RecursionError) as error:
                such = '[{"name": "value"}]' if entry_of(kind) else '["one", "another"]'
                raise TypeError(f"not a JSON list such as {such}: {text!r:.60} ({error})") from None
            return _entries(values, kind) if entry_of(kind) else coerce(values, kind)
        if not described.separated or text.startswith("re:"):
            return [_scalar(text, inner)] if text.strip() else []
        return [_scalar(entry.strip(), inner) for entry in text.split(",") if entry.strip()]
    return _scalar(text, kind)


def _entries(values: Any, kind: Any) -> list:
    """A list of parts from plain values.

    Raises:
        TypeError: in words for a person, with every problem.
    """
    if not isinstance(values, list):
        raise TypeError(f"expected a list, got {_kind(values)}")
    built = [build(entry_of(kind), entry, f"[{n}]") for n, entry in enumerate(values)]
    problems = [problem for _, inner in built for problem in inner]
    if problems:
        raise TypeError("; ".join(problems))
    return [entry for entry, _ in built]


def _scalar(text: str, kind: type) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise TypeError(f"expected {_NAMES[kind]}, got {text!r}") from None
