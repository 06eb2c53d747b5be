"""A node while it works: whether the user has cancelled, and what the node shows of it."""

import time
from collections.abc import Callable, Iterator
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


def say_steps(done: int, total: int, node: str) -> None:
    say(f"Step {done:,} of {total:,}", node)


def announce_lora(name: str, text: str, node: str) -> None:
    """A saved LoRA: told on the node, and to the page, whose LoRA loaders list it then."""
    say(text, node)
    if server := server_of_host():
        server.send_sync("scion.saved", {"node": node, "name": name}, server.client_id)


def announce_checking(done: int, total: int, node: str) -> None:
    """Pictures that a dataset's node has looked at: told to all pages, whose contact sheets say it."""
    if server := server_of_host():
        server.send_sync("scion.checking", {"node": node, "done": done, "total": total}, None)


def advance(bar: comfy.utils.ProgressBar, step: int, total: int, preview: tuple | None = None) -> None:
    """The host's bar looks for a cancellation, too, and ends the node there and then; ours ends at a step's end."""
    try:
        bar.update_absolute(step, total, preview)
    except comfy.model_management.InterruptProcessingException:
        comfy.model_management.interrupt_current_processing(True)


class Watch:
    """Progress of something countable on a node: (done, total).

    Args:
        tell: what else is to be told of it, (done, total, node); not more often than a page can follow.
    """

    def __init__(self, node: str, tell: Callable[[int, int, str], None] | None = None):
        self._node, self._tell, self._bar, self._told = node, tell, None, 0.0

    def __call__(self, done: int, total: int) -> None:
        if self._bar is None:
            self._bar = comfy.utils.ProgressBar(total, node_id=self._node)
        advance(self._bar, done, total)
        now = time.monotonic()
        if self._tell and (now - self._told >= INTERVAL or done == total):
            self._told = now
            self._tell(done, total, self._node)
