"""Views: how a picture is cut, mirrored and coloured before it is encoded."""

import dataclasses
import functools
import hashlib
import json
import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from .. import randomness
from .buckets import Bucket
from .config import DatasetConfig
from .items import Item

RENDERING = 1
"""Counts up whenever `render_view` makes other pixels of the same view: latents of the old ones are then not used."""

_LUMA = torch.tensor([0.299, 0.587, 0.114])
# Rows: luma and the two axes of colour, as in NTSC's YIQ; turning in the plane of the two changes hue alone.
_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


@dataclass(frozen=True, kw_only=True)
class View:
    """What is done to a picture, in this order: resize, cut, mirror, change colours. Lengths in pixels."""

    width: int
    height: int
    resized_width: int
    resized_height: int
    left: int
    top: int
    """Corner of the cut within the resized picture."""
    original_width: int
    original_height: int
    flip: bool = False
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0
    """In turns."""

    @property
    def crop_top_left(self) -> tuple[int, int]:
        """(top, left) as SDXL is told it: in the picture as it is seen, that is, after mirroring."""
        return self.top, self.resized_width - self.left - self.width if self.flip else self.left

    @property
    def original_size(self) -> tuple[int, int]:
        """(height, width) of the picture's file, as SDXL is told it."""
        return self.original_height, self.original_width

    @property
    def target_size(self) -> tuple[int, int]:
        """(height, width) of the view, as SDXL is told it."""
        return self.height, self.width

    @property
    def time_ids(self) -> torch.Tensor:
        """All three, as `time_ids` makes them."""
        return time_ids(self.original_size, self.crop_top_left, self.target_size)

    @property
    def scale(self) -> float:
        """Above 1 where the picture is enlarged."""
        return max(self.width / self.original_width, self.height / self.original_height)

    @property
    def kept(self) -> float:
        """Which share of the picture is in the view, 0..1."""
        return self.width * self.height / (self.resized_width * self.resized_height)

    @functools.cached_property
    def digest(self) -> str:
        """Hash over all that decides the pixels."""
        return hashlib.sha256(json.dumps([RENDERING, vars(self)], sort_keys=True).encode()).hexdigest()


def time_ids(original: tuple[int, int], crop_top_left: tuple[int, int], target: tuple[int, int]) -> torch.Tensor:
    """What a denoiser is told of a picture's size and crop (Podell et al. 2023, section 2.2): int64 [6].

    Whole numbers, because half precision would round them.

    Args:
        original: (height, width) of the picture's file, in pixels.
        crop_top_left: (top, left) of the cut within the resized picture.
        target: (height, width) of the cut.
    """
    with torch.inference_mode(False):
        return torch.tensor([*original, *crop_top_left, *target], dtype=torch.int64)


def plain_view(item: Item, bucket: Bucket) -> View:
    """The middle of a picture, nothing random: what validation uses."""
    return _plain(item.width, item.height, bucket)


@functools.lru_cache(4096)
def _plain(width: int, height: int, bucket: Bucket) -> View:
    # The side that is short relative to the bucket fills it exactly; the other sticks out and is cut.
    if width * bucket.height > height * bucket.width:
        resized = round(width * bucket.height / height), bucket.height
    else:
        resized = bucket.width, round(height * bucket.width / width)
    return View(
        width=bucket.width,
        height=bucket.height,
        resized_width=resized[0],
        resized_height=resized[1],
        left=(resized[0] - bucket.width) // 2,
        top=(resized[1] - bucket.height) // 2,
        original_width=width,
        original_height=height,
    )


def is_random(config: DatasetConfig) -> bool:
    """Whether views differ by more than being mirrored."""
    return config.crop == "random" or config.colour_jitter > 0


def views_for(item: Item, bucket: Bucket, config: DatasetConfig, seed: int) -> list[View] | None:
    """All views that training may show of an item; None where each showing draws a fresh one.

    One view if nothing is random; if only mirroring is, the plain and the mirrored one; otherwise `config.variants`
    views, each drawn by its number.
    """
    if not is_random(config):
        plain = plain_view(item, bucket)
        return [plain, dataclasses.replace(plain, flip=True)] if config.flip else [plain]
    if config.variants == 0:
        return None
    return [_drawn(item, bucket, config, (seed, "view", "variant", n, item.key)) for n in range(config.variants)]


def view_for(item: Item, bucket: Bucket, config: DatasetConfig, seed: int, epoch: int, repeat: int) -> View:
    """The view of one showing.

    Prepared variants come in turn, so that each is seen equally often, from a start of the item's own; mirroring alone
    is drawn for each showing.
    """
    if is_random(config) and config.variants:
        # Of a regularisation picture `repeat` counts over all epochs: it is not in every one of them.
        before = repeat if config.regularisation else epoch * item.repeats + repeat
        turn = randomness.key(seed, "first variant", item.key) + before
        return _drawn(item, bucket, config, (seed, "view", "variant", turn % config.variants, item.key))
    return _drawn(item, bucket, config, (seed, "view", epoch, item.key, repeat))


def _drawn(item: Item, bucket: Bucket, config: DatasetConfig, parts: tuple) -> View:
    view, dice = plain_view(item, bucket), randomness.dice(*parts)
    changes: dict = {}
    # Every number is drawn whether it is used or not: switching one setting leaves what the others draw as it was.
    left, top, flip, *jitter = (dice.random() for _ in range(7))
    if config.crop == "random":
        changes["left"] = math.floor(left * (view.resized_width - view.width + 1))
        changes["top"] = math.floor(top * (view.resized_height - view.height + 1))
    if config.flip:
        changes["flip"] = flip < 0.5
    if config.colour_jitter:
        strength = config.colour_jitter
        names = ("brightness", "contrast", "saturation")
        changes |= {name: 1 + strength * (x - 0.5) for name, x in zip(names, jitter, strict=False)}
        changes["hue"] = strength * 0.2 * (jitter[3] - 0.5)
    return dataclasses.replace(view, **changes)


def render_view(picture: Image.Image, view: View) -> torch.Tensor:
    """The pixels of a view: float32 [H, W, 3] in 0..1.

    Args:
        picture: upright RGB, of the view's original size.
    """
    return _coloured(cut_out(picture, view, Image.Resampling.LANCZOS), view)


def cut_out(picture: Image.Image, view: View, resampling: Image.Resampling) -> torch.Tensor:
    """What a view shows of a picture, resized, cut and mirrored: float32 [H, W, 3], or [H, W] of a grey one, in 0..1.

    Args:
        picture: of the view's original shape, and any size.
    """
    # Only the part that is kept is resized: a picture of 10000×10 pixels would not fit into memory otherwise.
    across, up = picture.width / view.resized_width, picture.height / view.resized_height
    box = (
        view.left * across,
        view.top * up,
        min((view.left + view.width) * across, picture.width),
        min((view.top + view.height) * up, picture.height),
    )
    cut = picture.resize((view.width, view.height), resampling, box=box)
    pixels = torch.from_numpy(np.array(cut)).float() / 255
    return pixels.flip(1) if view.flip else pixels


def _coloured(pixels: torch.Tensor, view: View) -> torch.Tensor:
    """Brightness scales; contrast and saturation lead away from the mean grey and from each pixel's own grey; hue turns
    the plane of colour."""
    if view.brightness != 1:
        pixels = (pixels * view.brightness).clamp(0, 1)
    if view.contrast != 1:
        mean = (pixels * _LUMA).sum(-1).mean()
        pixels = (mean + (pixels - mean) * view.contrast).clamp(0, 1)
    if view.saturation != 1:
        grey = (pixels * _LUMA).sum(-1, keepdim=True)
        pixels = (grey + (pixels - grey) * view.saturation).clamp(0, 1)
    if view.hue:
        sine, cosine = math.sin(2 * math.pi * view.hue), math.cos(2 * math.pi * view.hue)
        turn = torch.tensor([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
        pixels = (pixels @ (torch.linalg.inv(_YIQ) @ turn @ _YIQ).T).clamp(0, 1)
    return pixels.contiguous()
