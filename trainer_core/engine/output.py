"""What the LoRA file is called, how it is written, and what it says about itself."""

import dataclasses
import re
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..adapters.decorator_config import ENDING
from ..adapters.words_config import stem
from ..data.folders import IN_MEMORY
from ..lora_file.metadata import Facts, build
from ..options import as_dict
from .device import MIXED
from .output_config import RESERVED
from .parameter_groups import rate_of_decorator, rate_of_words

if TYPE_CHECKING:
    from ..families.base import Model
    from .trainer import Trainer


TAGS_MOST = 1000
"""So many tags of a folder are told: captions in sentences are all different, and a file's header is no place for them.
"""
PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v", "flow": None}
"""Our names of what a denoiser answers, and ModelSpec's, which has none for flows."""
LONGEST = 80
"""Letters of a name that is taken from the dataset's folder."""


def file_name(recipe) -> str:
    """The LoRA file's name without its ending."""
    if recipe.output.name:
        return recipe.output.name
    paths = [part.path for part in recipe.dataset.parts() if part.path and not part.regularisation]
    folder = Path(paths[0]).name if paths else ""
    name = re.sub(r"[^\w.-]+", "-", folder)[:LONGEST].strip("-. ") or "lora"
    words = [] if not recipe.has_lora else [stem(word).lower() for word in recipe.words.names]
    return f"{name}-lora" if name.lower() in (*RESERVED, *words) else name


def decorator_file(recipe) -> str:
    """The name of the decorator's file; empty where there is none."""
    return f"{file_name(recipe)}{ENDING}" if recipe.decorator.learns else ""


def dialect(recipe, model: "Model") -> str:
    """How the keys of its LoRA file are named."""
    if recipe.output.dialect != "auto":
        return recipe.output.dialect
    # LoRA's relatives have no diffusers keys; ComfyUI knows every family's that has those of kohya's form.
    usual = model.family.default_dialect
    return "kohya" if usual == "diffusers" and recipe.adapter.kind != "lora" else usual


def settings(recipe) -> dict[str, str]:
    """All that decides how the LoRA file is written, once its numbers are there."""
    return {**as_dict(recipe.output), "name": file_name(recipe), "weights": recipe.weights_of_file}


def preview_settings(recipe) -> dict[str, Any]:
    """All that decides what the pictures of the last look show, once the run's numbers are there."""
    chosen = {"weights": recipe.weights_of_previews, "checkpoint": recipe.output.checkpoint}
    return {**as_dict(recipe.preview), **chosen}


def is_as_asked(made: dict[str, Any], asked: dict[str, Any]) -> bool:
    """Whether what was made with some settings is what is asked for now.

    Args:
        made: empty, or short of newer settings, where an older Scion made it.
    """
    return not made or {"weights": "trained", "checkpoint": "last", **made} == asked


def metadata(trainer: "Trainer", dataset_fingerprint: str, alpha: float, started_at: float) -> dict[str, str]:
    """What the LoRA file of the trainer's present step says about itself: kohya's, ModelSpec's and our own entries.

    Args:
        alpha: as stored in the file.
        started_at: seconds since 1970.
    """
    recipe = trainer.recipe
    of_adapter = {
        "rank": (recipe.adapter if recipe.adapter.trains_denoiser else recipe.adapter.of_text_encoder).rank,
        "alpha": alpha,
        "decorator": decorator_file(recipe),
        **_about_kind(recipe.adapter),
    }
    return build(_facts(trainer, dataset_fingerprint, started_at, title=file_name(recipe), **of_adapter))


def metadata_of_word(trainer: "Trainer", dataset_fingerprint: str, started_at: float, word: str) -> dict[str, str]:
    """The same of the file of a new word."""
    recipe = trainer.recipe
    of_word = {"title": stem(word), "word": word, "vectors": recipe.words.vectors}
    facts = _facts(trainer, dataset_fingerprint, started_at, **of_word)
    rate = rate_of_words(recipe.optimizer, recipe.words)
    return build(dataclasses.replace(facts, trigger=word, learning_rate=rate, trains_denoiser=False))


def metadata_of_decorator(trainer: "Trainer", dataset_fingerprint: str, started_at: float) -> dict[str, str]:
    """The same of the decorator's file."""
    recipe = trainer.recipe
    of_decorator = {"title": decorator_file(recipe).removesuffix(".safetensors"), "tokens": recipe.decorator.num_tokens}
    facts = _facts(trainer, dataset_fingerprint, started_at, **of_decorator)
    rate = rate_of_decorator(recipe.optimizer, recipe.decorator)
    return build(dataclasses.replace(facts, learning_rate=rate, trains_denoiser=False))


def _facts(trainer: "Trainer", dataset_fingerprint: str, started_at: float, **of_file) -> Facts:
    recipe = trainer.recipe
    return Facts(
        description=recipe.output.description,
        author=recipe.output.author,
        license=recipe.output.license,
        **_about_base(recipe, trainer.model),
        **_about_training(recipe),
        **_about_progress(trainer),
        **_about_data(trainer),
        dataset_hash=dataset_fingerprint,
        started_at=started_at,
        finished_at=max(started_at, time.time()),
        version=__version__,
        ema_decay=recipe.run.ema_decay if recipe.weights_of_file == "ema" else None,
        recipe=_public(recipe, trainer.model),
        words=dict(zip(recipe.words.names, recipe.words.files, strict=True)),
        **of_file,
    )


def _about_kind(adapter) -> dict[str, Any]:
    """Which of kohya's trainers makes such files; LyCORIS' are told apart by `algo`."""
    arguments = {
        "dora": {"algo": "lora", "dora_wd": "True", "wd_on_output": "True"},
        "loha": {"algo": "loha"},
        "lokr": {"algo": "lokr", "factor": str(adapter.factor or -1)},
        "oft": {"algo": "diag-oft"},
    }
    if adapter.kind not in arguments:
        return {}
    return {"network_module": "lycoris.kohya", "network_args": arguments[adapter.kind]}


def _about_base(recipe, model) -> dict[str, Any]:
    side = recipe.dataset.resolution or model.resolution
    version, architecture = model.family.described(model.denoiser)
    return {
        "architecture": architecture,
        "base_model_version": version,
        "base_model_name": model.name,
        "resolution": (recipe.dataset.width or side, recipe.dataset.height or side),
        "prediction_type": PREDICTIONS[model.process.prediction_type],
    }


def _about_training(recipe) -> dict[str, Any]:
    of_text = recipe.optimizer.text_encoder_learning_rate or recipe.optimizer.learning_rate
    return {
        "learning_rate": recipe.optimizer.learning_rate,
        "text_encoder_learning_rate": of_text if recipe.adapter.trains_text else None,
        "trains_denoiser": recipe.adapter.trains_denoiser and recipe.has_lora,
        "optimizer": recipe.optimizer.chosen,
        "lr_scheduler": recipe.optimizer.schedule,
        "warmup_steps": recipe.optimizer.warmup_steps,
        "seed": recipe.run.seed,
        "batch_size": recipe.run.batch_size,
        "accumulation": recipe.run.accumulation,
        "gradient_checkpointing": recipe.run.gradient_checkpointing,
        "min_snr_gamma": recipe.objective.min_snr_gamma or None,
        "noise_offset": recipe.objective.noise_offset or None,
        "caption_dropout": recipe.dataset.caption_dropout,
        "trigger": ", ".join(dict.fromkeys(part.trigger for part in recipe.dataset.parts() if part.trigger)),
    }


def _about_progress(trainer: "Trainer") -> dict[str, Any]:
    accumulation, batches = trainer.recipe.run.accumulation, trainer.order.batches_per_epoch
    return {
        "mixed_precision": MIXED[trainer.precision],
        "steps": trainer.step,
        "max_steps": trainer.total,
        "epoch": -(-trainer.step * accumulation // batches),
        "epochs": -(-trainer.total * accumulation // batches),
    }


def _about_data(trainer: "Trainer") -> dict[str, Any]:
    dataset, order = trainer.dataset, trainer.order
    subject, tags = _folders(trainer.recipe, dataset, prior=False)
    prior, prior_tags = _folders(trainer.recipe, dataset, prior=True)
    buckets = [(tuple(bucket), pictures) for bucket, (pictures, _) in dataset.bucket_counts.items()]
    return {
        "images": order.entries_per_epoch - order.prior_per_epoch,
        "prior_images": order.prior_per_epoch,
        "folders": subject,
        "prior_folders": prior,
        "tags": {**tags, **prior_tags},
        "buckets": buckets,
    }


def _public(recipe, model) -> dict[str, Any]:
    """The recipe without paths, which would tell strangers about the user's disk."""
    said = recipe.as_dict()
    said["dataset"]["cache_path"] = ""
    for part in (said["dataset"], *said["dataset"]["folders"]):
        part |= {key: Path(part[key]).name for key in ("path", "mask_path") if part.get(key)}
    for name in ("start_from", "assistant"):
        said["adapter"][name] = Path(getattr(recipe.adapter, name)).name
    if Path(recipe.base).expanduser().exists():
        said["base"] = model.name
    return said


def _folders(recipe, dataset, prior: bool) -> tuple[dict, dict]:
    """Pictures and repeats by folder, and how often its most frequent tags stand in its captions; folders by name, not
    by path.

    Args:
        prior: of the regularisation folders; else of the others.
    """
    parts = recipe.dataset.parts()
    # Where there are several, keys begin with the folder's name.
    top = (Path(parts[0].path).name or IN_MEMORY) if len(parts) == 1 else ""
    pictures, repeats, tags = Counter(), {}, {}
    for item in dataset.items:
        if dataset.is_prior(item) != prior:
            continue
        name = "/".join(filter(None, (top, item.key.rpartition("/")[0])))
        pictures[name] += 1
        repeats[name] = item.repeats
        tags.setdefault(name, Counter()).update(filter(None, map(str.strip, item.caption.split(","))))
    frequent = {name: dict(counts.most_common(TAGS_MOST)) for name, counts in tags.items()}
    return {name: (repeats[name], pictures[name]) for name in pictures}, frequent
