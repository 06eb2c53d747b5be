"""What a person is told when memory has run out: the one or two settings that help most, and what each saves here."""

import dataclasses
import importlib.util
import logging
import traceback
from dataclasses import dataclass, field

import torch
from torch import nn

from ..data.buckets import Bucket
from ..data.dataset import Dataset
from ..families.base import Model
from ..idle_settings import RULES
from . import attention
from .advice import CommandLine
from .device import PRECISIONS
from .memory_estimate import BYTES_OF_ADAMW, TrainerMemory, encoding_memory, size_of
from .trainer import Trainer

NEAR = 0.8
"""A setting that saves this share of the most that any saves, and hurts less, is named before it."""
WORTH_NAMING = 0.05
"""A second setting must save this share of everything."""
QUARTER_LESS = 3 / 4
BYTES_OF_8BIT = 2 + 8 / 256
"""Of state for each number that trains: AdamW's two means in 8 bits, with two scales for a block of 256 (Dettmers et
al. 2022)."""
SMALLEST_8BIT = 4096
"""bitsandbytes keeps the state of tensors with fewer numbers than this in fp32."""

OTHERWISE = "Free memory that other programs hold, or train a smaller base"
BESIDE = {"preview": "out of memory; draw fewer preview.prompts, or set a smaller preview.width and preview.height"}
"""What is said of work beside the training, which goes on without it."""


@dataclass(frozen=True)
class Remedy:
    """A change of settings that takes less memory."""

    settings: dict[str, str]
    """New values by dotted name."""
    now: str
    """The present value of the first of them."""
    cost: str
    same_run: bool = False
    """Whether the run that is there goes on with it."""
    rehearsed: dict = field(default_factory=dict)
    """What it changes in a rehearsal: arguments of `TrainerMemory.step`."""
    saves: int | None = None
    """Bytes; None = not estimated."""

    def sentence(self, door: CommandLine) -> str:
        """What to set, what that saves, what it costs, and which run it makes."""
        changes = " with ".join(f"{name}={value}" for name, value in self.settings.items())
        saving = "" if self.saves is None else f"saves about {amount(self.saves)}, "
        run = "the same run goes on" if self.same_run else door.another_run
        return f"et {changes} (now {self.now}): {saving}{self.cost}, and {run}"


@dataclass(frozen=True)
class Advice:
    text: str
    changes: dict[str, str] = field(default_factory=dict)
    """Settings by dotted name with which the run that is there goes on."""


def let_go(error: BaseException | None) -> None:
    """Empties the frames that failed: they still hold what they had made."""
    while error:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


def training(trainer: Trainer, door: CommandLine) -> Advice:
    """After a step found no memory. All that the step held must have been let go of."""
    remedies, total = _step_remedies(trainer), None
    try:
        memory = TrainerMemory(trainer)
        total = memory.step().total
        remedies = [dataclasses.replace(r, saves=total - memory.step(**r.rehearsed).total) for r in remedies]
    except Exception:
        # Kernels and modules that cannot be rehearsed: what helps is still known, though not how much.
        logging.getLogger(__name__).debug("the step's memory cannot be estimated", exc_info=True)
    return _told("this step takes", total, remedies, door)


def encoding(recipe, model: Model, dataset: Dataset, precision: str, device: torch.device, door: CommandLine) -> Advice:
    """After a picture or a caption could not be encoded for lack of memory."""
    remedies, total = _encoding_remedies(recipe, model, precision, device), None
    vae = getattr(model.encoder, "vae", None)
    if isinstance(vae, nn.Module):  # a host's is no module, and finds a way of its own where memory is short
        try:
            bucket = max(dataset.bucket_counts, key=lambda bucket: bucket.width * bucket.height)
            held = sum(map(_weight, model.encoder.modules))
            base = _weight(model.denoiser) if device.type == "cpu" else 0

            def takes(scale: float = 1.0, base: int = base, spared: int = 0) -> int:
                smaller = _scaled(bucket, scale, model.side_step)
                return base + held - spared + encoding_memory(vae, *smaller)

            total = takes()
            remedies = [dataclasses.replace(r, saves=total - takes(**r.rehearsed)) for r in remedies]
        except Exception:
            # As for a step: the advice holds without its figures.
            logging.getLogger(__name__).debug("the encoding's memory cannot be estimated", exc_info=True)
    return _told("encoding a picture takes", total, remedies, door)


def placing(model: Model | None, precision: str, device: torch.device, door: CommandLine) -> Advice:
    """After the base's weights, or the adapter's beside them, found no room; without a model, while it was loaded."""
    if model is None:
        return _told("", None, _halved(precision, device), door)
    weights = sum(p.numel() for p in model.denoiser.parameters()) * PRECISIONS[precision].itemsize
    remedies = [dataclasses.replace(remedy, saves=weights // 2) for remedy in _halved(precision, device)]
    return _told("the weights alone take", weights, remedies, door)


def amount(size: float) -> str:
    """Bytes for a person, to two digits."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(size) >= 0.995 * unit:
            value = float(f"{size / unit:.2g}")
            return f"{value:.1f} {name}" if value < 10 else f"{value:.0f} {name}"
    return "nothing" if size < 1 else "less than 1 kB"


# ---- which settings


def _step_remedies(trainer: Trainer) -> list[Remedy]:
    """All that would make a step smaller, the least painful first."""
    recipe, model, found = trainer.recipe, trainer.model, []
    run, count = recipe.run, len(trainer.batch.keys) if trainer.batch else recipe.run.batch_size
    if run.attention_backend not in (attention.AUTO, "native"):
        cost = "the result is the same but for rounding"
        change = {"run.attention_backend": attention.AUTO}
        found.append(Remedy(change, run.attention_backend, cost, same_run=True, rehearsed={"backend": attention.AUTO}))
    if not run.gradient_checkpointing and getattr(model.denoiser, "_supports_gradient_checkpointing", False):
        cost = "a step takes about a third longer"
        found.append(
            Remedy(
                {"run.gradient_checkpointing": "true"}, "false", cost, same_run=True, rehearsed={"checkpointing": True}
            )
        )
    if run.batch_size > 1:
        half = run.batch_size // 2
        again = -(-run.batch_size * run.accumulation // half)
        settings = {"run.batch_size": str(half), "run.accumulation": str(again)}
        rehearsed = {"batch_size": min(half, count), "accumulates": True}
        found.append(Remedy(settings, str(run.batch_size), "the training is almost the same", rehearsed=rehearsed))
    found += _halved(trainer.precision, trainer.device)
    if recipe.adapter.text_encoder == "on" and not recipe.words.learn:
        cost = "the text encoder stays as it is"
        found.append(Remedy(_without_text(recipe), "on", cost, rehearsed={"text": False}))
    if recipe.optimizer.chosen == "adamw" and importlib.util.find_spec("bitsandbytes"):
        cost = "the optimiser's state is less exact"
        found.append(
            Remedy({"optimizer.name": "adamw8bit"}, "adamw", cost, rehearsed={"state": _state_8bit(trainer.parameters)})
        )
    return [*found, _smaller(recipe, model)]


def _without_text(recipe) -> dict[str, str]:
    """No text encoder learns; settings that would be refused beside that return to their usual values."""
    setting = "adapter.text_encoder"
    parts = {name: part for name, part in recipe.as_dict().items() if isinstance(part, dict)}
    off = {f"{name}.{key}": value for name, part in parts.items() for key, value in part.items()} | {setting: "off"}
    changes = {setting: "off"}
    for rule in RULES:
        if setting in rule.when and rule.idle and rule.holds(off) and off[rule.setting] not in rule.idle:
            usual = rule.idle[0]
            changes[rule.setting] = "none" if usual is None else str(usual[0] if isinstance(usual, list) else usual)
    return changes


def _encoding_remedies(recipe, model: Model, precision: str, device: torch.device) -> list[Remedy]:
    found = [_smaller(recipe, model)]
    if device.type == "cpu":  # elsewhere the base comes to the device after the encoding
        half = _weight(model.denoiser) // 2
        found = [dataclasses.replace(r, rehearsed={"base": half}) for r in _halved(precision, device)] + found
    return _lighter_text(recipe, model) + found


def _lighter_text(recipe, model: Model) -> list[Remedy]:
    """Eight-bit weights for text encoders that weigh more than the denoiser, as T5 does."""
    now = recipe.run.text_encoder_precision
    texts = [module for module in getattr(model.encoder, "modules", []) if module is not model.encoder.vae]
    weights = sum(map(_weight, texts))
    spared = weights - sum(parameter.numel() for module in texts for parameter in module.parameters())
    if now == "int8" or recipe.encodes_live or spared <= 0 or weights <= _weight(model.denoiser):
        return []
    cost = "captions are encoded less exactly (needs torchao)"
    return [Remedy({"run.text_encoder_precision": "int8"}, now, cost, rehearsed={"spared": spared})]


def _halved(precision: str, device: torch.device) -> list[Remedy]:
    if precision != "fp32":
        return []
    old = device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)
    better = "fp16" if old else "bf16"
    rehearsed = {"dtype": PRECISIONS[better]}
    return [Remedy({"run.precision": better}, precision, "the base computes less exactly", rehearsed=rehearsed)]


def _smaller(recipe, model: Model) -> Remedy:
    """A quarter less of each side."""
    data, step = recipe.dataset, model.side_step
    cost = "fine detail is lost"
    if data.width:
        width, height = _scaled(Bucket(data.width, data.height), QUARTER_LESS, data.bucket_step or step)
        settings, now, scale = (
            {"dataset.width": str(width), "dataset.height": str(height)}, f"{data.width}×{data.height}",
            (width * height / (data.width * data.height)) ** 0.5,
        )  # fmt: skip
    else:
        side = data.resolution or model.resolution
        smaller, _ = _scaled(Bucket(side, side), QUARTER_LESS, data.bucket_step or step)
        settings, now, scale = {"dataset.resolution": str(smaller)}, str(side), smaller / side
    return Remedy(settings, now, cost, rehearsed={"scale": scale})


def _scaled(bucket: Bucket, scale: float, step: int) -> Bucket:
    return Bucket(*(max(step, round(side * scale / step) * step) for side in bucket))


def _state_8bit(parameters: dict[str, nn.Parameter]) -> int:
    counts = [parameter.numel() for parameter in parameters.values()]
    return int(sum(n * (BYTES_OF_8BIT if n >= SMALLEST_8BIT else BYTES_OF_ADAMW) for n in counts))


def _weight(module: nn.Module) -> int:
    return sum(map(size_of, module.parameters()))


# ---- in words


def _told(what: str, total: int | None, remedies: list[Remedy], door: CommandLine) -> Advice:
    chosen = _best(remedies, total)
    size = "" if total is None else f": {what} about {amount(total)}"
    if not chosen:
        return Advice(f"out of memory{size}, and no setting makes it less. {OTHERWISE}")
    sentences = ". Or s".join(remedy.sentence(door) for remedy in chosen)
    goes_on = next((remedy.settings for remedy in chosen if remedy.same_run), {})
    return Advice(f"out of memory{size}. S{sentences}", goes_on)


def _best(remedies: list[Remedy], total: int | None) -> list[Remedy]:
    """The one or two that save most; of those that save nearly alike, the least painful. Without estimates, the two
    least painful."""
    if any(remedy.saves is None for remedy in remedies):
        return [dataclasses.replace(remedy, saves=None) for remedy in remedies[:2]]
    left, chosen = [remedy for remedy in remedies if remedy.saves > 0], []
    while left and len(chosen) < 2:
        most = max(remedy.saves for remedy in left)
        if chosen and most < WORTH_NAMING * total:
            break
        chosen.append(next(remedy for remedy in left if remedy.saves >= NEAR * most))
        left.remove(chosen[-1])
    return chosen
