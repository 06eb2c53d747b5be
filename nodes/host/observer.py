"""What all pages hear of a run in the graph."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import comfy.utils
import numpy as np
import torch
from comfy_execution.utils import get_executing_context
from PIL import Image

from ...trainer_core.engine.events import (
    Busy,
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
from ...trainer_core.engine.requests import Requests
from ...trainer_core.engine.validation import BY_HAND
from ...trainer_core.errors import ScionError
from . import active, preferences, workflow_file
from .running import Watch, advance, server_of_host

PREVIEW_SIDE = 768
"""Pixels of the longer side of the preview that is sent; the run folder keeps the whole picture."""


class NodeObserver:
    """Tells of a run: by the host's progress bar and preview, and by `scion.*` events to all pages.

    Each event carries node, prompt and, once it is known, run (the id by which `/scion/runs/<id>` gives the history).

    Args:
        workflow: what the page queued, which is kept with the run; None where a script queued a prompt alone.
    """

    def __init__(self, node: str, workflow: dict[str, Any] | None = None):
        context = get_executing_context()
        self.node, self.requests, self._workflow = node, Requests(), workflow
        self._training = active.Training(node, context.prompt_id if context else None, self.requests)
        self._bar: comfy.utils.ProgressBar | None = None
        self._watch: tuple[str, Watch] = ("", Watch(node))
        self._waiting: dict[str, Any] | None = None
        self._sent, self._interval = 0.0, preferences.event_interval()
        self._told: tuple[str, float] = ("", 0.0)
        """Of what the steps wait for: what was told last, and when."""

    @contextmanager
    def present(self) -> Iterator[None]:
        """While this lasts, pages are told that the node trains, and its run takes commands."""
        active.enter(self._training)
        try:
            yield
        except Exception as error:
            self._send("failed", message=str(error), step=self._training.step)
            raise
        finally:
            active.leave(self._training)

    def on(self, event: Event) -> None:
        if not isinstance(event, Steps):
            self._flush()
        match event:
            case Scanned():
                self._send("scanned", lines=event.lines)
            case Working():
                self._working(event)
            case Busy():
                self._busy(event)
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
        if server := server_of_host():
            of = self._training
            told = {"node": self.node, "prompt_id": of.prompt, "run": of.run, **_finite(data)}
            # Not to the page that queued alone: others watch, too, and it may have been loaded anew.
            server.send_sync(f"scion.{name}", told, None)

    def _working(self, event: Working) -> None:
        if self._watch[0] != event.what:
            self._watch = event.what, Watch(self.node)
        self._watch[1](event.done, event.total)
        self._busy(event)

    def _busy(self, event: Working | Busy) -> None:
        self._training.phase = {"what": event.what, "done": event.done, "total": event.total}
        now = time.monotonic()
        if event.what != self._told[0] or event.done == event.total or now - self._told[1] >= self._interval:
            self._told = event.what, now
            self._send("working", **self._training.phase)

    def _started(self, event: Started) -> None:
        of = self._training
        of.run, of.step, of.total, of.phase = event.folder.name, event.step, event.total, None
        self._bar = comfy.utils.ProgressBar(event.total, node_id=self.node)
        advance(self._bar, event.step, event.total)
        self._send(
            "started",
            step=event.step,
            total=event.total,
            modules=event.modules,
            parameters=event.parameters,
            precision=event.precision,
            device=event.device,
        )
        self._keep_workflow(event.folder)

    def _keep_workflow(self, folder: Path) -> None:
        """The training is worth more than this: where it fails, that is said."""
        if self._workflow is None:
            return
        try:
            workflow_file.keep(folder, self._workflow)
        except ScionError as error:
            self.on(Warned(str(error)))

    def _steps(self, event: Steps) -> None:
        """Gathers what comes faster than it may be sent."""
        self._training.step, self._training.phase, self._told = event.last, None, ("", 0.0)
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
        if time.monotonic() - self._sent >= self._interval or event.last == event.total:
            self._flush()

    def _flush(self) -> None:
        if self._waiting is None:
            return
        waiting, self._waiting, self._sent = self._waiting, None, time.monotonic()
        last = waiting["first"] + len(waiting["losses"]) - 1
        advance(self._bar, last, waiting["total"])
        self._send("step", **waiting)

    def _on_validated(self, event: Validated) -> None:
        best = {"step": event.best_step, "loss": event.best_loss} if event.best_step else None
        self._send("validation", step=event.step, loss=event.loss, best=best)

    def _previewed(self, event: Previewed) -> None:
        strip = Image.fromarray((torch.cat(list(event.pictures), dim=1).numpy() * 255).round().astype(np.uint8))
        # The host would enlarge what is smaller.
        limit = PREVIEW_SIDE if max(strip.size) > PREVIEW_SIDE else None
        # The last pictures may be those of an earlier step, the best.
        advance(self._bar, max(event.step, self._training.step), self._bar.total, ("JPEG", strip, limit))
        count, height, width, _ = event.pictures.shape
        shown = {"prompts": event.prompts, "count": count, "width": width, "height": height}
        self._send("preview", step=event.step, name=event.path.name, **shown)

    def _finished(self, event: Finished) -> None:
        made = event.made.files
        if made:  # of a run that was finished before, this is the first that is known of it
            folder = made[0].parent
            self._training.run = folder.name
            if not workflow_file.is_kept(folder):
                self._keep_workflow(folder)
        # Its name is told beside the LoRA's, which the page shows.
        decorator = [f"Decorator: {event.made.decorator.name}"] if event.made.decorator else []
        self._send(
            "finished",
            status=event.status,
            step=event.step,
            total=event.total,
            lora=made[0].name if made else None,
            lines=[*([f"It ended early, {event.early}."] if event.early else []), *event.lines, *decorator],
            early=bool(event.early),
            by_hand=event.early == BY_HAND,
            trained=self._bar is not None,
        )


def _finite(value: Any) -> Any:
    """None for numbers that JSON does not know, such as a diverging loss: browsers would refuse the whole message."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
