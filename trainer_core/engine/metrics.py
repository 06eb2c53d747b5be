"""The history of a run in a file: one JSON line per step, validation, preview and checkpoint, and its picture."""

import json
import math
from pathlib import Path

from ..files import write_text
from .events import Checkpointed, Event, Previewed, Steps, Validated


class MetricsFile:
    """Observer that keeps the history; a resumed run goes on where its checkpoint was."""

    def __init__(self, path: Path, from_step: int):
        """Lines of steps after `from_step` are dropped: those steps are done again."""
        self.path = path
        kept = [line for line in read(path) if line["step"] <= from_step]
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))

    def on(self, event: Event) -> None:
        lines = []
        if isinstance(event, Steps):
            for offset, loss in enumerate(event.losses):
                lines.append(
                    {
                        "step": event.first + offset,
                        "loss": loss if math.isfinite(loss) else None,
                        "learning_rate": event.learning_rate,
                        "seconds": round(event.seconds_per_step, 5),
                    }
                )
        elif isinstance(event, Validated):
            lines.append({"step": event.step, "validation": event.loss if math.isfinite(event.loss) else None})
        elif isinstance(event, Previewed):
            lines.append({"step": event.step, "preview": event.path.name})
        elif isinstance(event, Checkpointed):
            lines.append({"step": event.step, "checkpoint": event.path.name})
        if lines:
            with open(self.path, "a", encoding="utf-8") as file:
                file.writelines(json.dumps(line) + "\n" for line in lines)


def read(path: Path) -> list[dict]:
    """The lines of a history; a line that was torn by a crash is left out."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            lines.append(line)
    return lines
