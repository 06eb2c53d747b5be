"""The files that a run makes of the trainer's present step: the LoRA's, one for each new word, the decorator's."""

from pathlib import Path

import torch

from ..lora_file import decorator, peft_folder
from ..lora_file.lora import ReaderReport
from ..lora_file.save import save_lora
from ..lora_file.words import save_word
from . import learning_decorator, learning_parts, learning_words
from .output import decorator_file, dialect, file_name, metadata, metadata_of_decorator, metadata_of_word
from .output_config import DTYPES
from .trainer import Trainer


def lora_file(recipe) -> str:
    """The name of the LoRA's file; empty where there is no LoRA."""
    return f"{file_name(recipe)}.safetensors" if recipe.has_lora else ""


def export(
    trainer: Trainer, folder: Path, dataset_fingerprint: str, started_at: float, peft: bool = False
) -> list[ReaderReport]:
    """Writes them into a folder, the LoRA last: where it is, the others are, too.

    Args:
        started_at: seconds since 1970.
        peft: whether to make the folder that peft reads, too, where diffusers cannot read the LoRA's file.

    Returns:
        What each reader loads of the LoRA; empty where there is none.

    Raises:
        ScionError: as for `save_lora`, `save_word` and `save_decorator`.
    """
    recipe, model = trainer.recipe, trainer.model
    with trainer.to_use(recipe.weights_of_file):
        parts, words = learning_parts.extract(model), learning_words.extract(model)
        vectors = learning_decorator.extract(model)
    for name, file in zip(recipe.words.names, recipe.words.files, strict=True):
        said = metadata_of_word(trainer, dataset_fingerprint, started_at, name)
        save_word(folder / file, name, words[name], said)
    if vectors is not None:
        said = metadata_of_decorator(trainer, dataset_fingerprint, started_at)
        decorator.save_decorator(folder / decorator_file(recipe), vectors, said)
    if not parts:
        return []
    alpha = next(iter(next(iter(parts.values())).values())).alpha
    said = metadata(trainer, dataset_fingerprint, alpha, started_at)
    target = learning_parts.target_of(model, recipe.adapter)
    path, dtype = folder / lora_file(recipe), DTYPES[recipe.output.dtype]
    reports = save_lora(path, parts, dialect(recipe, model), dtype, said, target)
    if peft and peft_folder.is_needed(target):
        beside = path.with_name(f"{path.stem}-peft")
        reports += peft_folder.write(beside, parts, getattr(torch, dtype), said, target, model.name)
    return reports
