"""Every setting as text, from the fields' own metadata: for `scion train --help`, and as docs/settings.md
(`python -m trainer_core.settings_page` writes it)."""

import json
import textwrap
from pathlib import Path

from .idle_settings import RULES, Among, Other
from .options import Option, entry_of, options_of
from .recipe import settings

PAGE = Path(__file__).parent.parent / "docs" / "settings.md"
HEAD = """# Settings

Everything that a recipe can say. In JSON or TOML a part is a table (`{"adapter": {"rank": 8}}`), on the command line a
setting is written with its dotted name (`--set adapter.rank=8`). A recipe may begin with the settings of a
[preset](presets.md), by the key `preset`. This page is made by
`python -m trainer_core.settings_page` from the code's own descriptions.
"""

IDLE = """
## What does nothing beside what

The page of ComfyUI greys these settings where that is so. "Refused" is where any value but the usual one is an error,
because whoever sets it expects something.

| setting | while | why | |
|---|---|---|---|
"""


def for_terminal() -> str:
    lines = ["settings (change them with --set NAME=VALUE, or in a recipe):"]
    for part, entries in _by_part().items():
        lines.append(f"\n  {part}")
        for name, described in entries:
            lines.append(f"    {name}  ({', '.join(_facts(described))})")
            indents = {"initial_indent": " " * 8, "subsequent_indent": " " * 8}
            lines += textwrap.wrap(_help(described), 108, break_on_hyphens=False, **indents)
    return "\n".join(lines)


def for_page() -> str:
    text = HEAD
    for part, entries in _by_part().items():
        text += f"\n## {part}\n\n| setting | default | range | what it does |\n|---|---|---|---|\n"
        for name, described in entries:
            # A page takes what is in angle brackets for HTML.
            help = _help(described).replace("|", r"\|").replace("<", "&lt;")
            text += f"| `{name}` | `{_default(described)}` | {_range(described)} | {help} |\n"
    return text + _idle()


def _idle() -> str:
    text = IDLE
    for rule in RULES:
        when = " and ".join(f"`{name}` {_met(condition)}" for name, condition in rule.when.items())
        text += f"| `{rule.setting}` | {when} | {rule.why} | {'refused' if rule.idle is not None else ''} |\n"
    return text


def _met(condition: Among | Other) -> str:
    said = " or ".join(f"`{json.dumps(value)}`" for value in condition.values)
    return f"is {said}" if isinstance(condition, Among) else f"is not {said}"


def _by_part() -> dict[str, list[tuple[str, Option]]]:
    parts: dict[str, list[tuple[str, Option]]] = {}
    for name, described in settings().items():
        parts.setdefault(name.rpartition(".")[0] or "base", []).append((name, described))
    return parts


def _help(described: Option) -> str:
    entry = entry_of(described.type)
    if entry is None:
        return described.help
    names = [f"`{name}`" for name in options_of(entry) if name != "path"]
    return f"{described.help}: {', '.join(names)}; what it does not set is as it stands in the part itself"


def _facts(described: Option) -> list[str]:
    return [fact for fact in (f"default {_default(described)}", _range(described)) if fact]


def _range(described: Option) -> str:
    if entry_of(described.type):
        return "a JSON list of tables"
    if not described.separated:
        return "several: a JSON list"
    return f"{described.range} {described.unit}".strip()


def _default(described: Option) -> str:
    return json.dumps(described.default, ensure_ascii=False)


if __name__ == "__main__":
    PAGE.write_text(for_page(), encoding="utf-8", newline="\n")
