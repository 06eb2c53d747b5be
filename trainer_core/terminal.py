"""What a run looks like in a terminal: one line of progress at a time, and a sentence for each event that matters."""

import math
import sys
import time
from collections import deque

from tqdm import tqdm

from .engine.events import Checkpointed, Event, Finished, Previewed, Scanned, Started, Steps, Validated, Warned, Working

BAR = "{desc:<9} {percentage:3.0f}% |{bar:24}| {n_fmt}/{total_fmt}{postfix}"
DRAW_EVERY = 0.1
"""Seconds between two drawings of a bar."""


class Terminal:
    """Observer that draws bars on standard error and writes sentences on standard output.

    Args:
        quiet: sentences only, no bars (as when output is not a terminal).
    """

    def __init__(self, quiet: bool | None = None):
        self.quiet = not sys.stderr.isatty() if quiet is None else quiet
        self._bar: tqdm | None = None
        self._what, self._drawn = "", 0.0
        self._losses: deque[float] = deque(maxlen=100)

    def say(self, text: str) -> None:
        if self._bar is None:
            print(text, flush=True)
        else:
            self._bar.write(text, file=sys.stdout)

    def on(self, event: Event) -> None:
        match event:
            case Scanned():
                self._close()
                self.say("\n".join(event.lines))
            case Working():
                self._progress(event.what, event.done, event.total, "")
                if event.done == event.total:
                    self._close()
            case Started():
                self._started(event)
            case Steps():
                self._steps(event)
            case Validated():
                self.say(f"step {event.step}: {event.line}")
            case Previewed():
                self.say(f"step {event.step}: preview {event.path}")
            case Checkpointed():
                self.say(f"step {event.step}: checkpoint {event.path}")
            case Warned():
                self.say(f"Warning: {event.message}")
            case Finished():
                self._close()
                self._finished(event)

    def _started(self, event: Started) -> None:
        self._close()
        begun = f"Going on at step {event.step} of {event.total}" if event.step else f"Training {event.total} steps"
        words = f"{event.words} new word{'s' if event.words > 1 else ''}" if event.words else ""
        modules = f"{event.modules} modules" if event.modules else ""
        decorator = "the decorator" if event.tokens else ""
        where = " and ".join(filter(None, (modules, words, decorator)))
        self.say(f"{begun}: {event.parameters:,} numbers in {where}, {event.precision} on {event.device}")

    def _steps(self, event: Steps) -> None:
        self._losses.extend(filter(math.isfinite, event.losses))
        speed = 1 / event.seconds_per_step
        mean = sum(self._losses) / len(self._losses) if self._losses else math.nan
        told = f"loss {mean:.4f}  {speed:.2f} steps/s  {duration(event.seconds_left)} left"
        self._progress("training", event.last, event.total, told)
        if self.quiet and (event.last % max(1, event.total // 10) == 0 or event.last == event.total):
            print(f"step {event.last}/{event.total}  {told}", flush=True)

    def _progress(self, what: str, done: int, total: int, told: str) -> None:
        if self.quiet:
            return
        if self._bar is None or self._what != what:
            self._close()
            self._bar = tqdm(total=total, desc=what, bar_format=BAR, leave=what == "training")
            self._what, self._drawn = what, 0.0
        self._bar.set_postfix_str(told, refresh=False)
        self._bar.n = done
        # Not update(), which goes by the wall clock: the bar would stand still while a clock put back catches up.
        if done == total or time.monotonic() - self._drawn >= DRAW_EVERY:
            self._bar.refresh()
            self._drawn = time.monotonic()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _finished(self, event: Finished) -> None:
        head = "Finished" if event.status == "finished" else "Stopped and kept"
        if event.early:
            head = "Finished early"
        self.say(f"\n{head}: step {event.step} of {event.total}" + (f", {event.early}" if event.early else ""))
        for line in event.made.lines:
            self.say(line)
        for line in event.lines:
            self.say(f"  {line}")


def duration(seconds: float) -> str:
    """ "1:02:03", "4:05" or "12 s"."""
    whole = int(seconds + 0.5)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
