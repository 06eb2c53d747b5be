"""Buckets: the picture sizes that a dataset is trained at, and which of them a picture belongs to."""

import math
from typing import NamedTuple

from ..errors import BadInput
from .config import DatasetConfig

RATIOS = ((1, 1), (5, 4), (4, 3), (3, 2), (16, 9), (2, 1), (5, 2), (3, 1))
"""Aspect ratios of buckets, lying and standing: those of cameras, screens and panoramas."""

AREA_TOLERANCE = 1.25
"""By what factor a bucket's area may differ from resolution²: sides are whole steps, so the area cannot be exact."""


class Bucket(NamedTuple):
    """A size in pixels."""

    width: int
    height: int

    def __str__(self):
        return f"{self.width}×{self.height}"


def buckets_for(config: DatasetConfig, side_step: int, resolution: int) -> list[Bucket]:
    """The buckets of a dataset: the fixed size, one square, or a ladder of aspect ratios of about the same area.

    (diffusers' `generate_aspect_ratio_buckets` is not in every version that we support, and at small resolutions it
    gives buckets of nearly twice the asked area: 128×128 for 96 in steps of 64.)

    Args:
        side_step: sides must be multiples of this, in pixels; the base says so.
        resolution: the base's own side, in pixels, used where the configuration gives none.

    Raises:
        BadInput: a size that is no multiple of the step, or a resolution that no multiple comes near.
    """
    step = config.bucket_step or side_step
    if step % side_step:
        raise BadInput(
            f"bucket_step: {step} is no multiple of {side_step} pixels, which this base needs; use {side_step}."
        )
    if config.width:
        wrong = [
            f"{name}: {side} is no multiple of {step} pixels; use {_near(side, step)}."
            for name, side in (("width", config.width), ("height", config.height))
            if side % step
        ]
        if wrong:
            raise BadInput(*wrong)
        return [Bucket(config.width, config.height)]
    side = config.resolution or resolution
    ratios = RATIOS if config.buckets else RATIOS[:1]
    sizes = [_size(w / h, side, step) for ratio in ratios for w, h in (ratio, ratio[::-1])]
    near = [
        size for size in dict.fromkeys(sizes) if _off(size.width * size.height, side * side) <= math.log(AREA_TOLERANCE)
    ]
    if sizes[0] not in near:
        raise BadInput(f"resolution: {side} is too far from every multiple of {step} pixels; use {_near(side, step)}.")
    return near


def nearest_bucket(width: int, height: int, buckets: list[Bucket]) -> Bucket:
    """The bucket that keeps most of a picture: that of the nearest aspect ratio, then the first.

    (diffusers' `find_nearest_bucket` compares height·w − width·h, which prefers the small among unequal areas.)
    """
    return min(buckets, key=lambda bucket: round(_off(bucket.width / bucket.height, width / height), 9))


def _off(a: float, b: float) -> float:
    """By what factor two numbers differ, as a logarithm, 0 if they are equal."""
    return abs(math.log(a / b))


def _size(ratio: float, side: int, step: int) -> Bucket:
    """The size in whole steps that is nearest to an aspect ratio and to the area side²."""
    width, height = side * math.sqrt(ratio), side / math.sqrt(ratio)
    options = [
        Bucket(max(step, across * step), max(step, up * step))
        for across in (math.floor(width / step), math.ceil(width / step))
        for up in (math.floor(height / step), math.ceil(height / step))
    ]
    return min(options, key=lambda b: _off(b.width * b.height, side * side) + 2 * _off(b.width / b.height, ratio))


def _near(side: int, step: int) -> str:
    below, above = side // step * step, -(-side // step) * step
    return " or ".join(str(near) for near in dict.fromkeys((below, above)) if near)
