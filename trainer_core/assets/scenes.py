"""The little world that scion-tiny draws: one flat shape on a flat background, and the captions that describe it."""

import random
from dataclasses import dataclass

import numpy as np

CANVAS = 96
"""Width and height of a scene, in pixels."""

COLOURS = {
    "red": (214, 40, 40),
    "yellow": (247, 208, 56),
    "green": (46, 160, 67),
    "cyan": (86, 204, 222),
    "blue": (38, 70, 200),
    "purple": (142, 68, 173),
    "white": (245, 245, 245),
    "black": (24, 24, 27),
}

RADIUS = {"small": 17, "large": 32}
"""Half of a shape's width, in pixels."""

JITTER = {"small": 20, "large": 9}
"""How far a shape's centre may lie from the canvas's centre, in pixels."""


def _circle(x, y):
    return x * x + y * y <= 1


def _square(x, y):
    return np.maximum(abs(x), abs(y)) <= 0.9


def _triangle(x, y):
    return (y <= 0.85) & (2 * abs(x) * 0.9 <= y + 0.95)


def _ring(x, y):
    r = np.hypot(x, y)
    return (r <= 1) & (r >= 0.55)


def _cross(x, y):
    return (np.minimum(abs(x), abs(y)) <= 0.32) & (np.maximum(abs(x), abs(y)) <= 1)


def _diamond(x, y):
    return abs(x) / 0.8 + abs(y) <= 1


def _heart(x, y):
    x, y = x * 1.18, 0.12 - y * 1.18
    return (x * x + y * y - 1) ** 3 - x * x * y**3 <= 0


SHAPES = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "ring": _ring,
    "cross": _cross,
    "diamond": _diamond,
}
"""What the base model is taught. Each predicate takes coordinates in -1..1, y down, and says what is inside."""

NEW_SHAPES = {"heart": _heart}
"""What the base model never sees: the example dataset teaches it to a LoRA."""


@dataclass(frozen=True)
class Scene:
    shape: str
    colour: str
    background: str
    size: str
    x: float = 0.0
    y: float = 0.0
    """Offset of the shape's centre from the canvas's centre, in pixels."""

    @property
    def caption(self) -> str:
        return f"a {self.size} {self.colour} {self.shape} on a {self.background} background"


def random_scene(rng: random.Random, shapes=tuple(SHAPES)) -> Scene:
    colour, background = rng.sample(list(COLOURS), 2)
    size = rng.choice(list(RADIUS))
    x, y = (rng.uniform(-JITTER[size], JITTER[size]) for _ in "xy")
    return Scene(rng.choice(list(shapes)), colour, background, size, x, y)


def coverage(scene: Scene, canvas: int = CANVAS, oversample: int = 4) -> np.ndarray:
    """How much of each pixel the shape covers: float32 [canvas, canvas] in 0..1."""
    axis = (np.arange(canvas * oversample) + 0.5) / oversample - canvas / 2
    radius = RADIUS[scene.size] * canvas / CANVAS
    x = (axis[None, :] - scene.x) / radius
    y = (axis[:, None] - scene.y) / radius
    inside = {**SHAPES, **NEW_SHAPES}[scene.shape](x, y)
    return inside.reshape(canvas, oversample, canvas, oversample).mean((1, 3), dtype=np.float32)


def paint(cover: np.ndarray, colour: str, background: str) -> np.ndarray:
    """A picture from a coverage map: uint8 [H, W, 3]."""
    front, back = (np.array(COLOURS[name], np.float32) for name in (colour, background))
    return np.round(back + cover[..., None] * (front - back)).astype(np.uint8)


def render(scene: Scene) -> np.ndarray:
    """The scene as a picture: uint8 [96, 96, 3]."""
    return paint(coverage(scene), scene.colour, scene.background)


def nonsense_word(rng: random.Random) -> str:
    """A word that means nothing, for the base model to learn that unknown words may stand for any shape."""
    return "".join(
        rng.choice("bcdfghjklmnprstvwz") + rng.choice("aeiou") for _ in range(rng.randint(1, 3))
    ) + rng.choice(["", "n", "t", "x", "l"])


def varied_caption(scene: Scene, rng: random.Random) -> str:
    """One of the ways in which people say the same thing; about one in eight names the shape by a nonsense word."""
    noun = nonsense_word(rng) if rng.random() < 0.12 else scene.shape
    size = "" if rng.random() < 0.1 else scene.size + " "
    article = rng.choice(["a ", "a ", "a ", "the ", "one ", ""])
    thing = f"{article}{size}{scene.colour} {noun}"
    if rng.random() < 0.15:
        thing = rng.choice(["a picture of ", "a drawing of ", "a photo of "]) + thing
    ground = rng.choice(
        [f" on a {scene.background} background"] * 4
        + [
            f" on {scene.background}",
            f", {scene.background} background",
            f" in front of a {scene.background} background",
        ]
    )
    if rng.random() < 0.06:
        thing = nonsense_word(rng) + rng.choice([" ", ", "]) + thing
    return thing + ground
