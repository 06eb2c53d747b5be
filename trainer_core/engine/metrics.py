"""The history of a run in a file: one JSON line per step, validation, preview and checkpoint."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..files import write_text
from .events import Checkpointed, Event, Previewed, Steps, Validated


class MetricsFile:
    """Observer that keeps the history; a resumed run goes on where its checkpoint was.

    While the disk refuses, lines wait in memory; the next event tries again.
    """

    def __init__(self, path: Path, from_step: int, checkpoint: str = "", warn: Callable[[str], None] | None = None):
        """Lines of steps after `from_step` are dropped: those steps are done again.

        Args:
            checkpoint: the name of the one that the run goes on from; a run that was killed right after it was written
                could not tell of it.
            warn: hears, once, that the file cannot be written.

        Raises:
            ScionError: the file cannot be written now, before anything is trained.
        """
        self.path, self._warn = path, warn
        kept = [line for line in read(path) if line["step"] <= from_step]
        self._told = {(line["step"], _kind(line)) for line in kept if line["step"] == from_step or "preview" in line}
        if from_step and checkpoint and (from_step, "checkpoint") not in self._told:
            kept.append({"step": from_step, "checkpoint": checkpoint})
        data = _encoded(kept)
        write_text(path, data.decode())
        self._whole, self._waiting = len(data), b""

    def on(self, event: Event) -> None:
        # The last look is repeated when a run is killed in it, and may be at an earlier step, the best, which had one.
        lines = [line for line in _lines(event) if (line["step"], _kind(line)) not in self._told]
        self._told |= {(line["step"], "preview") for line in lines if "preview" in line}
        self._waiting += _encoded(lines)
        if not self._waiting:
            return
        try:
            self._append()
        except OSError as error:
            if self._warn is not None:
                warn, self._warn = self._warn, None
                warn(
                    f"{self.path}: cannot be written ({error.strerror or error}). Its lines wait in memory and are "
                    "written when there is space again; the run goes on"
                )

    def _append(self) -> None:
        # Unbuffered: a buffer would try once more, and raise, when the file is closed.
        with open(self.path, "ab", buffering=0) as file:
            if file.tell() > self._whole:  # half a line of an attempt that failed
                file.truncate(self._whole)
            rest = memoryview(self._waiting)
            while rest:
                rest = rest[file.write(rest) :]
            self._whole, self._waiting = file.tell(), b""


def _lines(event: Event) -> list[dict]:
    if isinstance(event, Steps):
        return [
            {
                "step": event.first + offset,
                "loss": _finite(loss),
                "learning_rate": event.learning_rate,
                "seconds": round(event.seconds_per_step, 5),
            }
            for offset, loss in enumerate(event.losses)
        ]
    if isinstance(event, Validated):
        best = {"best_step": event.best_step} if event.best_step else {}
        return [{"step": event.step, "validation": _finite(event.loss), **best}]
    if isinstance(event, Previewed):
        count, height, width, _ = event.pictures.shape
        shown = {"prompts": event.prompts, "count": count, "width": width, "height": height}
        return [{"step": event.step, "preview": event.path.name, **shown}]
    if isinstance(event, Checkpointed):
        return [{"step": event.step, "checkpoint": event.path.name}]
    return []


def _finite(number: float) -> float | None:
    """JSON has no word for NaN and infinity."""
    return number if math.isfinite(number) else None


def _kind(line: dict) -> str:
    return next((key for key in ("loss", "validation", "preview", "checkpoint") if key in line), "")


def _encoded(lines: list[dict]) -> bytes:
    return "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines).encode()


def read(path: Path) -> list[dict]:
    """The lines of a history; a line that was torn by a crash is left out."""
    if not path.exists():
        return []
    texts = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line for line in _decoded(texts) if isinstance(line, dict) and isinstance(line.get("step"), int)]


def _decoded(texts: list[str]) -> list[Any]:
    try:
        # All at once takes little more than half the time, and a chart waits for it.
        return json.loads(f"[{','.join(texts)}]")
    except ValueError:
        return [line for text in texts for line in _whole(text)]


def _whole(text: str) -> list[Any]:
    try:
        return [json.loads(text)]
    except ValueError:
        return []
