"""A node while it works: whether the user has cancelled, and what the node shows of it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import comfy.model_management
import comfy.utils
from server import PromptServer

from .preferences import INTERVAL


def server_of_host() -> PromptServer | None:
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
    if server := server_of_host():
        server.send_progress_text(text, node, server.client_id)


def announce_lora(name: str, text: str, node: str) -> None:
    """A saved LoRA: told on the node, and to the page, whose LoRA loaders list it then."""
    say(text, node)
    if server := server_of_host():
        server.send_sync("scion.saved", {"node": node, "name": name}, server.client_id)


def advance(bar: comfy.utils.ProgressBar, step: int, total: int, preview: tuple | None = None) -> None:
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
        advance(self._bar, done, total)
        now = time.monotonic()
        if self._what and (now - self._said >= INTERVAL or done == total):
            self._said = now
            say(f"{self._what} {done:,} of {total:,}", self._node)
