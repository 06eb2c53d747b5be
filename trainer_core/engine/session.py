"""A run while it trains: between steps it saves, previews, validates and listens; at the end it exports the LoRA."""

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from ..errors import BadInput, ScionError
from ..families.base import Conditioning
from ..lora_file.dialects import DIALECTS
from ..lora_file.lora import ReaderReport
from . import charts, checkpoints, export, learning_parts, memory_advice, metrics, parameter_groups, sampling
from .advice import CommandLine
from .best import Best
from .events import Audience, Busy, Checkpointed, Finished, Previewed, Started, Warned
from .failures import Diverged, is_out_of_memory
from .output import decorator_file, dialect, preview_settings, settings
from .requests import CHECKPOINT, SAMPLE, Requests
from .run_folder import Made, RunFolder, RunState
from .trainer import Trainer
from .validation import Record, Validation, why_early

Prompts = tuple[list[str], tuple[list[Conditioning], Conditioning] | None]
"""Preview prompts, and the same encoded with the encoded negative prompt; None where the text encoder learns."""


FAILURE_MOST = 4000
"""Letters of an error that are kept with the run."""


class Session:
    def __init__(
        self,
        trainer: Trainer,
        folder: RunFolder,
        state: RunState,
        audience: Audience,
        should_stop: Callable[[], bool],
        requests: Requests,
        dataset_fingerprint: str,
        prompts: Prompts,
        advice: CommandLine,
        record: Record,
    ):
        self.trainer, self.folder, self.state, self.audience = trainer, folder, state, audience
        self.recipe, self.model = trainer.recipe, trainer.model
        self.should_stop, self.requests = should_stop, requests
        self.dataset_fingerprint, self.prompts, self.advice = dataset_fingerprint, prompts, advice
        self.validation = Validation(trainer, record, state.patient_until, audience.on)
        self.best = Best(trainer, folder, self.validation, audience.on)
        self.stopped = False
        self.ended_early = False
        self.made = Made()
        self._saved_step, self._saved_at = trainer.step, time.monotonic()
        # What is due after a resumed run's last step is done now if its history lacks it.
        self._handled = max(0, trainer.step - 1)
        self._seen = {line["step"] for line in metrics.read(folder.metrics) if "preview" in line}
        self._previewed: int | None = None
        """The step of the last preview that was drawn."""

    def run(self) -> str:
        """Trains to the end or to the stop.

        Returns:
            "finished" or "stopped".

        Raises:
            ScionError: training failed; a checkpoint of the last whole step was written.
        """
        self._announce()
        try:
            self._train()
            with self.best.in_file() as told:
                if not self.stopped:
                    self._look(last=True)
                lines = [told] if told else []
                if self.trainer.step:
                    lines += self._write()
            return self._close(lines)
        except BaseException as error:
            failure = self._kept_and_told(error)
            if isinstance(failure, Exception):
                self._note_failure(failure)
            if failure is error:
                raise
            raise failure from error

    def _train(self) -> None:
        try:
            self.trainer.train(self.audience.on, self._between)
            # If this fails (a full disk), the LoRA itself, which is smaller, may still be saved.
            self._attempt("checkpoint", self._checkpoint)
        finally:
            self.trainer.release()

    def _announce(self) -> None:
        trainer = self.trainer
        count = sum(parameter.numel() for parameter in trainer.parameters.values())
        modules = len(learning_parts.layers(self.model))
        self.audience.on(
            Started(
                self.folder.path,
                trainer.step,
                trainer.total,
                modules,
                count,
                trainer.precision,
                str(trainer.device),
                len(self.recipe.words.names),
                self.recipe.decorator.num_tokens,
            )
        )

    # ---- between steps

    def _between(self) -> bool:
        """Does what is due after a step; whether to stop."""
        run, step = self.recipe.run, self.trainer.step
        # Before the checkpoint, which holds what it showed: a run that goes on from there ends where it would have.
        if self.validation.is_due:
            self._attempt("validation", self.validation.go)
        if step > self._handled:
            self._handled = step
            minutes = (time.monotonic() - self._saved_at) / 60
            due = run.checkpoint_every and step % run.checkpoint_every == 0
            if due or (run.checkpoint_minutes and minutes >= run.checkpoint_minutes) or self.best.is_now:
                self._attempt("checkpoint", self._checkpoint)
            if step < self.trainer.total:
                self._look()
        self._obey()
        exhausted, finishing = self.validation.record.is_exhausted(run.early_stop), self.requests.finishing
        # Before the first step there is nothing to make a file of.
        self.stopped = self.should_stop() or (finishing and step == 0)
        self.ended_early = 0 < step < self.trainer.total and (exhausted or finishing)
        if self.ended_early and not exhausted:
            # Whoever goes on knows of it, should this process die before the file is made.
            self.state.ended_by_hand, self.state.early_end = True, self.trainer.total
        return self.stopped or self.ended_early

    def _obey(self) -> None:
        """Does what was asked for; a checkpoint and a preview of this step that are there already are enough."""
        if self.requests.take(CHECKPOINT):
            self._attempt("checkpoint", self._checkpoint)
        asked = self.requests.take(SAMPLE)
        if asked and self.prompts[0] and self._previewed != self.trainer.step < self.trainer.total:
            self._attempt("preview", self._preview)

    def _look(self, last: bool = False) -> None:
        run, step = self.recipe.run, self.trainer.step
        due = run.preview_every and step % run.preview_every == 0 and step not in self._seen
        if self.prompts[0] and self._previewed != step and (last or due):
            self._attempt("preview", self._preview)

    def _attempt(self, what: str, action: Callable[[], object]) -> None:
        """What fails beside the training itself is said, and does not end the run."""
        try:
            action()
        except Exception as error:
            said = str(error) or type(error).__name__
            if is_out_of_memory(error):
                self._make_room(error)
                said = memory_advice.BESIDE.get(what, "out of memory")
            self.audience.on(Warned(f"step {self.trainer.step}: the {what} failed ({said}); the run goes on"))

    def _preview(self) -> None:
        prompts, told = self.prompts
        preview, dataset = self.recipe.preview, self.trainer.dataset
        bucket = max(dataset.bucket_counts, key=lambda bucket: dataset.bucket_counts[bucket][1])
        size = (preview.width or bucket.width, preview.height or bucket.height)

        def watch(done: int, total: int) -> None:
            self.audience.on(Busy("previewing", done, total))

        watch(0, 0)
        # Text encoders that learn are where the training is, and stay.
        text = told is not None
        weights, trainer = self.recipe.weights_of_previews, self.trainer
        with trainer.at_rest(weights), trainer.unassisted(), self.model.encoder_on(trainer.device, text):
            if told is None:
                *entries, negative = self.trainer.modules.entries([*prompts, preview.negative])
                told = (entries, negative)
            pictures = sampling.draw(
                self.model, prompts, preview, *size, entries=told, should_stop=self.should_stop, watch=watch
            )
        if pictures is None:
            self.stopped = True
            return
        if not torch.isfinite(pictures).all():
            raise ScionError(
                "pictures hold NaN or infinity. A VAE overflows in half precision: run it in float32 (ComfyUI: "
                "--fp32-vae), or use a VAE that is made for fp16"
            )
        path = self.folder.previews / f"step-{self.trainer.step:08d}.png"
        charts.save_strip(path, pictures, prompts)
        charts.save_each(self.folder.samples, pictures)
        self._previewed = self.trainer.step
        self.audience.on(Previewed(self.trainer.step, path, prompts, pictures))

    def _checkpoint(self) -> None:
        step = self.trainer.step
        self._saved_at = time.monotonic()
        if step == self._saved_step:
            return
        self.trainer.tell_steps()
        self.audience.on(Busy("saving"))

        def also(partial: Path) -> None:
            # Without it the run can go on just as well.
            self._attempt("LoRA beside the checkpoint", lambda: self._export(partial))

        checkpoint = self.trainer.checkpoint()
        checkpoint.extras["validation"] = asdict(self.validation.record)
        keep = self.recipe.run.keep_checkpoints
        path = checkpoints.save(self.folder.checkpoints, checkpoint, keep, also, self.best.spared)
        self._saved_step = self.state.step = step
        self.audience.on(Checkpointed(step, path))
        self._attempt("writing of run.json", self._save_state)

    def _save_state(self) -> None:
        self.folder.save_state(self.state)

    def _kept_and_told(self, error: BaseException) -> BaseException:
        """Saves the last whole step; the error as a person should hear of it, which says how to go on."""
        short, changes = is_out_of_memory(error), {}
        if short:
            self._make_room(error)
        if isinstance(error, Diverged) and error.finite_step is not None:
            self._attempt("way back", lambda: self._go_back(error.finite_step))
        elif self.trainer.consistent:
            self._attempt("checkpoint", self._checkpoint)
        if short and self.trainer.step == self.trainer.total:
            error = ScionError(f"out of memory after the last step. {memory_advice.OTHERWISE}")
        elif short:
            told = memory_advice.training(self.trainer, self.advice)
            error, changes = ScionError(f"step {self.trainer.step + 1}: {told.text}"), told.changes
        elif isinstance(error, BadInput):  # which would say that nothing was written
            error = ScionError(str(error))
        kept = f"Kept: step {self._saved_step}. " if self._saved_step else ""
        if kept and self._saved_step == self.trainer.total:
            kept = f"Kept: step {self._saved_step}, the last: nothing has to be trained again. "
        if isinstance(error, Diverged):
            error.add_note(kept + self._how_to_begin_lower())
        elif kept or changes:
            error.add_note(kept + self.advice.go_on(self.folder.recipe, changes))
        return error

    def _note_failure(self, failure: Exception) -> None:
        """For who looks at the run later, when the message is long gone."""
        said = "\n".join([str(failure) or type(failure).__name__, *getattr(failure, "__notes__", [])])
        self.state.failure = said[:FAILURE_MOST]
        self._attempt("writing of run.json", self._save_state)

    def _go_back(self, step: int) -> None:
        """To the weights of an earlier step: what came after the last checkpoint is done once more, which gives the
        same numbers, and kept. Without a checkpoint nothing is."""
        checkpoint = checkpoints.latest(self.folder.checkpoints, lambda text: self.audience.on(Warned(text)))
        if checkpoint is None or checkpoint.step > step:
            return
        self.trainer.restore(checkpoint)
        self.trainer.train(lambda steps: None, lambda: self.trainer.step >= step or self.should_stop())
        self._checkpoint()

    def _make_room(self, error: BaseException) -> None:
        """Lets go of what a failed step or preview still holds."""
        memory_advice.let_go(error)
        self.trainer.free_gradients()

    # ---- the end

    def _export(self, folder: Path, peft: bool = False) -> list[ReaderReport]:
        return export.export(self.trainer, folder, self.dataset_fingerprint, self.state.started_at, peft)

    def _write(self) -> list[str]:
        """The files of the trainer's present step, and the loss plot; who loads the LoRA."""
        state, path = self.state, self.folder.path
        self.audience.on(Busy("saving"))
        reports = self._export(path, peft=True)
        state.lora, state.words = export.lora_file(self.recipe), self.recipe.words.files
        state.decorator = decorator_file(self.recipe)
        self.made = state.made(path)
        self._attempt(
            "loss plot", lambda: charts.save_loss_plot(self.folder.loss_plot, metrics.read(self.folder.metrics))
        )
        state.output = settings(self.recipe)
        # A look that failed is tried again when the run is asked for once more.
        looked = self._previewed == self.trainer.step or not self.prompts[0]
        state.preview = preview_settings(self.recipe) if looked else None
        return [report.line() for report in reports]

    def _close(self, lines: list[str]) -> str:
        trainer, state, early = self.trainer, self.state, ""
        # All steps may be done: what is missing then is the last look, which going on makes up for.
        status = "stopped" if self.stopped else "finished"
        if status == "finished" and self.ended_early:
            state.early_end, early = trainer.total, why_early(state.ended_by_hand, self.validation.record)
            otherwise = "" if state.ended_by_hand else ", set early_stop to 0"
            lines.append(f"To train on all the same, ask for more steps{otherwise}, or set existing to continue.")
        if trainer.skipped:
            lines.append(f"{trainer.skipped} of {trainer.step} steps were skipped: their gradients were not finite.")
        if status == "stopped":
            lines.append(self.advice.go_on(self.folder.recipe))
        # A clock that was put back meanwhile does not end the run before it began.
        state.status, state.step, state.finished_at = status, trainer.step, max(state.started_at, time.time())
        state.validation = asdict(self.validation.record)
        self._attempt("writing of run.json", self._save_state)
        self.audience.on(Finished(status, trainer.step, trainer.total, self.made, lines, early))
        return status

    def _how_to_begin_lower(self) -> str:
        """After divergence: the same recipe would fail again, and another learning rate is another run."""
        adapter, start = self.recipe.adapter, {}
        setting, rate = parameter_groups.told_rate(self.recipe)
        lower = self.recipe.optimizer.lower_rate if setting == "optimizer.learning_rate" else rate / 3
        lora_file = checkpoints.path_of(self.folder.checkpoints, self._saved_step) / export.lora_file(self.recipe)
        if self._saved_step and lora_file.is_file():
            start["adapter.start_from"] = f'"{lora_file}"'
            if not DIALECTS[dialect(self.recipe, self.model)].keeps_alpha and adapter.scale != 1:
                # The file's B has taken in what alpha said.
                start["adapter.alpha"] = repr(adapter.rank ** (0.5 if adapter.rslora else 1))
        return self.advice.begin_lower(self.folder.recipe, setting, f"{lower:.2g}", start)
