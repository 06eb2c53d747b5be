"""Looks at a picture of the scion-tiny world and says what is on it, from pixels alone (no model, no caption)."""

from collections import deque
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .scenes import CANVAS, COLOURS, NEW_SHAPES, RADIUS, SHAPES, Scene, coverage

GRID = 32
CLEAR = 0.72
"""Least overlap (intersection over union) with a shape's ideal outline for a shape to count as recognised."""
FARTHEST = 75.0
"""Greatest distance in RGB (0..255 each) at which a colour still counts as the named one."""


@dataclass(frozen=True)
class Verdict:
    shape: str | None
    colour: str | None
    background: str | None
    size: str | None
    overlap: float

    def agrees(self, scene: Scene) -> bool:
        """Right shape, right colour, right background."""
        return (self.shape, self.colour, self.background) == (scene.shape, scene.colour, scene.background)


def judge(picture: np.ndarray) -> Verdict:
    """Names shape, colours and size of a scene.

    Args:
        picture: uint8 [H, W, 3].

    Returns:
        A verdict whose fields are None where the picture shows nothing clear.
    """
    pixels = picture.astype(np.float32)
    edge = max(2, picture.shape[0] // 32)
    frame = np.concatenate(
        [pixels[:edge].reshape(-1, 3), pixels[-edge:].reshape(-1, 3), pixels[:, :edge].reshape(-1, 3)]
    )
    back = np.median(frame, axis=0)
    distance = np.linalg.norm(pixels - back, axis=-1)
    peak = np.percentile(distance, 97)
    background = _nearest_colour(back)
    mask = _largest_blob(distance > max(25.0, peak / 2)) if background else None
    if mask is None:
        return Verdict(None, None, background, None, 0.0)
    inside = pixels[mask & (distance > 0.8 * np.median(distance[mask]))]
    colour = _nearest_colour(np.median(inside, axis=0))
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    extent = max(np.ptp(rows), np.ptp(columns)) + 1
    shape, overlap = _nearest_shape(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    border = (RADIUS["small"] + RADIUS["large"]) / CANVAS * picture.shape[0]
    return Verdict(shape, colour, background, "large" if extent > border else "small", overlap)


def _nearest_colour(rgb: np.ndarray) -> str | None:
    name, distance = min(
        ((name, np.linalg.norm(rgb - value)) for name, value in COLOURS.items()), key=lambda pair: pair[1]
    )
    return name if distance <= FARTHEST else None


def _largest_blob(mask: np.ndarray) -> np.ndarray | None:
    """The largest 4-connected part of a mask; None if it is tiny or does not dominate the rest."""
    left, best = mask.copy(), None
    while left.any():
        start = tuple(np.argwhere(left)[0])
        blob = np.zeros_like(mask)
        queue = deque([start])
        left[start] = False
        while queue:
            y, x = queue.popleft()
            blob[y, x] = True
            for next_y, next_x in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if 0 <= next_y < mask.shape[0] and 0 <= next_x < mask.shape[1] and left[next_y, next_x]:
                    left[next_y, next_x] = False
                    queue.append((next_y, next_x))
        if best is None or blob.sum() > best.sum():
            best = blob
    if best is None or best.sum() < 0.01 * mask.size or best.sum() < 0.8 * mask.sum():
        return None
    return best


def _on_grid(mask: np.ndarray) -> np.ndarray:
    """The mask centred in a square of GRID×GRID, its longer side filling it."""
    height, width = mask.shape
    scale = GRID / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)) > 127
    grid = np.zeros((GRID, GRID), bool)
    top, left = (GRID - size[1]) // 2, (GRID - size[0]) // 2
    grid[top : top + size[1], left : left + size[0]] = small
    return grid


def _template(shape: str) -> np.ndarray:
    mask = coverage(Scene(shape, "red", "white", "large"), CANVAS * 2) > 0.5
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return _on_grid(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


_TEMPLATES = {shape: _template(shape) for shape in (*SHAPES, *NEW_SHAPES)}


def _nearest_shape(mask: np.ndarray) -> tuple[str | None, float]:
    grid = _on_grid(mask)
    overlaps = {name: (grid & ideal).sum() / (grid | ideal).sum() for name, ideal in _TEMPLATES.items()}
    name = max(overlaps, key=overlaps.get)
    return (name if overlaps[name] >= CLEAR else None), float(overlaps[name])
