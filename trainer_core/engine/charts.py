"""Pictures about a run: the loss curve, and grids of samples with their captions."""

import io
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from ..files import write_bytes

INK, FAINT, PAPER, GRID = (33, 37, 41), (134, 142, 150), (255, 255, 255), (233, 236, 239)
RAW, SMOOTH, HELD_OUT = (173, 206, 186), (25, 113, 68), (208, 85, 24)
TILE = 192
"""Sides of the samples in a grid are at least this, in pixels."""
MARGIN = 16


def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def save_png(path: Path, picture: Image.Image) -> None:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    write_bytes(path, buffer.getvalue())


def to_image(pixels: torch.Tensor) -> Image.Image:
    """float [H, W, 3] in 0..1 to an RGB picture."""
    return Image.fromarray((pixels.float().clamp(0, 1) * 255).round().to(torch.uint8).numpy())


def save_strip(path: Path, pictures: torch.Tensor, captions: list[str]) -> None:
    """One row of pictures [N, H, W, 3] in 0..1, at most eight in a row, each with its caption below."""
    rows = [(list(pictures[i : i + 8]), captions[i : i + 8]) for i in range(0, len(pictures), 8)]
    save_png(path, stacked([grid([row], [""], below) for row, below in rows]))


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
    height, width = rows[0][0].shape[:2]
    scale = max(1, math.ceil(TILE / max(height, width)))
    tile_width, tile_height = width * scale, height * scale
    small, big = _font(13), _font(18)
    left = MARGIN + (max(int(big.getlength(label)) for label in labels) + MARGIN if any(labels) else 0)
    top = MARGIN + (34 if title else 0)
    wrapped = [_wrap(caption, small, tile_width) for caption in captions]
    below = max((len(lines) for lines in wrapped), default=0) * 17 + 8
    columns = max(len(row) for row in rows)
    size = (left + columns * (tile_width + 8) - 8 + MARGIN, top + len(rows) * (tile_height + 8) + below + MARGIN)
    sheet = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    if title:
        pen.text((MARGIN, MARGIN - 2), title, INK, _font(20))
    for y, (row, label) in enumerate(zip(rows, labels, strict=True)):
        y_top = top + y * (tile_height + 8)
        pen.text((MARGIN, y_top + tile_height / 2), label, INK, big, anchor="lm")
        for x, pixels in enumerate(row):
            tile = to_image(pixels).resize((tile_width, tile_height), Image.Resampling.BICUBIC)
            sheet.paste(tile, (left + x * (tile_width + 8), y_top))
    for x, lines in enumerate(wrapped):
        for y, line in enumerate(lines):
            place = (left + x * (tile_width + 8), top + len(rows) * (tile_height + 8) + y * 17)
            pen.text(place, line, FAINT, small)
    return sheet


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
