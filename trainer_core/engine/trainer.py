"""The loop: batches in, one optimiser step after another, checkpoints, previews and validation on the way."""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from accelerate import Accelerator

from .. import randomness
from ..adapters.assistant import Assistant
from ..data.batch import Batch
from ..data.dataset import Dataset
from ..data.order import BatchOrder
from ..data.prefetch import prefetch
from ..errors import BadInput
from ..families.base import Conditioning, Model
from . import learning_parts, objective, optimizer_habits, optimizer_state, parameter_groups
from .checkpoints import Checkpoint, first_difference
from .device import MIXED, PRECISIONS
from .ema import Ema
from .events import Steps
from .failures import Diverged
from .learning_rate import LearningRate
from .meter import Meter
from .optimizers import build_optimizer
from .step_modules import StepModules

PATIENCE = 5
"""So many steps in a row whose gradients are not finite end the run."""
PATIENCE_SCALED = 25
"""The same with fp16, where a scale of 65,536 must first be halved up to sixteen times."""
READ_EVERY = 10
"""On a GPU losses are read from the device every so many steps, because reading waits for it."""


@dataclass(frozen=True)
class Micro:
    """One batch on its way through the model."""

    index: int
    """Counted from 0 over the run and over all processes."""
    batch: Batch
    epoch: int


class Trainer:
    """Trains the adapters in a model's parts; knows steps and tensors, nothing of folders or of who watches.

    Args:
        recipe: a valid one.
        model: with the adapters in place, and what has one already on `device`.
        dataset: encoded; it hands captions out as tokens where text encoders learn.
        precision: "fp32", "fp16" or "bf16".
        assistant: a frozen LoRA in the model that helps to train; pictures are drawn without it.
    """

    def __init__(
        self,
        recipe,
        model: Model,
        dataset: Dataset,
        device: torch.device,
        precision: str,
        assistant: Assistant | None = None,
    ):
        self.recipe, self.model, self.dataset, self.device, self.assistant = recipe, model, dataset, device, assistant
        self.precision, self.compute_dtype = precision, PRECISIONS[precision]
        self.accelerator = Accelerator(
            mixed_precision=MIXED[precision],
            gradient_accumulation_steps=recipe.run.accumulation,
            cpu=device.type == "cpu",
        )
        self.parameters = learning_parts.parameters(model)
        self.order: BatchOrder = dataset.order(recipe.run.batch_size)
        self.world, self.rank = self.accelerator.num_processes, self.accelerator.process_index
        self.total = recipe.run.total_steps(self.order.batches_per_epoch, self.world)
        optimizer = build_optimizer(recipe.optimizer, parameter_groups.of_run(recipe, model))
        if optimizer_habits.averages(optimizer):
            optimizer.train()
        self._marks, self._averages = optimizer_habits.marks_non_finite(optimizer), optimizer_habits.averages(optimizer)
        self._told_rate = parameter_groups.told_rate(recipe)
        self.rate = LearningRate(recipe.optimizer, optimizer, self.total, self._told_rate[1])
        self.modules = StepModules(model, self.accelerator, device, self.compute_dtype)
        self.optimizer = self.modules.prepare(optimizer)
        self._place = next(iter(self.parameters.values())).device
        self._ema = Ema(self.parameters, recipe.run.ema_decay) if recipe.run.ema_decay else None
        self.batch: Batch | None = None
        """The last that was begun."""
        self.step = 0
        """Optimiser steps done."""
        self.consistent = True
        """False only while weights are being changed."""
        self._unread: list[torch.Tensor] = []
        """Losses of the last steps, which nobody was told yet."""
        self.tell_steps: Callable[[], None] = lambda: None
        """Reports the steps whose losses were not read yet, where on a GPU that would come later: before a checkpoint,
        so that the history has all steps up to it."""
        self._skipped = torch.zeros(2, device=device)
        """Steps skipped for gradients that are not finite: in all, and in a row up to now."""

    # ---- state

    def checkpoint(self) -> Checkpoint:
        packed, tensors = optimizer_state.pack(self.optimizer.optimizer, self.parameters)
        extras = {"skipped": int(self._skipped[0])}
        if self.accelerator.scaler is not None:
            extras["scaler"] = self.accelerator.scaler.state_dict()
        parameters, averages = {name: parameter.detach() for name, parameter in self.parameters.items()}, {}
        if self._ema:
            averages, extras["ema_updates"] = self._ema.state()
        return Checkpoint(self.step, parameters, packed, tensors, extras, averages=averages)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Goes on from a checkpoint of the same recipe.

        Raises:
            BadInput: its tensors are not the ones that train here.
        """
        shapes = {name: tuple(tensor.shape) for name, tensor in checkpoint.parameters.items()}
        own = {name: tuple(parameter.shape) for name, parameter in self.parameters.items()}
        if shapes != own:
            different = first_difference(shapes, own)
            raise BadInput(
                f"{checkpoint.path}: holds other tensors than this recipe trains ({different}), so it is of another "
                "run; delete it to go on from the one before it, or set run.existing=new to start beside this run"
            )
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(checkpoint.parameters[name])
        optimizer_state.unpack(
            self.optimizer.optimizer, self.parameters, checkpoint.optimizer, checkpoint.optimizer_tensors
        )
        if self.accelerator.scaler is not None and checkpoint.extras.get("scaler"):
            self.accelerator.scaler.load_state_dict(checkpoint.extras["scaler"])
        if self._ema:
            self._ema.restore(checkpoint.averages, checkpoint.extras.get("ema_updates", 0))
        self._skipped[0], self._skipped[1] = checkpoint.extras.get("skipped", 0), 0
        self.step = checkpoint.step

    @contextmanager
    def back_at(self, checkpoint: Checkpoint) -> Iterator[None]:
        """The trainer as it was at a checkpoint, and then again as it is."""
        now = copy.deepcopy(self.checkpoint())
        self.restore(checkpoint)
        try:
            yield
        finally:
            self.restore(now)

    # ---- training

    def train(self, report: Callable[[Steps], None], between: Callable[[], bool]) -> None:
        """Steps until the total is reached.

        Args:
            report: hears of finished steps.
            between: asked after each step (and before the first); True ends the training.

        Raises:
            Diverged: gradients were not finite several times in a row, or the weights are not finite.
        """
        meter = Meter(self.device, self.total)
        rate, epoch, told = 0.0, 0, self.step

        def tell() -> None:
            nonlocal told
            losses, self._unread = self._unread, []
            if losses:
                told += len(losses)
                report(meter.steps(told, torch.stack(losses).tolist(), rate, epoch))

        self.tell_steps = tell
        self.modules.train()
        with closing(self._micros()) as micros:
            while not between() and self.step < self.total:
                meter.begin()
                rate = self.rate.set(self.step)
                epoch, loss = self._step(micros)
                self._unread.append(loss)
                meter.end()
                last = self.step == self.total
                if len(self._unread) >= self.reads_every or last:
                    tell()
                    self._check_finite()
        tell()
        self._check_finite(ending=True)

    @property
    def reads_every(self) -> int:
        """Steps between two readings of their losses."""
        return 1 if self.device.type == "cpu" else READ_EVERY

    def _micros(self) -> Iterator[Micro]:
        """This process's batches from the current step on, prepared ahead in threads where a GPU trains.

        On a CPU those threads would take from the step more than they give: at batch 1 they made Stable Diffusion 1.5's
        step a tenth longer, though all they did was to look up cached latents.
        """

        def load(index: int) -> Micro:
            plan = self.order.batch(index)
            with torch.no_grad():
                batch = self.dataset.load(plan)
                return Micro(index, batch.pinned() if self.device.type == "cuda" else batch, plan.epoch)

        first = self.step * self.recipe.run.accumulation
        own = (i * self.world + self.rank for i in range(first, self.total * self.recipe.run.accumulation))
        return prefetch(load, own, 0 if self.device.type == "cpu" else self.dataset.config.workers)

    def _step(self, micros: Iterator[Micro]) -> tuple[int, torch.Tensor]:
        """One optimiser step; the epoch of its last batch, and the mean loss of its items (on the device)."""
        accumulation = self.recipe.run.accumulation
        self._learn_or_not()
        first = self.step * accumulation * self.world
        items = sum(len(self.order.batch(first + i).entries) for i in range(accumulation * self.world))
        total = torch.zeros((), device=self.device)
        for _ in range(accumulation):
            micro = next(micros)
            with self.accelerator.accumulate(*self.modules.all):
                summed = self._losses(micro).sum()
                # Each item of the step counts alike, however short its batch: accelerate divides by the accumulation,
                # and the mean over processes by their number, so both are undone here.
                self.accelerator.backward(summed * (accumulation * self.world / items))
                total += summed.detach() * (self.world / items)
                if self.accelerator.sync_gradients:
                    self._update()
        if self.world > 1:
            total = self.accelerator.reduce(total, "mean")
        return micro.epoch, total

    def _losses(self, micro: Micro) -> torch.Tensor:
        recipe, batch = self.recipe, micro.batch
        self.batch = batch
        seed = recipe.run.seed
        names = [(micro.index, key, position) for position, key in enumerate(batch.keys)]
        drawn = self._drawn(batch.latents, "training", names)
        latents = batch.latents.to(self.device, non_blocking=True)
        masks = self._placed(batch.masks)
        dropout = recipe.adapter.dropout > 0
        with randomness.reseeded(self.device, seed, "dropout", micro.index) if dropout else nullcontext():
            told, drawn = self.conditioning(batch), drawn.to(self.device)
            losses = objective.losses(recipe.objective, self.model, self.modules.denoiser, latents, told, drawn, masks)
        return losses if batch.weights is None else losses * self._placed(batch.weights)

    def _drawn(self, latents: torch.Tensor, purpose: str, names: list) -> objective.Draw:
        asked, seed, process = self.recipe.objective, self.recipe.run.seed, self.model.process
        return objective.draw(asked, latents, process.steps, seed, purpose, names, process.usual_timesteps)

    def _placed(self, tensor: torch.Tensor | None) -> torch.Tensor | None:
        return None if tensor is None else tensor.to(self.device, non_blocking=True)

    def conditioning(self, batch: Batch) -> Conditioning:
        """A batch's, as the denoiser takes it."""
        return self.modules.conditioning(batch.conditioning, batch.taught)

    def _learn_or_not(self) -> None:
        """The text encoders learn up to their last step, which the number of steps done tells, resumed or not."""
        stop = self.recipe.adapter.text_encoder_stop_step
        self.modules.set_text_learns(not stop or self.step < stop)

    def _update(self) -> None:
        parameters = list(self.parameters.values())
        limit = self.recipe.optimizer.max_grad_norm or float("inf")
        norm = self.accelerator.clip_grad_norm_(parameters, limit)
        self.consistent = False
        bad = (~torch.isfinite(norm)).float()
        if self.accelerator.scaler is None and self._marks:
            # The fused optimiser skips its step on the device where this is 1, so that nothing waits for the answer.
            # With fp16 the gradient scaler sees to it.
            self.optimizer.optimizer.found_inf = bad
        self._skipped[0] += bad
        self._skipped[1] = (self._skipped[1] + bad) * bad
        if self._marks:
            self.optimizer.step()
        # The others are asked nothing of the kind. On a GPU reading the answer waits for the backward pass: the host
        # then sends the next step's work only after it, which costs the more the smaller the model is.
        elif self.accelerator.scaler is not None or not bool(bad):
            with optimizer_habits.stepping(self.recipe.optimizer.kind, self._place, self.recipe.run.seed, self.step):
                self.optimizer.step()
        if self._ema:
            self._ema.update(bad)
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.consistent = True

    def _check_finite(self, ending: bool = False) -> None:
        patience = PATIENCE if self.accelerator.scaler is None else PATIENCE_SCALED
        in_a_row = int(self._skipped[1])
        setting, rate = self._told_rate
        # Weights that are not finite spoil every gradient after them, so that there is no need to look at each step.
        if (in_a_row or ending) and not self._weights_finite():
            broken = Diverged(
                f"step {self.step - in_a_row}: the optimiser made weights that are not finite out of finite gradients, "
                f"so the run ends at the step before. Lower {setting} ({rate:g})"
            )
            broken.finite_step = self.step - in_a_row - 1
            raise broken
        if in_a_row >= patience:
            raise Diverged(
                f"step {self.step}: the gradients were not finite {in_a_row} times in a row, so those "
                f"steps were skipped and the run ends at the last finite weights. Lower {setting} ({rate:g})"
                f"{self._safer_precision()}"
            )

    def _weights_finite(self) -> bool:
        norms = torch._foreach_norm([parameter.detach() for parameter in self.parameters.values()], float("inf"))
        return bool(torch.isfinite(torch.stack(norms)).all())

    def _safer_precision(self) -> str:
        safer = {torch.float16: "bf16", torch.bfloat16: "fp32"}.get(self.compute_dtype)
        return f", or set run.precision to {safer}" if safer else ""

    @property
    def skipped(self) -> int:
        """Steps skipped so far because their gradients were not finite."""
        return int(self._skipped[0])

    def free_gradients(self) -> None:
        """Gives back what a step that failed still holds."""
        # Not through accelerate, which does nothing between the batches of one step.
        self.optimizer.optimizer.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def release(self) -> None:
        """Gives the modules back as they were before they were prepared, and no longer training."""
        self.modules.release()
        self.optimizer.zero_grad(set_to_none=True)

    # ---- looking without touching

    @contextmanager
    def at_rest(self, weights: str = "trained") -> Iterator[None]:
        """For previews and validation: the weights to use, no gradients, no dropout, the training's precision, random
        state put back.

        Args:
            weights: as for `to_use`.
        """
        with (
            self.modules.at_rest(),
            torch.no_grad(),
            self.to_use(weights),
            self.accelerator.autocast(),
            torch.random.fork_rng(devices=[]),
        ):
            yield

    def unassisted(self) -> AbstractContextManager[None]:
        """As what trains will be used: without the assistant, inside the block."""
        return self.assistant.off() if self.assistant else nullcontext()

    @contextmanager
    def to_use(self, weights: str = "trained") -> Iterator[None]:
        """The weights as they are to be used: of the trained ones those that a schedule-free optimiser has averaged.

        Args:
            weights: "trained" or "ema".
        """
        if weights == "ema":
            with self._ema.in_use():
                yield
            return
        optimizer = self.optimizer.optimizer
        if not self._averages or not optimizer.state:  # before the first step there is nothing to average
            yield
            return
        kept = [parameter.detach().clone() for parameter in self.parameters.values()]
        optimizer.eval()
        try:
            yield
        finally:
            # The way back computes what it once knew, and is off by a rounding: the copies are not.
            optimizer.train()
            with torch.no_grad():
                for parameter, before in zip(self.parameters.values(), kept, strict=True):
                    parameter.copy_(before)

    def validate(self, weights: str = "trained") -> float:
        """Mean loss over the held-out pictures, under their masks; noise and timesteps are the same at every call.

        Args:
            weights: as for `to_use`.
        """
        total, count = torch.zeros((), device=self.device), 0
        repeats = 4
        with self.at_rest(weights):
            for batch in self.dataset.holdout_batches(self.recipe.run.batch_size):
                for repeat in range(repeats):
                    names = [(key, repeat) for key in batch.keys]
                    drawn = self._drawn(batch.latents, "validation", names)
                    told = self.conditioning(batch)
                    latents = batch.latents.to(self.device)
                    drawn = drawn.to(self.device)
                    masks = self._placed(batch.masks)
                    total += objective.losses(
                        self.recipe.objective, self.model, self.model.denoiser, latents, told, drawn, masks
                    ).sum()
                    count += len(batch.keys)
        return float(total) / count
