"""A contact sheet: the pictures of a dataset as training sees them, side by side."""

import math

import torch

from .dataset import Dataset
from .pictures import open_picture
from .views import render_view, view_for


def contact_sheet(dataset: Dataset, most: int = 36, side: int = 160) -> torch.Tensor:
    """The first epoch's view of each training picture, in rows on white.

    Args:
        dataset: need not be encoded.
        most: pictures shown; of more, an even selection.
        side: of each picture's place, in pixels.

    Returns:
        float32 [rows·side, columns·side, 3] in 0..1.

    Raises:
        BadInput: a picture changed since it was scanned.
    """
    count = min(most, len(dataset.items))
    shown = [dataset.items[n * len(dataset.items) // count] for n in range(count)]
    columns = math.ceil(math.sqrt(count))
    sheet = torch.ones(math.ceil(count / columns) * side, columns * side, 3)
    for n, item in enumerate(shown):
        view = view_for(item, dataset.bucket_of(item), dataset.config, dataset.seed, epoch=0, repeat=0)
        pixels = _fitted(render_view(open_picture(item), view), side - 4)
        height, width, _ = pixels.shape
        top, left = n // columns * side + (side - height) // 2, n % columns * side + (side - width) // 2
        sheet[top : top + height, left : left + width] = pixels
    return sheet


def _fitted(pixels: torch.Tensor, side: int) -> torch.Tensor:
    """Pixels [H, W, 3] scaled so that the longer side is `side`."""
    height, width, _ = pixels.shape
    size = [max(1, round(length * side / max(height, width))) for length in (height, width)]
    scaled = torch.nn.functional.interpolate(pixels.permute(2, 0, 1)[None], size, mode="bilinear", antialias=True)
    return scaled[0].permute(1, 2, 0).clamp(0, 1)
