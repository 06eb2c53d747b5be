"""The step with the lowest validation loss: its checkpoint is kept, and the LoRA file can have its weights."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..errors import ScionError
from . import checkpoints
from .events import Event, Warned
from .run_folder import RunFolder
from .trainer import Trainer
from .validation import Validation


class Best:
    """Which checkpoint is spared, and the way back to it.

    Args:
        tell: hears what is missing.
    """

    def __init__(self, trainer: Trainer, folder: RunFolder, validation: Validation, tell: Callable[[Event], None]):
        self._trainer, self._folder, self._validation, self._tell = trainer, folder, validation, tell
        self._keep = trainer.recipe.run.keep_best
        step = validation.record.best
        if self._keep and step and not checkpoints.path_of(folder.checkpoints, step).is_dir():
            tell(
                Warned(
                    f"step {step} has had the lowest validation loss, but its checkpoint was not kept; the best is "
                    f"sought anew from step {trainer.step} on"
                )
            )
            validation.forget()

    @property
    def spared(self) -> int:
        """The step whose checkpoint outlives later ones; 0 = none."""
        return self._validation.record.best if self._keep else 0

    @property
    def is_now(self) -> bool:
        """Whether the present step is the best, which wants a checkpoint then."""
        return self.spared == self._trainer.step > 0

    @contextmanager
    def in_file(self) -> Iterator[str]:
        """The trainer is at the step whose weights the LoRA file shall have, and then again where it was.

        Yields:
            What a person should know of it; empty where the file simply has the last step.
        """
        recipe, record = self._trainer.recipe, self._validation.record
        if recipe.output.checkpoint == "last":
            yield ""
            return
        if not record.best:
            yield "No step was validated, so the file has the last one."
            return
        said = f"The file has step {record.best:,}, where the validation loss was lowest: {record.loss:.4f}."
        if record.best == self._trainer.step:
            yield said
            return
        try:
            kept = checkpoints.read(checkpoints.path_of(self._folder.checkpoints, record.best))
        except ScionError as error:
            self._tell(Warned(f"the checkpoint of the best step cannot be read ({error}); the file has the last step"))
            yield ""
            return
        with self._trainer.back_at(kept):
            yield said
