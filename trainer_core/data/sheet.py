"""A contact sheet: the pictures of a dataset as training sees them, side by side."""

import math

import numpy as np
import torch
from PIL import Image, ImageDraw

from .dataset import Dataset
from .items import Item
from .masks import render_mask, with_floor
from .pictures import open_picture
from .report import folder_titles
from .views import render_view, view_for

TITLE = 16
"""Height of a folder's title, in pixels."""
DIMMED = 0.25
"""How bright is what a mask leaves out."""


def contact_sheet(dataset: Dataset, most: int = 36, side: int = 160) -> torch.Tensor:
    """The first epoch's view of each training picture, in rows on white; where there are several folders, each under a
    title that says what it counts. What a mask leaves out is dark.

    Args:
        dataset: need not be encoded.
        most: pictures shown; of more, an even selection.
        side: of each picture's place, in pixels.

    Returns:
        float32 [rows·side + titles·TITLE, columns·side, 3] in 0..1.

    Raises:
        BadInput: a picture changed since it was scanned.
    """
    count = min(most, len(dataset.items))
    shown = [dataset.items[n * len(dataset.items) // count] for n in range(count)]
    columns = math.ceil(math.sqrt(count))
    titles = folder_titles(dataset)
    if len(titles) < 2:
        return _rows(dataset, shown, columns, side)
    parts = []
    for number, title in enumerate(titles):
        own = [item for item in shown if item.folder == number]
        parts += [_title(title, columns * side), _rows(dataset, own, columns, side)]
    return torch.cat(parts)


def _rows(dataset: Dataset, items: list[Item], columns: int, side: int) -> torch.Tensor:
    sheet = torch.ones(math.ceil(len(items) / columns) * side, columns * side, 3)
    for n, item in enumerate(items):
        pixels = _fitted(_seen(dataset, item), side - 4)
        height, width, _ = pixels.shape
        top, left = n // columns * side + (side - height) // 2, n % columns * side + (side - width) // 2
        sheet[top : top + height, left : left + width] = pixels
    return sheet


def _seen(dataset: Dataset, item: Item) -> torch.Tensor:
    """Pixels [H, W, 3] of an item's first view, dark where they do not count."""
    config = dataset.config_of(item)
    view = view_for(item, dataset.bucket_of(item), config, dataset.seed, epoch=0, repeat=0)
    pixels, mask = render_view(open_picture(item), view), render_mask(item, view)
    if mask is None:
        return pixels
    return pixels * (DIMMED + (1 - DIMMED) * with_floor(mask, config.mask_floor))[..., None]


def _title(text: str, width: int) -> torch.Tensor:
    """Black text on a white strip, float32 [TITLE, width, 3]."""
    strip = Image.new("RGB", (width, TITLE), "white")
    # Pillow's own font has no letters beyond Latin-1.
    ImageDraw.Draw(strip).text((2, 2), text.encode("latin-1", "replace").decode("latin-1"), fill="black")
    return torch.from_numpy(np.array(strip)).float() / 255


def _fitted(pixels: torch.Tensor, side: int) -> torch.Tensor:
    """Pixels [H, W, 3] scaled so that the longer side is `side`."""
    height, width, _ = pixels.shape
    size = [max(1, round(length * side / max(height, width))) for length in (height, width)]
    scaled = torch.nn.functional.interpolate(pixels.permute(2, 0, 1)[None], size, mode="bilinear", antialias=True)
    return scaled[0].permute(1, 2, 0).clamp(0, 1)
