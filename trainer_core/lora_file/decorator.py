"""Files of decorator tokens: one tensor, as ai-toolkit writes and reads it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..adapters.decorator_config import ENDING
from ..errors import BadInput, ScionError
from .hashes import hash_metadata
from .safe_io import read_tensors, write_tensors

KEY = "weight"
OF_LORA = "scion.decorator"
"""The metadata entry of a LoRA with the file of the decorator that it was trained with."""
LIMIT = 2**26
"""Bytes; no decorator is as large."""


@dataclass(frozen=True)
class DecoratorTokens:
    """What a file holds."""

    weight: torch.Tensor = field(repr=False)
    """float32 [n, width]: vectors that follow a prompt's text states."""
    name: str = ""
    """The file's name without its ending."""
    metadata: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def width(self) -> int:
        return self.weight.shape[1]

    def check_width(self, width: int, of: str) -> None:
        """
        Args:
            width: of the text states that it is to follow.
            of: whose they are, for the message.

        Raises:
            BadInput: it is of another width.
        """
        if self.width != width:
            raise BadInput(
                f"the decorator {self.name or 'that is wired'} is of another model: its vectors are {self.width} wide, "
                f"the text states of {of} are {width}"
            )


def to_tensors(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """A decorator's vectors under the key of its file."""
    return {KEY: weight.float().contiguous()}


def save_decorator(path: str | Path, weight: torch.Tensor, metadata: Mapping[str, str]) -> None:
    """Write a decorator's file, in float32: it is a few kilobytes.

    Args:
        path: the file, replaced as a whole if it exists.
        weight: [n, width].
        metadata: text to text; gets the hashes of the tensor.

    Raises:
        ScionError: numbers are not finite, or the disk refuses; under `path` nothing has changed then.
    """
    tensors = to_tensors(weight)
    if not torch.isfinite(tensors[KEY]).all():
        raise ScionError(f"{path}: not saved: the vectors of the decorator hold NaN or infinite numbers")
    write_tensors(path, tensors, {**metadata, **hash_metadata(tensors, metadata)})


def read_decorator(path: str | Path) -> DecoratorTokens:
    """A decorator from a file, ours or ai-toolkit's.

    Raises:
        BadInput: the file cannot be read, or holds none.
    """
    tensors, metadata = read_tensors(path, LIMIT)
    if not is_decorator({key: tuple(tensor.shape) for key, tensor in tensors.items()}):
        raise BadInput(
            f"{path}: is no decorator: it holds {', '.join(list(tensors)[:3]) or 'nothing'}, and a file of a decorator "
            f"holds one tensor, {KEY}, with a row for each vector"
        )
    weight = tensors[KEY].float()
    if not torch.isfinite(weight).all():
        raise BadInput(f"{path}: its vectors hold NaN or infinite numbers; use the file of another step")
    return DecoratorTokens(weight, name_of(path), metadata)


def name_of(path: str | Path) -> str:
    """A decorator's name: its file's, without the ending."""
    name = Path(path).name
    return name.removesuffix(ENDING) if name.endswith(ENDING) else Path(path).stem


def is_decorator(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether tensors of these shapes, by key, are a decorator."""
    return list(shapes) == [KEY] and len(shapes[KEY]) == 2 and 0 not in shapes[KEY]
