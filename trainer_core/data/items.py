"""An item: one picture with its caption, as scanning found it."""

from dataclasses import dataclass, field

import numpy as np
from PIL import Image

Picture = str | Image.Image | np.ndarray
"""Where pixels come from: a file's path (as text, which takes a fifth of a Path's memory), a PIL picture, or uint8
[H, W], [H, W, 1], [H, W, 3] or [H, W, 4]."""


@dataclass(frozen=True, slots=True)
class Item:
    key: str
    """Path within the dataset, with forward slashes; unique, and part of every random draw for this item."""
    picture: Picture = field(repr=False, compare=False)
    caption: str
    width: int
    height: int
    """Size in pixels, after the camera's orientation."""
    repeats: int
    """How often an epoch shows the picture, at least once."""
    digest: str
    """SHA-256 of the file's bytes (of the pixels, for a picture in memory)."""
    folder: int = 0
    """Which of the dataset's folders it is in, as `DatasetConfig.parts` counts them."""
    mask: str | None = field(default=None, repr=False, compare=False)
    """The file of its mask; None where it has none, or its own alpha channel is the mask."""
    mask_digest: str = ""
    """SHA-256 of the mask's file, or "alpha"; empty where the whole picture counts."""

    @property
    def size(self) -> str:
        return f"{self.width}×{self.height}"


def shown(name: object) -> str:
    """A file's name for a message: as it is, or escaped where it could disturb a terminal or a log."""
    text = str(name)
    return text if text.isprintable() else ascii(text)


def several(names: list[str]) -> str:
    """Names for a message: all of a few, the first of many."""
    return ", ".join(names) if len(names) <= 12 else f"{len(names)} files ({', '.join(names[:8])}, …)"
