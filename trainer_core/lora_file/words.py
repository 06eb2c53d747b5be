"""Files of new words (textual inversions): one word a file, as ComfyUI, A1111, sd-scripts and diffusers read them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import BadInput, ScionError
from . import decorator
from .hashes import hash_metadata
from .safe_io import read_tensors, write_tensors

KEYS = {"te": "emb_params", "te1": "clip_l", "te2": "clip_g"}
"""What files call the vectors for each text encoder: alone (sd-scripts' name), or one of two (ComfyUI's)."""
PARTS = ({"te"}, {"te1"}, {"te1", "te2"})
"""The text encoders that a file may hold vectors for."""
WORD = "scion.word"
"""The metadata entry with the word itself, which a file's name may not hold."""
OF_LORA = "scion.words"
"""The metadata entry of a LoRA with the words that it was trained with."""
LIMIT = 2**26
"""Bytes; no word is as long."""


@dataclass(frozen=True)
class Word:
    """What a file holds."""

    name: str
    """As prompts write it."""
    vectors: dict[str, torch.Tensor]
    """float32 [n, width], by text encoder, as `KEYS` has them."""
    metadata: dict[str, str]

    @property
    def count(self) -> int:
        """Tokens that the word takes in a prompt."""
        return len(next(iter(self.vectors.values())))


def to_tensors(vectors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A word's vectors by text encoder under the keys of its file."""
    return {KEYS[part]: rows.float().contiguous() for part, rows in vectors.items()}


def save_word(path: str | Path, name: str, vectors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Write a word's file, in float32: it is a few kilobytes.

    Args:
        path: the file, replaced as a whole if it exists.
        vectors: as `Word` has them.
        metadata: text to text; gets the word, and the hashes of its tensors.

    Raises:
        ScionError: numbers are not finite, or the disk refuses; under `path` nothing has changed then.
    """
    tensors = to_tensors(vectors)
    if not all(torch.isfinite(rows).all() for rows in tensors.values()):
        raise ScionError(f"{path}: not saved: the vectors of {name} hold NaN or infinite numbers")
    said = {**metadata, WORD: name}
    write_tensors(path, tensors, {**said, **hash_metadata(tensors, said)})


def read_word(path: str | Path) -> Word:
    """A word from a file, ours or anybody's; where the file does not say it, its name is the file's.

    Raises:
        BadInput: the file cannot be read, or holds no embedding.
    """
    tensors, metadata = read_tensors(path, LIMIT)
    word = word_in(tensors, metadata, Path(path).stem)
    if word is None:
        raise BadInput(
            f"{path}: is no embedding: it holds {', '.join(list(tensors)[:3]) or 'nothing'}, and a file of a new word "
            f"holds {KEYS['te']}, or {KEYS['te1']} and {KEYS['te2']}"
        )
    return word


def word_in(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str], stem: str) -> Word | None:
    """What tensors are as a word; None if they are none.

    Args:
        stem: the word where nothing else tells it.
    """
    parts = {key: part for part, key in KEYS.items()}
    name = metadata.get(WORD, stem)
    key, rows = next(iter(tensors.items()), ("", None))
    if len(tensors) == 1 and key not in (*parts, decorator.KEY) and "." not in key:
        # diffusers' own files: the word is the key. Weights have a dot in theirs, or are a decorator's.
        tensors, name = {KEYS["te"]: rows}, metadata.get(WORD, key)
    if {parts.get(key) for key in tensors} not in PARTS:
        return None
    vectors = {parts[key]: rows.float().reshape(-1, rows.shape[-1]) for key, rows in tensors.items() if rows.dim()}
    counts = {len(rows) for rows in vectors.values()}
    if len(vectors) != len(tensors) or len(counts) != 1 or 0 in counts:
        return None
    return Word(name, dict(sorted(vectors.items())), dict(metadata))
