"""Masks: which parts of a picture count in the loss, from its alpha channel or a folder of grey pictures."""

import os
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

from ..errors import BadInput
from .config import DatasetConfig
from .items import Item, Picture, several, shown
from .layout import Listing
from .pictures import alpha_of, grey_of
from .views import View, cut_out
from .walk import File, walk

ALPHA = "alpha"
MASKING = 1
"""Counts up whenever other numbers are made of the same mask and view: those in the cache are then not used."""


def assign(listing: Listing, root: Path, config: DatasetConfig) -> None:
    """Gives each picture of a folder the file of its mask, where masks lie in a folder; problems go to the listing.

    A mask has its picture's name, with any picture's ending, in the same subfolder. A folder of masks that lies in the
    dataset's is no part of the dataset.
    """
    if config.mask != "folder":
        return
    try:
        folder = Path(config.mask_path).expanduser().resolve()
        if not folder.is_dir():
            raise ValueError("there is no such folder")
    except (OSError, ValueError, RuntimeError) as error:
        listing.problems.append(f"mask_path: {shown(config.mask_path)}: {error}.")
        return
    if folder == root:
        listing.problems.append(f"mask_path: {shown(config.mask_path)} is the pictures' own folder; give another.")
        return
    masks: dict[str, list[File]] = defaultdict(list)
    for _, files in walk(str(folder), str(folder), listing.problems):
        for file in files:
            if file.is_picture:
                masks[os.path.splitext(file.key)[0]].append(file)
    inside = str(folder) + os.sep
    listing.found = [found for found in listing.found if not found.picture.path.startswith(inside)]
    for found in listing.found:
        stem, ending = os.path.splitext(found.key)
        named = masks.get(stem, [])
        same = [file for file in named if file.key.endswith(ending)]
        if len(named) > 1 and not same:
            names = " and ".join(shown(file.key) for file in named)
            listing.problems.append(f"{shown(found.key)}: has more than one mask ({names}); keep one.")
        found.mask = next((file.path for file in (*same, *named)), None)


class Mask(NamedTuple):
    """What a mask's file, or a picture's alpha channel, turned out to be."""

    digest: str
    """SHA-256 of the file, or "alpha"; empty where no mask is asked for."""
    name: str = ""
    """For messages."""
    width: int = 0
    height: int = 0

    def misfit(self, width: int, height: int) -> str | None:
        """What to say if the picture, of this size in pixels, has another shape; None if it has the same.

        The same aspect within a pixel: a mask may be a scaled one, and lengths are whole numbers.
        """
        if not self.digest or abs(self.width * height - self.height * width) <= max(width, height):
            return None
        return (
            f"{self.name} has {self.width}×{self.height} pixels, the picture {width}×{height}, which is another shape; "
            "make it of the same."
        )


NO_MASK = Mask("")


def read(picture: Picture, mask: str | None, config: DatasetConfig) -> Mask | None:
    """A picture's mask; None where it is missing.

    Args:
        picture, mask: as `Item` has them.

    Raises:
        ValueError: the mask cannot be used; in words for a person, to be put behind the picture's name.
    """
    if config.mask == "off":
        return NO_MASK
    if config.mask == ALPHA:
        grey, digest, name = alpha_of(picture), ALPHA, "its alpha channel"
    elif mask is not None:
        name = f"its mask {shown(os.path.basename(mask))}"
        try:
            grey, digest = grey_of(mask)
        except ValueError as error:
            raise ValueError(f"{name} {error}") from None
    else:
        grey = None
    if grey is None:
        return None
    if not grey.getbbox():
        raise ValueError(
            f"{name} is all {'transparent' if digest == ALPHA else 'black'}, so that nothing of the picture would "
            "count; correct it, or leave the picture out."
        )
    return Mask(digest, name, *grey.size)


def missing(names: list[str], config: DatasetConfig) -> list[str]:
    """The problem with pictures that have no mask; none where that of their folder is told already."""
    if not names or (config.mask == "folder" and not os.path.isdir(os.path.expanduser(config.mask_path))):
        return []
    lacks = "no alpha channel" if config.mask == ALPHA else "no picture of the same name in mask_path"
    count = "1 picture has" if len(names) == 1 else f"{len(names)} pictures have"
    return [
        f"{count} {lacks}: {several(names)}; add what is missing, or set missing_masks to 'whole' to let the whole "
        "picture count."
    ]


def render_mask(item: Item, view: View) -> torch.Tensor | None:
    """Which parts of a view count: float32 [H, W] in 0..1, resized, cut and mirrored as its pixels are; None where all
    do.

    Raises:
        BadInput: the mask can no longer be read, or was changed since it was scanned.
    """
    if not item.mask_digest:
        return None
    try:
        grey = alpha_of(item.picture) if item.mask is None else grey_of(item.mask, item.mask_digest)[0]
    except ValueError as error:
        what = "" if item.mask is None else f"its mask {shown(os.path.basename(item.mask))} "
        raise BadInput(f"{shown(item.key)}: {what}{error}") from None
    # Not as the pixels are: Lanczos would leave weight in rings around what is masked.
    return cut_out(grey, view, Image.Resampling.BILINEAR)


def at_latents(mask: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
    """The mean of a mask [H, W] over the area of each latent pixel: float32 [h, w], for latents [C, h, w]."""
    return torch.nn.functional.adaptive_avg_pool2d(mask[None], latents.shape[-2:])[0]


def with_floor(mask: torch.Tensor, floor: float) -> torch.Tensor:
    """The weights of a mask's parts, where what it leaves out counts `floor`, 0..1."""
    return mask if not floor else floor + (1 - floor) * mask
