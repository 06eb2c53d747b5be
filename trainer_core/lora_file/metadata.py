"""What a LoRA file says about itself: kohya's ss_ entries, the ModelSpec standard (1.0.1), and Scion's own recipe."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any


@dataclass(kw_only=True)
class Facts:
    """All that is written about a training; the engine fills it in, `build` turns it into metadata."""

    title: str
    """Also `ss_output_name`: the file's name without its ending."""
    architecture: str
    """The base model's ModelSpec id, such as "stable-diffusion-v1" or "stable-diffusion-xl-v1-base"."""
    base_model_version: str
    """kohya's name of the base model's kind: "sd_v1", "sdxl_base_v1-0", "sd3", "flux1"."""
    implementation: str = "diffusers"
    """Whose names the tensors carry, in ModelSpec's words."""
    base_model_name: str = ""
    base_model_hash: str = ""
    """SHA-256 of the base model's file, where it is one file."""
    resolution: tuple[int, int]
    """Width and height in pixels that the buckets are made for."""
    prediction_type: str | None = "epsilon"
    """"epsilon" or "v"; None where the family has no such choice."""
    network_module: str = "networks.lora"
    rank: int | None = None
    """None where the file holds no adapter."""
    alpha: float | None = None
    """As stored in the file, see `alpha.effective_alpha`."""
    word: str = ""
    """The new word whose vectors the file holds, instead of a LoRA."""
    vectors: int | None = None
    """How many the word has."""
    tokens: int | None = None
    """The number of decorator tokens that the file holds, instead of a LoRA."""
    words: dict[str, str] = field(default_factory=dict)
    """New words that were trained with it, and the names of their files."""
    decorator: str = ""
    """The file of the decorator that was trained with it."""
    network_args: dict[str, str] = field(default_factory=dict)
    learning_rate: float
    text_encoder_learning_rate: float | None = None
    """None where no text encoder learns."""
    trains_denoiser: bool = True
    optimizer: str
    lr_scheduler: str
    warmup_steps: int = 0
    mixed_precision: str = "no"
    """"no", "fp16" or "bf16"."""
    seed: int
    steps: int
    """Optimiser steps done."""
    max_steps: int
    epoch: int
    """Passes over the data begun."""
    epochs: int
    batch_size: int
    """Pictures per micro-step and device."""
    accumulation: int = 1
    gradient_checkpointing: bool = False
    clip_skip: int | None = None
    min_snr_gamma: float | None = None
    noise_offset: float | None = None
    caption_dropout: float = 0.0
    ema_decay: float | None = None
    """Of the moving average, where the file holds that instead of the trained weights."""
    images: int
    """Pictures times repeats: what one epoch shows, without regularisation pictures."""
    prior_images: int = 0
    """Showings of regularisation pictures in an epoch."""
    folders: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Dataset folder's name -> (repeats, number of pictures). Names only: paths would tell about the user's disk."""
    prior_folders: dict[str, tuple[int, int]] = field(default_factory=dict)
    """The same of regularisation folders."""
    tags: dict[str, dict[str, int]] = field(default_factory=dict)
    """Dataset folder's name -> tag of the captions -> in how many captions."""
    buckets: list[tuple[tuple[int, int], int]] = field(default_factory=list)
    """((width, height), number of pictures) for each bucket; empty where there are none."""
    dataset_hash: str = ""
    trigger: str = ""
    description: str = ""
    author: str = ""
    license: str = ""
    started_at: float = 0.0
    """Seconds since 1970, UTC."""
    finished_at: float = 0.0
    session: str = ""
    version: str = ""
    """Scion's."""
    recipe: dict[str, Any] = field(default_factory=dict)


def build(facts: Facts) -> dict[str, str]:
    """The metadata of a file, text to text, without the hashes (those belong to the tensors: see `hashes`)."""
    entries = {**_kohya(facts), **_modelspec(facts), **_scion(facts)}
    return {key: _text(value) for key, value in entries.items() if value not in (None, "")}


def _kind(facts: Facts) -> str:
    """Of the file, in ModelSpec's words; it has none for a decorator."""
    return "textual-inversion" if facts.word else "decorator" if facts.tokens else "lora"


def _text(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    return value if isinstance(value, str) else str(value)


def _kohya(facts: Facts) -> dict[str, Any]:
    network = {
        "ss_v2": facts.base_model_version.startswith("sd_v2"),
        "ss_base_model_version": facts.base_model_version,
        "ss_sd_model_name": facts.base_model_name,
        "ss_new_sd_model_hash": facts.base_model_hash,
        "ss_network_module": facts.network_module if _kind(facts) == "lora" else None,
        "ss_network_dim": facts.rank,
        "ss_network_alpha": facts.alpha,
        "ss_network_args": facts.network_args or None,
        "ss_num_vectors_per_token": facts.vectors,
        "ss_clip_skip": facts.clip_skip,
    }
    training = {
        "ss_output_name": facts.title,
        "ss_session_id": facts.session,
        "ss_training_started_at": facts.started_at or None,
        "ss_training_finished_at": facts.finished_at or None,
        "ss_learning_rate": facts.learning_rate,
        "ss_unet_lr": facts.learning_rate if facts.trains_denoiser else None,
        "ss_text_encoder_lr": facts.text_encoder_learning_rate,
        "ss_optimizer": facts.optimizer,
        "ss_lr_scheduler": facts.lr_scheduler,
        "ss_lr_warmup_steps": facts.warmup_steps,
        "ss_mixed_precision": facts.mixed_precision,
        "ss_gradient_checkpointing": facts.gradient_checkpointing,
        "ss_gradient_accumulation_steps": facts.accumulation,
        "ss_seed": facts.seed,
        "ss_steps": facts.steps,
        "ss_max_train_steps": facts.max_steps,
        "ss_epoch": facts.epoch,
        "ss_num_epochs": facts.epochs,
        "ss_min_snr_gamma": facts.min_snr_gamma,
        "ss_noise_offset": facts.noise_offset,
    }
    return {**network, **_kohya_dataset(facts), **training}


def _kohya_dataset(facts: Facts) -> dict[str, Any]:
    per_epoch = -(-(facts.images + facts.prior_images) // (facts.batch_size * facts.accumulation))
    return {
        "ss_num_train_images": facts.images,
        "ss_num_reg_images": facts.prior_images,
        "ss_num_batches_per_epoch": per_epoch,
        "ss_batch_size_per_device": facts.batch_size,
        "ss_total_batch_size": facts.batch_size * facts.accumulation,
        "ss_resolution": str(tuple(facts.resolution)),
        "ss_enable_bucket": bool(facts.buckets),
        "ss_bucket_info": _bucket_info(facts),
        "ss_dataset_dirs": _directories(facts.folders),
        "ss_reg_dataset_dirs": _directories(facts.prior_folders) or None,
        "ss_tag_frequency": facts.tags,
        "ss_caption_dropout_rate": facts.caption_dropout,
    }


def _directories(folders: dict[str, tuple[int, int]]) -> dict[str, Any]:
    return {name: {"n_repeats": repeats, "img_count": count} for name, (repeats, count) in folders.items()}


def _bucket_info(facts: Facts) -> dict[str, Any] | None:
    if not facts.buckets:
        return None
    buckets = {
        str(number): {"resolution": list(size), "count": count} for number, (size, count) in enumerate(facts.buckets)
    }
    return {"buckets": buckets}


def _modelspec(facts: Facts) -> dict[str, Any]:
    when = facts.finished_at or facts.started_at
    return {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{facts.architecture}/{_kind(facts)}",
        "modelspec.implementation": facts.implementation,
        "modelspec.title": facts.title,
        "modelspec.description": facts.description,
        "modelspec.author": facts.author,
        "modelspec.license": facts.license,
        "modelspec.date": datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if when else None,
        "modelspec.resolution": f"{facts.resolution[0]}x{facts.resolution[1]}",
        "modelspec.prediction_type": facts.prediction_type,
        "modelspec.trigger_phrase": facts.trigger,
        "modelspec.usage_hint": f"Trigger: {facts.trigger}" if facts.trigger else None,
    }


def _scion(facts: Facts) -> dict[str, Any]:
    return {
        "scion.version": facts.version,
        "scion.words": facts.words or None,
        "scion.decorator": facts.decorator,
        "scion.decorator_tokens": facts.tokens,
        "scion.ema_decay": facts.ema_decay,
        "scion.recipe": facts.recipe or None,
        "scion.dataset_hash": facts.dataset_hash,
    }


def parsed(text: str) -> Any:
    """A metadata entry that is JSON; None where it is not."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def family_told(metadata: Mapping[str, str]) -> str | None:
    """The model family, as `foreign.guess_family` names it, that a file says it is of.

    For kinds whose shapes do not tell it, such as OFT, and for Kolors, whose shapes are Stable Diffusion XL's.
    """
    if metadata.get("ss_sd_model_name") == "scion-tiny":
        return "scion-tiny"
    families = {
        "sd_v1": "Stable Diffusion 1.x",
        "sdxl_base_v1-0": "Stable Diffusion XL",
        "kolors": "Kolors",
        "sd3m": "Stable Diffusion 3",
        "sd3.5m": "Stable Diffusion 3.5 Medium",
        "sd3.5l": "Stable Diffusion 3.5 Large",
        "hunyuan_dit": "HunyuanDiT",
        "flux1": "Flux",
    }
    return families.get(metadata.get("ss_base_model_version", ""))


def top_tags(metadata: Mapping[str, str], most: int = 20) -> list[tuple[str, int]]:
    """The most frequent tags of the training captions over all folders; empty where the file tells none."""
    counts: dict[str, int] = {}
    folders = parsed(metadata.get("ss_tag_frequency", "{}"))
    for tags in folders.values() if isinstance(folders, dict) else ():
        for tag, count in tags.items() if isinstance(tags, dict) else ():
            if isinstance(count, int):
                counts[tag.strip()] = counts.get(tag.strip(), 0) + count
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most]
