"""One run from recipe to LoRA file: what both doors, the command line and the graph, call."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from ..adapters import assistant
from ..adapters.assistant import Assistant
from ..data.dataset import Dataset
from ..data.folders import scan_dataset
from ..data.report import report_lines
from ..data.scan import Scan
from ..errors import BadInput, ScionError
from ..families.base import Model
from ..families.registry import detect
from ..families.sources import BUILT_IN, resolve
from ..files import write_json
from ..lora_file.lora import Target
from ..recipe import Recipe
from . import attention, checkpoints, fitting, learning_decorator, learning_parts, learning_words, memory_advice
from .advice import CommandLine
from .device import PRECISIONS, pick_device, pick_precision
from .events import Audience, Busy, Finished, Observer, Scanned, Warned, Working
from .failures import is_out_of_memory
from .isolation import isolated
from .learning_parts import Learner
from .metrics import MetricsFile
from .output import file_name, is_as_asked, preview_settings, settings
from .requests import FINISH, Requests
from .run_folder import Made, RunFolder, RunState, free_name
from .session import Session
from .trainer import Trainer
from .validation import Record, why_early

PATHS = ("path", "mask_path", "cache_path")
"""Settings of a dataset, or of one of its folders, that are places."""
OF_SETTINGS = ("path:", "mask_path:", "folders[")
"""A scan's problem that begins so is one of the dataset's settings."""


@dataclass(frozen=True)
class Result:
    status: str
    """"finished" or "stopped"."""
    folder: Path | None
    """Of the run; None if it was stopped before it was known which run it is."""
    step: int
    total: int
    made: Made
    """Its files; none if the run was stopped before its first step."""
    target: Target | None = None
    """The shapes of the base, by which keys can be named; None if the run was stopped before it was known."""

    @property
    def lora(self) -> Path | None:
        """The LoRA file; None where there is no LoRA."""
        return self.made.lora


def train(
    recipe: Recipe,
    folder: str | Path | Callable[[str], Path],
    observers: Iterable[Observer] = (),
    should_stop: Callable[[], bool] = lambda: False,
    model: Model | None = None,
    scan: Scan | None = None,
    advice: CommandLine | None = None,
    device: torch.device | None = None,
    requests: Requests | None = None,
) -> Result:
    """Trains what a recipe asks for, goes on with it, or returns it if it is finished.

    Args:
        folder: of the run, or what names it by the run's fingerprint; made if it is not there.
        should_stop: asked often, in scanning and encoding too; True keeps what is done and ends the run.
        model, scan: a base and a dataset that are in memory already, instead of those that the recipe names.
        advice: how a person goes on, at the door where this was called; None = at the command line.
        device: where to train, where a host decides that; it is no part of the recipe, which may be repeated elsewhere.
        requests: through which another thread asks for things meanwhile.

    Raises:
        BadInput: settings, base, dataset or folder cannot be used; nothing was changed.
        ScionError: the run failed; what was done is kept.
    """
    problems = recipe.validate()
    if problems:
        raise BadInput(*problems)
    audience = Audience(observers)
    with isolated():
        return _Run(recipe, folder, audience, should_stop, advice or CommandLine(), device, requests).go(model, scan)


class _Run:
    def __init__(
        self,
        recipe: Recipe,
        folder,
        audience: Audience,
        should_stop: Callable[[], bool],
        advice: CommandLine,
        device: torch.device | None = None,
        requests: Requests | None = None,
    ):
        self.recipe, self.audience, self.should_stop, self.advice = recipe, audience, should_stop, advice
        self.requests = requests or Requests()
        self.place = folder if callable(folder) else lambda fingerprint: Path(folder)
        self.device = device or pick_device(recipe.run.device)
        self.precision = pick_precision(recipe.run.precision, self.device)
        self.assistant: Assistant | None = None

    def go(self, model: Model | None, scan: Scan | None) -> Result:
        fitting.check_machine(self.recipe, self.device)
        source = None if model else resolve(self.recipe.base)
        scan = scan or self._scan()
        if scan is None:
            return self._nothing_done()
        self.loads_base = model is None
        if model is None:
            self.audience.on(Busy("loading"))
            with self._memory_told(lambda: memory_advice.placing(None, self.precision, self.device, self.advice)):
                model = detect(source).load(source, PRECISIONS[self.precision])
        learners = fitting.check_base(self.recipe, model, PRECISIONS[self.precision], self.device, self._warn)
        start = self._start_from(model, learners)
        self.assistant = self._assistant(model)
        dataset = Dataset(
            scan.items,
            self.recipe.dataset,
            self.recipe.run.seed,
            model.side_step,
            model.resolution,
            self.recipe.encodes_live,
            model.family.sized,
        )
        learning_words.check_captions(self.recipe.words, dataset.captions())
        self.audience.on(Scanned(report_lines(scan, dataset)))
        fingerprint = self.recipe.fingerprint(model.identity, scan.fingerprint, self.precision)
        result = self._run(fingerprint, model, dataset, scan, learners, start)
        return dataclasses.replace(result, target=learning_parts.target_of(model, self.recipe.adapter))

    def _run(self, fingerprint: str, model: Model, dataset: Dataset, scan: Scan, learners, start) -> Result:
        with ExitStack() as stack:
            folder, state = self._enter(stack, fingerprint, dataset)
            if self._is_done(folder, state):
                return self._already(folder, state)
            if state.status == "finished" and self._is_exhausted(state) and not self._would_end(state):
                state = dataclasses.replace(state, patient_until=state.step)
            return self._train(folder, state, model, dataset, scan, learners, start)

    # ---- the parts of go(), in their order

    def _scan(self) -> Scan | None:
        """None if it was stopped."""
        scan = scan_dataset(self.recipe.dataset, self._watch("scanning"), self._shall_end)
        if scan.stopped:
            return None
        if scan.problems:
            raise BadInput(
                *(f"dataset.{problem}" if problem.startswith(OF_SETTINGS) else problem for problem in scan.problems)
            )
        return scan

    def _shall_end(self) -> bool:
        """Before the first step: to finish what has not begun is to stop."""
        return self.should_stop() or self.requests.finishing

    def _watch(self, what: str) -> Callable[[int, int], None]:
        return lambda done, total: self.audience.on(Working(what, done, total))

    def _enter(self, stack: ExitStack, fingerprint: str, dataset: Dataset) -> tuple[RunFolder, RunState]:
        """The locked folder and its state, with the total that this recipe asks for; a new run's if there is none.

        Raises:
            BadInput: the folder holds another run, or is in use.
        """
        total = self.recipe.run.total_steps(dataset.order(self.recipe.run.batch_size).batches_per_epoch)
        self.recipe.optimizer.decay_of(total)
        folder = RunFolder(self.place(fingerprint))
        state = folder.state()
        if state is not None and self.recipe.run.existing == "new":
            folder, state = RunFolder(free_name(folder.path)), None
        stack.enter_context(folder.locked())
        state = folder.state()
        if state is None:
            return folder, RunState(fingerprint, self.recipe.decisive(self.precision), total=total)
        if self.recipe.run.existing == "error":
            raise BadInput(f"{folder.path}: holds a run already ({state.status}, step {state.step} of {state.total})")
        if state.fingerprint != fingerprint:
            different = folder.difference(state, self.recipe.decisive(self.precision))
            raise BadInput(
                f"{folder.path}: holds another run ({different}); choose another folder, or run.existing=new to start "
                "beside it"
            )
        if state.step > total:
            raise BadInput(_too_few(total, folder, state.step))
        return folder, dataclasses.replace(state, total=total)

    def _is_done(self, folder: RunFolder, state: RunState) -> bool:
        """Whether nothing is left to do: no step, and the file and the pictures are those now asked for.

        What is asked for otherwise is made from the last checkpoint; without one it would cost the whole training.
        """
        trained = state.step == state.total or self._would_end(state)
        files = state.made(folder.path).files
        whole = files and all(path.is_file() for path in files)
        if state.status != "finished" or not trained or not whole:
            return False
        written = is_as_asked(state.output, settings(self.recipe))
        looked = state.preview is not None and is_as_asked(state.preview, preview_settings(self.recipe))
        if (not written or not looked) and not checkpoints.exist(folder.checkpoints):
            self.audience.on(Warned(f"{folder.path}: has no checkpoint left to draw or write from; it stays as it is"))
            return True
        return written and looked

    def _would_end(self, state: RunState) -> bool:
        """Whether a run that finished early would do so with what is asked for now: no more steps, no more patience."""
        if self.recipe.run.existing == "continue":
            return False
        return (state.ended_by_hand or self._is_exhausted(state)) and state.total <= state.early_end

    def _is_exhausted(self, state: RunState) -> bool:
        return Record(**state.validation).is_exhausted(self.recipe.run.early_stop)

    def _already(self, folder: RunFolder, state: RunState) -> Result:
        made = state.made(folder.path)
        line = f"This run is finished (step {state.step} of {state.total}); nothing was left to do."
        early = why_early(state.ended_by_hand, Record(**state.validation)) if state.step < state.total else ""
        self.audience.on(Finished("finished", state.step, state.total, made, [line], early))
        return Result("finished", folder.path, state.step, state.total, made)

    @contextmanager
    def _memory_told(self, advice: Callable[[], memory_advice.Advice]) -> Iterator[None]:
        """A session tells it of its own steps."""
        try:
            yield
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            memory_advice.let_go(error)
            raise ScionError(advice().text) from error

    def _train(
        self, folder: RunFolder, state: RunState, model: Model, dataset: Dataset, scan: Scan, learners, start
    ) -> Result:
        encoder, prompts = model.encoder, self._prompts(dataset)
        folder.remove_partial()
        given = (self.recipe, model, dataset, self.precision, self.device, self.advice)
        with self._memory_told(lambda: memory_advice.encoding(*given)):
            encoder.to(self.device)
            if not dataset.encode(encoder, self._watch("encoding"), self._shall_end):
                return self._nothing_done(folder, state)
            entries = None
            if not dataset.tokenised:
                entries = encoder.encode_captions(prompts), encoder.encode_captions([self.recipe.preview.negative])[0]
            if not dataset.needs_encoder:
                encoder.to("cpu")
                if self.loads_base and not dataset.tokenised:
                    encoder.forget_text()
        try:
            with self._memory_told(lambda: memory_advice.placing(model, self.precision, self.device, self.advice)):
                trainer = self._trainer(model, dataset, learners, start)
            try:
                record = self._go_on(trainer, folder)
                with attention.using(model.denoiser, self.recipe.run.attention_backend):
                    return self._steps(trainer, folder, state, scan, (prompts, entries), record)
            finally:
                trainer.release()
        finally:
            if self.recipe.run.gradient_checkpointing:
                for module in learning_parts.of_a_step(model):
                    learning_parts.recomputing(module, on=False)
            if self.assistant:
                self.assistant.remove()
            learning_parts.remove(model)

    def _trainer(self, model: Model, dataset: Dataset, learners, start) -> Trainer:
        """With the adapters in their places, and what a step goes through on its device."""
        learning_parts.put(learners, self.recipe.run.seed, start)
        learning_words.put(model, self.recipe.words, self.recipe.run.seed)
        learning_decorator.put(model, self.recipe.decorator, self.recipe.run.seed, self.device)
        if self.assistant:
            self.assistant.put(model.denoiser)
            self.assistant.to(self.device, PRECISIONS[self.precision])
        for module in learning_parts.of_a_step(model):
            learning_parts.place(module, self.device, PRECISIONS[self.precision])
            if self.recipe.run.gradient_checkpointing:
                learning_parts.recomputing(module, on=True)
        return Trainer(self.recipe, model, dataset, self.device, self.precision, self.assistant)

    def _go_on(self, trainer: Trainer, folder: RunFolder) -> Record:
        """Brings the trainer to the last whole checkpoint, if there is one; what validations have shown up to there.

        Raises:
            BadInput: it is of another run, or of a later step than is asked for.
        """
        checkpoint = checkpoints.latest(folder.checkpoints, self._warn)
        if checkpoint is None:
            return Record()
        if checkpoint.step > trainer.total:  # run.json may be older: it is written after the checkpoint
            raise BadInput(_too_few(trainer.total, folder, checkpoint.step))
        trainer.restore(checkpoint)
        # Whoever was killed in deleting left half a checkpoint.
        run, record = self.recipe.run, Record(**(checkpoint.extras.get("validation") or {}))
        spare = record.best if run.keep_best else 0
        checkpoints.prune(folder.checkpoints, checkpoint.step, run.keep_checkpoints, spare)
        return record

    def _steps(
        self, trainer: Trainer, folder: RunFolder, state: RunState, scan: Scan, prompts, record: Record
    ) -> Result:
        if state.ended_by_hand and self._would_end(state):  # and died in its last look, or is to be written otherwise
            self.requests.ask(FINISH)
        else:
            state.early_end, state.ended_by_hand = 0, False
        state.status, state.step, state.failure = "unfinished", trainer.step, ""
        # Before the recipe, which goes on with the run that it finds beside it.
        folder.save_state(state)
        self._write_recipe(folder)
        name = checkpoints.path_of(folder.checkpoints, trainer.step).name
        # The history hears first: an observer may interrupt.
        history = MetricsFile(folder.metrics, trainer.step, name, self._warn)
        audience = Audience([history, *self.audience.observers])
        session = Session(
            trainer,
            folder,
            state,
            audience,
            self.should_stop,
            self.requests,
            scan.fingerprint,
            prompts,
            self.advice,
            record,
        )
        status = session.run()
        return Result(status, folder.path, trainer.step, trainer.total, session.made)

    def _warn(self, text: str) -> None:
        self.audience.on(Warned(text))

    def _start_from(self, model: Model, learners: list[Learner]) -> dict:
        """What to begin with, by part; empty if the recipe names no file."""
        file = self.recipe.adapter.start_from
        return learning_parts.read_start(file, model, learners, self._warn) if file else {}

    def _assistant(self, model: Model) -> Assistant | None:
        """The frozen LoRA that helps, if the recipe names one."""
        if not self.recipe.adapter.assistant:
            return None
        target = Target.of(**model.components)
        return assistant.read(self.recipe.adapter, model.family.component, target, self._warn)

    def _prompts(self, dataset: Dataset) -> list[str]:
        preview = self.recipe.preview
        if preview.prompts:
            return preview.prompts
        captions = dict.fromkeys(dataset.fixed_caption(item) for item in dataset.items if not dataset.is_prior(item))
        return list(captions)[: preview.count]

    def _write_recipe(self, folder: RunFolder) -> None:
        """Beside the run, so that `scion train <folder>/recipe.json` goes on with it from anywhere on this machine."""
        written = self.recipe.as_dict()
        written["run"]["existing"] = "resume"
        paths = [(part, key) for part in (written["dataset"], *written["dataset"]["folders"]) for key in PATHS]
        for part, key in (*paths, (written["adapter"], "start_from"), (written["adapter"], "assistant")):
            if part.get(key):
                part[key] = str(Path(part[key]).expanduser().resolve())
        if self.recipe.base not in BUILT_IN and Path(self.recipe.base).expanduser().exists():
            written["base"] = str(Path(self.recipe.base).expanduser().resolve())
        written["output"]["name"] = file_name(self.recipe)
        write_json(folder.recipe, written)

    def _nothing_done(self, folder: RunFolder | None = None, state: RunState | None = None) -> Result:
        """Stopped before training began, or went on."""
        step, total = (state.step, state.total) if state else (0, 0)
        made = state.made(folder.path) if folder and state else Made()
        line = "Stopped before the first step; start again to go on (what is encoded on disk stays)."
        if step:
            line = f"Stopped before going on at step {step}; start again to go on."
        self.audience.on(Finished("stopped", step, total, made, [line]))
        return Result("stopped", folder.path if folder else None, step, total, made)


def _too_few(total: int, folder: RunFolder, done: int) -> str:
    return (
        f"run.steps: {total}, but the run in {folder.path} has done {done} already; ask for at least as many, or set "
        "run.existing=new to start beside it"
    )
