"""A node while it works: whether the user has cancelled, what the page hears, what the node shows."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import comfy.model_management
import comfy.utils
import numpy as np
import torch
from comfy_execution.utils import get_executing_context
from PIL import Image
from server import PromptServer

from ...trainer_core.engine.events import (
    Checkpointed,
    Event,
    Finished,
    Previewed,
    Scanned,
    Started,
    Steps,
    Validated,
    Warned,
    Working,
)

PREVIEW_SIDE = 768
"""Pixels of the longer side of the preview that is sent; the run folder keeps the whole picture."""
INTERVAL = 0.1
"""Seconds between two messages about steps: a fast run must not flood the page."""


def _server() -> PromptServer | None:
    """None where the host's code runs without its server."""
    return getattr(PromptServer, "instance", None)


def cancelled() -> bool:
    """Whether the user has asked to stop; the host is not told that we know."""
    return comfy.model_management.processing_interrupted()


def end_if_cancelled() -> None:
    """Ends the node as the host expects of a cancelled one."""
    comfy.model_management.throw_exception_if_processing_interrupted()


def end() -> NoReturn:
    """Ends the node as the host expects of a cancelled one, whatever has become of the request meanwhile."""
    comfy.model_management.interrupt_current_processing(False)
    raise comfy.model_management.InterruptProcessingException


@contextmanager
def notes_shown() -> Iterator[None]:
    """The host shows an error's message without its notes, in which a run says what is kept and how to go on."""
    try:
        yield
    except Exception as error:
        notes = getattr(error, "__notes__", [])
        if notes and error.args == (str(error),):
            error.args = ("\n".join([str(error), *notes]),)
            notes.clear()
        raise


def say(text: str, node: str) -> None:
    """A line of text on the node."""
    if server := _server():
        server.send_progress_text(text, node, server.client_id)


def announce_lora(name: str, text: str, node: str) -> None:
    """A saved LoRA: told on the node, and to the page, whose LoRA loaders list it then."""
    say(text, node)
    if server := _server():
        server.send_sync("scion.saved", {"node": node, "name": name}, server.client_id)


def _advance(bar: comfy.utils.ProgressBar, step: int, total: int, preview: tuple | None = None) -> None:
    """The host's bar looks for a cancellation, too, and ends the node there and then; ours ends at a step's end."""
    try:
        bar.update_absolute(step, total, preview)
    except comfy.model_management.InterruptProcessingException:
        comfy.model_management.interrupt_current_processing(True)


class Watch:
    """Progress of something countable on a node: (done, total)."""

    def __init__(self, node: str, what: str = ""):
        self._node, self._what, self._bar, self._said = node, what, None, 0.0

    def __call__(self, done: int, total: int) -> None:
        if self._bar is None:
            self._bar = comfy.utils.ProgressBar(total, node_id=self._node)
        _advance(self._bar, done, total)
        now = time.monotonic()
        if self._what and (now - self._said >= INTERVAL or done == total):
            self._said = now
            say(f"{self._what} {done:,} of {total:,}", self._node)


class NodeObserver:
    """Tells the page of a run: the host's progress bar and preview, a line on the node, and `scion.*` events.

    Each event carries node, prompt and, once it is known, run (the id by which `/scion/runs/<id>` gives the history).
    """

    def __init__(self, node: str):
        context = get_executing_context()
        self.node, self.prompt = node, context.prompt_id if context else None
        self.run: str | None = None
        self._bar: comfy.utils.ProgressBar | None = None
        self._watch: tuple[str, Watch] = ("", Watch(node))
        self._waiting: dict[str, Any] | None = None
        self._sent = 0.0
        self._step = 0
        self._validated = ""

    def on(self, event: Event) -> None:
        if not isinstance(event, Steps):
            self._flush()
        match event:
            case Scanned():
                self._send("scanned", lines=event.lines)
            case Working():
                self._working(event)
            case Started():
                self._started(event)
            case Steps():
                self._steps(event)
            case Previewed():
                self._previewed(event)
            case Validated():
                self._on_validated(event)
            case Checkpointed():
                self._send("checkpoint", step=event.step, name=event.path.name)
            case Warned():
                self._send("warning", message=event.message)
            case Finished():
                self._finished(event)

    def _send(self, name: str, /, **data: Any) -> None:
        if server := _server():
            told = {"node": self.node, "prompt_id": self.prompt, "run": self.run, **_finite(data)}
            server.send_sync(f"scion.{name}", told, server.client_id)

    def _working(self, event: Working) -> None:
        if self._watch[0] != event.what:
            self._watch = event.what, Watch(self.node, event.what.capitalize())
        self._watch[1](event.done, event.total)

    def _started(self, event: Started) -> None:
        self.run = event.folder.name
        self._bar, self._step = comfy.utils.ProgressBar(event.total, node_id=self.node), event.step
        _advance(self._bar, event.step, event.total)
        self._send(
            "started",
            step=event.step,
            total=event.total,
            modules=event.modules,
            parameters=event.parameters,
            precision=event.precision,
            device=event.device,
        )

    def _steps(self, event: Steps) -> None:
        """Gathers what comes faster than it may be sent."""
        waiting = self._waiting or {"first": event.first, "losses": []}
        waiting["losses"] += event.losses
        waiting |= {
            "total": event.total,
            "learning_rate": event.learning_rate,
            "epoch": event.epoch,
            "seconds_per_step": event.seconds_per_step,
            "seconds_left": event.seconds_left,
            "memory": event.memory,
        }
        self._waiting = waiting
        if time.monotonic() - self._sent >= INTERVAL or event.last == event.total:
            self._flush()

    def _flush(self) -> None:
        if self._waiting is None:
            return
        waiting, self._waiting, self._sent = self._waiting, None, time.monotonic()
        last = waiting["first"] + len(waiting["losses"]) - 1
        self._step = last
        _advance(self._bar, last, waiting["total"])
        self._send("step", **waiting)
        say(_line(last, waiting) + self._validated, self.node)

    def _on_validated(self, event: Validated) -> None:
        self._validated = f" · {event.line}"
        self._send("validation", step=event.step, loss=event.loss, best_step=event.best_step, best_loss=event.best_loss)
        say(f"Step {event.step:,} of {self._bar.total:,}{self._validated}", self.node)

    def _previewed(self, event: Previewed) -> None:
        strip = Image.fromarray((torch.cat(list(event.pictures), dim=1).numpy() * 255).round().astype(np.uint8))
        # The host would enlarge what is smaller.
        limit = PREVIEW_SIDE if max(strip.size) > PREVIEW_SIDE else None
        # The last pictures may be those of an earlier step, the best.
        _advance(self._bar, max(event.step, self._step), self._bar.total, ("JPEG", strip, limit))
        self._send("preview", step=event.step, name=event.path.name, prompts=event.prompts)

    def _finished(self, event: Finished) -> None:
        lora = event.lora.name if event.lora else None
        self._send(
            "finished",
            status=event.status,
            step=event.step,
            total=event.total,
            lora=lora,
            lines=event.lines,
            early=event.early,
        )
        say(_end(event, trained=self._bar is not None), self.node)


def _end(event: Finished, trained: bool) -> str:
    """What the node says when a run has ended."""
    if event.status == "stopped" and event.step:
        return f"Stopped and kept at step {event.step:,} of {event.total:,}. Run goes on from here."
    if event.status == "stopped":
        return "Stopped before the first step."
    if event.early:
        return f"Finished early at step {event.step:,} of {event.total:,}: {event.early}. In {event.lora.parent.name}"
    done = (
        f"Finished: {event.total:,} steps" if trained else f"Finished before, {event.total:,} steps: nothing to train"
    )
    return f"{done}. In {event.lora.parent.name}" if event.lora else f"{done}."


def _finite(value: Any) -> Any:
    """None for numbers that JSON does not know, such as a diverging loss: browsers would refuse the whole message."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _line(step: int, told: dict[str, Any]) -> str:
    """What the node says while it trains."""
    losses = told["losses"]
    speed = told["seconds_per_step"]
    pace = f"{speed:.2f} s/step" if speed >= 1 else f"{1 / speed:.1f} steps/s" if speed else ""
    loss, left = sum(losses) / len(losses), _span(told["seconds_left"])
    return f"Step {step:,} of {told['total']:,} · loss {loss:.4f} · {pace} · {left} left"


def _span(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
