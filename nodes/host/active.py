"""What trains now in this process: pages that come late ask for it, and commands reach a run through it."""

import dataclasses
import threading
from typing import Any

from ...trainer_core.engine.requests import Requests


@dataclasses.dataclass
class Training:
    """A TrainLoRA node at work. Its observer writes it; other threads read `told`."""

    node: str
    prompt: str | None
    requests: Requests
    run: str | None = None
    """None until it is known."""
    phase: dict[str, Any] | None = None
    """{what, done, total}: for what the steps wait; None while there are steps."""
    step: int = 0
    total: int = 0

    def told(self) -> dict[str, Any]:
        return {
            "node": self.node,
            "prompt_id": self.prompt,
            "run": self.run,
            "phase": self.phase,
            "step": self.step,
            "total": self.total,
        }


_lock = threading.Lock()
_trainings: list[Training] = []
_changes = 0


def enter(training: Training) -> None:
    with _lock:
        _trainings.append(training)


def leave(training: Training) -> None:
    with _lock:
        _trainings.remove(training)


def trainings() -> list[Training]:
    with _lock:
        return list(_trainings)


def of_run(run: str) -> Training | None:
    """The node that trains a run; None if none does."""
    return next((training for training in trainings() if training.run == run), None)


def note_change() -> None:
    """A run is no longer what the host may remember of it: it was ended, opened again or deleted by hand."""
    global _changes
    with _lock:
        _changes += 1


def changes() -> int:
    """How often `note_change` was called: part of what tells the host whether a node has to be asked again."""
    with _lock:
        return _changes
