"""What a person at a terminal is told to do next: how to go on with a run, or to begin another."""

from collections.abc import Mapping
from pathlib import Path


class CommandLine:
    """Advice for a person at a terminal. The graph gives its own, in the same sentences."""

    another_run = "it makes another run, which run.existing=new begins"
    """What follows from a change of a setting that decides the weights."""

    def go_on(self, recipe: Path, changes: Mapping[str, str] | None = None) -> str:
        """How to go on with the run whose recipe this is.

        Args:
            changes: settings by dotted name without which it would stop in the same way.
        """
        said = "".join(f" --set {name}={value}" for name, value in (changes or {}).items())
        return f'Go on with: scion train "{recipe}"{said}'

    def begin_lower(self, recipe: Path, setting: str, rate: str, start: Mapping[str, str]) -> str:
        """How to begin it with a lower learning rate.

        Args:
            setting: the dotted name of that learning rate.
            rate: its value.
            start: settings by dotted name that begin at the last good weights; empty if there are none.
        """
        words = "Begin another run from there" if start else "Begin anew"
        changes = {"run.existing": "new", setting: rate, **start}
        said = " ".join(f"--set {name}={value}" for name, value in changes.items())
        return f'{words} with a lower learning rate: scion train "{recipe}" {said}'
