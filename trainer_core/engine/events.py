"""What the trainer tells: typed events, sent to observers that the trainer knows nothing about."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch

from .run_folder import Made


@dataclass(frozen=True)
class Scanned:
    """The dataset is known."""

    lines: list[str]
    """The report, for a person."""


@dataclass(frozen=True)
class Working:
    """Something countable is going on: scanning, encoding."""

    what: str
    done: int
    total: int


@dataclass(frozen=True)
class Busy:
    """Something goes on for which the steps wait: loading, saving, previewing, validating."""

    what: str
    done: int = 0
    total: int = 0
    """0 = not known."""


@dataclass(frozen=True)
class Started:
    """Training begins, or goes on."""

    folder: Path
    step: int
    """Steps that are already done."""
    total: int
    modules: int
    parameters: int
    """Numbers that train."""
    precision: str
    device: str
    words: int = 0
    """New words that learn."""
    tokens: int = 0
    """Of the decorator that learns."""


@dataclass(frozen=True)
class Steps:
    """Some steps are done; on a GPU several at once, because reading a loss waits for the device."""

    first: int
    """The first of them, counted from 1."""
    losses: list[float]
    learning_rate: float
    total: int
    epoch: int
    """Of the last of them, counted from 0."""
    seconds_per_step: float
    seconds_left: float
    memory: int
    """Bytes in use: of the GPU where one trains, else of the process."""

    @property
    def last(self) -> int:
        return self.first + len(self.losses) - 1


@dataclass(frozen=True)
class Previewed:
    step: int
    path: Path
    prompts: list[str]
    pictures: torch.Tensor
    """float32 [N, H, W, 3] in 0..1."""


@dataclass(frozen=True)
class Validated:
    step: int
    loss: float
    best_step: int = 0
    """The step with the lowest loss so far; 0 where none was finite."""
    best_loss: float | None = None

    @property
    def line(self) -> str:
        if self.best_loss is None:
            return f"validation loss {self.loss:.4f}"
        best = "the best" if self.best_step == self.step else f"best {self.best_loss:.4f} at step {self.best_step:,}"
        return f"validation loss {self.loss:.4f} ({best})"


@dataclass(frozen=True)
class Checkpointed:
    step: int
    path: Path


@dataclass(frozen=True)
class Warned:
    """Something a person should know, in one sentence; the run goes on."""

    message: str


@dataclass(frozen=True)
class Finished:
    """The end of `train`, however it came."""

    status: str
    """"finished" or "stopped"."""
    step: int
    total: int
    made: Made = Made()
    """The files, as far as there are any."""
    lines: list[str] = field(default_factory=list)
    """What a person should know: which readers load the file, how to go on."""
    early: str = ""
    """Why it is finished before all steps are done."""


Event = Scanned | Working | Busy | Started | Steps | Previewed | Validated | Checkpointed | Warned | Finished


class Observer(Protocol):
    """Anything that wants to know; it is called in the trainer's thread and should be quick."""

    def on(self, event: Event) -> None: ...


class Audience:
    """Several observers as one. One that fails (a closed pipe, a full disk) is heard of once and asked no more: a run
    does not end because somebody stopped looking."""

    def __init__(self, observers):
        self.observers = list(observers)

    def on(self, event: Event) -> None:
        for observer in list(self.observers):
            try:
                observer.on(event)
            except Exception as error:
                self.observers.remove(observer)
                name = type(observer).__name__
                logging.getLogger(__name__).warning("%s failed and hears no more of this run", name, exc_info=True)
                self.on(Warned(f"{name} failed ({type(error).__name__}: {error}) and hears no more of this run"))
