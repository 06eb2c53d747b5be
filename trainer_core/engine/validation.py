"""What validations say about a run: the step with the lowest loss, and for how long none was lower."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import ScionError
from .events import Busy, Event, Validated, Warned
from .trainer import Trainer

BY_HAND = "as it was asked to"


@dataclass
class Record:
    """What a run's validations have shown; plain values, which each checkpoint holds."""

    weights: str = ""
    """Whose loss was measured: "trained" or "ema"; empty before the first validation."""
    last: int = 0
    """The last step that was validated."""
    best: int = 0
    """The step with the lowest loss; 0 = none."""
    loss: float | None = None
    """Of that step."""
    since: int = 0
    """Validations since then."""

    def add(self, step: int, loss: float, patient_until: int = 0) -> None:
        """A validation of a step; one that is not finite is never the best.

        Args:
            patient_until: validations up to this step do not try the patience.
        """
        self.last = step
        if math.isfinite(loss) and (self.loss is None or loss < self.loss):
            self.best, self.loss, self.since = step, loss, 0
        elif step > patient_until:
            self.since += 1

    def is_exhausted(self, patience: int) -> bool:
        """Whether the loss was not lower for so many validations; never where patience is 0."""
        return 0 < patience <= self.since

    @property
    def verdict(self) -> str:
        """Why a run ends before its last step."""
        return f"the validation loss has not improved since step {self.best:,}"


def why_early(by_hand: bool, record: Record) -> str:
    """Why a run is finished before its last step."""
    return BY_HAND if by_hand else record.verdict


class Validation:
    """Validates when it is due, and remembers.

    Args:
        record: of the checkpoint that the run goes on from.
        patient_until: as in `Record.add`.
        tell: hears of each validation.
    """

    def __init__(self, trainer: Trainer, record: Record, patient_until: int, tell: Callable[[Event], None]):
        self._trainer, self.record, self._patient_until, self._tell = trainer, record, patient_until, tell
        self._weights = trainer.recipe.weights_of_file
        if trainer.step <= patient_until:
            record.since = 0

    @property
    def is_due(self) -> bool:
        """At the run's end, too; and after a resume where the validation of the checkpoint's step is missing."""
        step, every = self._trainer.step, self._trainer.recipe.run.validate_every
        at = step % every == 0 or step == self._trainer.total
        return bool(self._trainer.dataset.holdout) and at and step > self.record.last

    def go(self) -> None:
        """Measures the loss of the weights that the LoRA file will have.

        Raises:
            ScionError: it is not finite.
        """
        step, record = self._trainer.step, self.record
        self._trainer.tell_steps()
        self._tell(Busy("validating"))
        loss = self._trainer.validate(self._weights)
        if record.weights not in ("", self._weights):
            self._tell(
                Warned(
                    f"step {step}: output.weights has changed, so validation measures the {self._weights} weights from "
                    "here on; the best is sought anew"
                )
            )
            record.best, record.loss, record.since = 0, None, 0
        record.weights = self._weights
        record.add(step, loss, self._patient_until)
        if not math.isfinite(loss):
            raise ScionError(f"the loss on held-out pictures is {loss}")
        self._tell(Validated(step, loss, record.best, record.loss))

    def forget(self) -> None:
        """Seeks the best anew."""
        self.record = Record()
