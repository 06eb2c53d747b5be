"""A run in the host's log: a few lines, for those who queue without the page."""

import logging
import time

from ..trainer_core.engine.events import Event, Finished, Started, Steps, Validated, Warned

EVERY = 60.0
"""Seconds between two lines of progress."""

log = logging.getLogger("scion")


class LogObserver:
    def __init__(self):
        self._said = time.monotonic()

    def on(self, event: Event) -> None:
        match event:
            case Started():
                begun = (
                    f"goes on at step {event.step} of {event.total}" if event.step else f"trains {event.total} steps"
                )
                log.info("Scion: %s %s, %s on %s", event.folder, begun, event.precision, event.device)
            case Steps():
                self._steps(event)
            case Validated():
                log.info("Scion: step %d, %s", event.step, event.line)
            case Warned():
                log.warning("Scion: %s", event.message)
            case Finished():
                status = f"{event.status} early ({event.early})" if event.early else event.status
                made = ", ".join(map(str, event.made.files)) or "no file"
                log.info("Scion: %s at step %d of %d: %s", status, event.step, event.total, made)

    def _steps(self, event: Steps) -> None:
        if time.monotonic() - self._said < EVERY:
            return
        self._said = time.monotonic()
        minutes = event.seconds_left / 60
        log.info("Scion: step %d of %d, loss %.4f, %.0f min left", event.last, event.total, event.losses[-1], minutes)
