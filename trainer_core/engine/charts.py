"""Pictures about a run: the loss curve, and grids of samples with their captions."""

import io
import json
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from ..files import write_bytes

INK, FAINT, PAPER, GRID = (33, 37, 41), (134, 142, 150), (255, 255, 255), (233, 236, 239)
RAW, SMOOTH, HELD_OUT = (173, 206, 186), (25, 113, 68), (208, 85, 24)
TILE = 192
"""Sides of the samples in a grid are at least this, in pixels."""
MARGIN, GAP = 16, 8
IN_A_ROW = 8
BOXES = "scion:pictures"
"""Key of a strip's note on where its pictures lie: [[left, top, width, height], …] in pixels."""


def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def save_png(path: Path, picture: Image.Image, notes: dict[str, str] | None = None) -> None:
    """
    Args:
        notes: text that goes into the file beside the picture.
    """
    said = PngInfo()
    for key, text in (notes or {}).items():
        said.add_text(key, text)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", pnginfo=said)
    write_bytes(path, buffer.getvalue())


def to_image(pixels: torch.Tensor) -> Image.Image:
    """float [H, W, 3] in 0..1 to an RGB picture."""
    return Image.fromarray((pixels.float().clamp(0, 1) * 255).round().to(torch.uint8).numpy())


def save_strip(path: Path, pictures: torch.Tensor, captions: list[str]) -> None:
    """One row of pictures [N, H, W, 3] in 0..1, at most eight in a row, each with its caption below.

    The file says where each picture lies in it, for `side_by_side`.
    """
    starts = range(0, len(pictures), IN_A_ROW)
    rows = [grid([list(pictures[i : i + IN_A_ROW])], [""], captions[i : i + IN_A_ROW]) for i in starts]
    (width, height), top, boxes = _tile(pictures), 0, []
    for start, row in zip(starts, rows, strict=True):
        for column in range(len(pictures[start : start + IN_A_ROW])):
            boxes.append([MARGIN + column * (width + GAP), top + MARGIN, width, height])
        top += row.height
    save_png(path, stacked(rows), {BOXES: json.dumps(boxes)})


def side_by_side(path: Path) -> Image.Image | None:
    """The pictures of a strip that `save_strip` wrote, in one row without captions and margins.

    Returns:
        None where the file does not say where they lie, as that of an older version.
    """
    try:
        with Image.open(path) as strip:
            boxes = [(x, y, x + width, y + height) for x, y, width, height in json.loads(strip.info[BOXES])]
            if not _lie_in(boxes, strip.size):
                return None
            tiles = [strip.crop(box) for box in boxes]
    except (OSError, KeyError, ValueError, TypeError):
        return None
    row = Image.new("RGB", (sum(tile.width for tile in tiles), max(tile.height for tile in tiles)))
    for number, tile in enumerate(tiles):
        row.paste(tile, (sum(one.width for one in tiles[:number]), 0))
    return row


def _lie_in(boxes: list[tuple[int, int, int, int]], size: tuple[int, int]) -> bool:
    """Whether these are parts of a picture that do not come to more than all of it."""
    inside = all(0 <= left < right <= size[0] and 0 <= top < low <= size[1] for left, top, right, low in boxes)
    area = sum((right - left) * (low - top) for left, top, right, low in boxes)
    return bool(boxes) and inside and area <= size[0] * size[1]


def save_each(folder: Path, pictures: torch.Tensor) -> None:
    """Pictures [N, H, W, 3] in 0..1 as 1.png, 2.png, …, instead of those that were there."""
    folder.mkdir(exist_ok=True)
    for number, picture in enumerate(pictures, 1):
        save_png(folder / f"{number}.png", to_image(picture))
    for path in numbered(folder)[len(pictures) :]:
        path.unlink()


def numbered(folder: Path) -> list[Path]:
    """The pictures that `save_each` wrote, in their order."""
    return sorted((path for path in folder.glob("*.png") if path.stem.isdigit()), key=lambda path: int(path.stem))


def stacked(pictures: list[Image.Image]) -> Image.Image:
    sheet = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), PAPER)
    top = 0
    for picture in pictures:
        sheet.paste(picture, (0, top))
        top += picture.height
    return sheet


def grid(rows: list[list[torch.Tensor]], labels: list[str], captions: list[str], title: str = "") -> Image.Image:
    """Rows of pictures of one size [H, W, 3], a label left of each row, a caption below each column."""
    tile_width, tile_height = _tile(rows[0][0][None])
    small, big = _font(13), _font(18)
    left = MARGIN + (max(int(big.getlength(label)) for label in labels) + MARGIN if any(labels) else 0)
    top = MARGIN + (34 if title else 0)
    wrapped = [_wrap(caption, small, tile_width) for caption in captions]
    below = max((len(lines) for lines in wrapped), default=0) * 17 + 8
    columns = max(len(row) for row in rows)
    size = (left + columns * (tile_width + GAP) - GAP + MARGIN, top + len(rows) * (tile_height + GAP) + below + MARGIN)
    sheet = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    if title:
        pen.text((MARGIN, MARGIN - 2), title, INK, _font(20))
    for y, (row, label) in enumerate(zip(rows, labels, strict=True)):
        y_top = top + y * (tile_height + GAP)
        pen.text((MARGIN, y_top + tile_height / 2), label, INK, big, anchor="lm")
        for x, pixels in enumerate(row):
            tile = to_image(pixels).resize((tile_width, tile_height), Image.Resampling.BICUBIC)
            sheet.paste(tile, (left + x * (tile_width + GAP), y_top))
    for x, lines in enumerate(wrapped):
        for y, line in enumerate(lines):
            place = (left + x * (tile_width + GAP), top + len(rows) * (tile_height + GAP) + y * 17)
            pen.text(place, line, FAINT, small)
    return sheet


def _tile(pictures: torch.Tensor) -> tuple[int, int]:
    """Width and height in a grid of each of pictures [N, H, W, 3]."""
    height, width = pictures.shape[1:3]
    scale = max(1, math.ceil(TILE / max(height, width)))
    return width * scale, height * scale


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int, most: int = 4) -> list[str]:
    lines, line = [], ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and font.getlength(longer) > width:
            lines.append(line)
            line = word
        else:
            line = longer
    lines = [entry for entry in [*lines, line] if entry]
    return lines if len(lines) <= most else [*lines[: most - 1], lines[most - 1] + " …"]


def save_loss_plot(path: Path, history: list[dict]) -> None:
    """The loss of each step faintly, its running mean, and the validation loss where there is one, its best marked.

    Args:
        history: lines of a metrics file.
    """
    raw = [(line["step"], line["loss"]) for line in history if line.get("loss") is not None]
    held_out = [(line["step"], line["validation"]) for line in history if line.get("validation") is not None]
    if not raw:
        return
    smooth = running_mean(raw)
    width, height, left, top, right, bottom = 960, 480, 84, 56, 24, 52
    sheet = Image.new("RGB", (width * 2, height * 2), PAPER)
    pen = ImageDraw.Draw(sheet)
    first, last = raw[0][0], max(raw[-1][0], raw[0][0] + 1)
    values = np.array([value for _, value in raw])
    ceiling = max(float(np.quantile(values, 0.99)), *(value for _, value in [*smooth, *held_out])) * 1.05 or 1.0

    def place(step: float, value: float) -> tuple[float, float]:
        x = left + (step - first) / (last - first) * (width - left - right)
        y = height - bottom - min(value, ceiling) / ceiling * (height - top - bottom)
        return 2 * x, 2 * y

    for value in _ticks(0, ceiling):
        y = place(first, value)[1]
        pen.line([(2 * left, y), (2 * (width - right), y)], GRID, 2)
        pen.text((2 * left - 16, y), f"{value:g}", FAINT, _font(24), anchor="rm")
    for step in _ticks(first, last):
        if step == int(step):
            pen.text((place(step, 0)[0], 2 * (height - bottom) + 14), f"{step:g}", FAINT, _font(24), anchor="mt")
    pen.line([place(*point) for point in raw], RAW, 2)
    pen.line([place(*point) for point in smooth], SMOOTH, 5, joint="curve")
    best = _best(history)
    if best:
        x, y = place(*best)
        pen.line([(x, 2 * top), (x, 2 * (height - bottom))], HELD_OUT, 2)
        pen.ellipse((x - 15, y - 15, x + 15, y + 15), PAPER, HELD_OUT, 4)
    for point in held_out:
        x, y = place(*point)
        pen.ellipse((x - 7, y - 7, x + 7, y + 7), HELD_OUT)
    pen.text((2 * left, 24), "Training loss", INK, _font(34))
    legend = f"mean of the last {_window(len(raw))} steps: {smooth[-1][1]:.4f}"
    if held_out:
        legend += f"   ·   held-out pictures (dots): {held_out[-1][1]:.4f}"
    if best:
        legend += f", best {best[1]:.4f} at step {best[0]}"
    pen.text((2 * (width - right), 30), legend, FAINT, _font(26), anchor="ra")
    pen.text((2 * (left + (width - left - right) / 2), 2 * height - 34), "step", FAINT, _font(24), anchor="mm")
    save_png(path, sheet.resize((width, height), Image.Resampling.LANCZOS))


def _best(history: list[dict]) -> tuple[int, float] | None:
    """The step with the lowest validation loss, and that loss, as the last of several validations tells it."""
    told = [line for line in history if line.get("best_step")]
    losses = {line["step"]: line["validation"] for line in told}
    step = told[-1]["best_step"] if len(told) > 1 else None
    return (step, losses[step]) if losses.get(step) is not None else None


def _window(count: int) -> int:
    return max(1, min(100, count // 10))


def running_mean(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Mean over the last tenth of the points, at most 100 of them."""
    window = _window(len(points))
    sums = np.cumsum([0.0, *(value for _, value in points)])
    return [
        (step, float(sums[i + 1] - sums[max(0, i + 1 - window)]) / min(i + 1, window))
        for i, (step, _) in enumerate(points)
    ]


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers between two."""
    rough = (high - low) / 5
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    first = math.ceil(low / step) * step
    return [round(first + i * step, 12) for i in range(int((high - first) / step) + 1)]
