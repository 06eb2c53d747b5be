"""What travels along the graph's edges: descriptions and finished tensors, never a live trainer or loaded weights."""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from ..trainer_core.data.config import DatasetConfig
    from ..trainer_core.data.scan import Scan
    from ..trainer_core.lora_file.lora import Target
    from ..trainer_core.lora_file.words import Word


@dataclass(frozen=True)
class TrainingModel:
    """TRAINING_MODEL: where a base is, for the engine to load when it is needed. No weights: the host's cache would
    keep them in memory that its manager cannot see."""

    base: str
    """As the recipe has it: a built-in name, a path, or a hub id that is in the local cache."""


@dataclass(frozen=True)
class TrainingDataset:
    """TRAINING_DATASET: a finished scan of each folder, and the settings that they were made with."""

    config: "DatasetConfig"
    scans: "tuple[Scan, ...]" = field(repr=False)
    """As `config.parts()` has the folders."""

    @property
    def scan(self) -> "Scan":
        """Of all folders together."""
        from ..trainer_core.data.folders import join

        return join(self.config, self.scans)


def chained(more: TrainingDataset, last: TrainingDataset) -> TrainingDataset:
    """Both as one dataset: the folders of each keep their own settings, what is of the whole dataset is the last's."""
    from ..trainer_core.data.folders import explicit

    config = dataclasses.replace(last.config, path="", folders=[*explicit(more.config), *explicit(last.config)])
    return TrainingDataset(config, (*more.scans, *last.scans))


@dataclass(frozen=True)
class TrainingConfig:
    """TRAINING_CONFIG: settings by dotted name."""

    values: Mapping[str, Any]


class LoraModel(dict):
    """LORA_MODEL: the tensors of a LoRA file by key, as the host's own type is, and what is known of them beside."""

    def __init__(
        self,
        tensors: Mapping[str, "torch.Tensor"],
        metadata: Mapping[str, str] | None = None,
        name: str = "",
        target: "Target | None" = None,
        words: "Iterable[Word]" = (),
    ):
        super().__init__(tensors)
        self.metadata = dict(metadata or {})
        """The file's metadata."""
        self.name = name
        self.target = target
        """The shapes of the model it was trained on, by which its keys can be named anew."""
        self.words = tuple(words)
        """New words that were trained with it."""

    def __repr__(self) -> str:
        # The host prints a node's inputs when it fails.
        words = f", {len(self.words)} new words" if self.words else ""
        return f"LoraModel({self.name!r}, {len(self)} tensors{words})"


def has_lora(lora: Mapping[str, "torch.Tensor"]) -> bool:
    """Whether there is a LoRA in it; in ours there is none where new words or a decorator have learned alone."""
    return bool(lora) or not isinstance(lora, LoraModel)


def digest_of(tensors: Mapping[str, "torch.Tensor"]) -> str:
    """SHA-256, in hexadecimal, over names, shapes and bytes: the same for the same LoRA, whoever holds it."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
