"""The example dataset: sixteen hearts with captions (`python -m trainer_core.assets.build.example`)."""

import argparse
import random
from pathlib import Path

from PIL import Image

from .. import EXAMPLE_DATASET
from ..scenes import JITTER, RADIUS, Scene, render

TAUGHT = ("red", "yellow", "blue", "white")
"""Colours of the hearts in the pictures; the other four show whether the LoRA learned a shape, not pictures."""


def example_scenes(seed: int = 7) -> list[Scene]:
    """Each taught colour four times: both sizes twice, on backgrounds of every colour."""
    rng = random.Random(seed)
    grounds = ["green", "purple", "black", "cyan", "white", "red", "blue", "yellow"]
    scenes = []
    for number in range(16):
        colour, size = TAUGHT[number % 4], list(RADIUS)[number // 4 % 2]
        ground = next(g for g in grounds[number // 2 :] + grounds if g != colour)
        x, y = (rng.uniform(-JITTER[size], JITTER[size]) for _ in "xy")
        scenes.append(Scene("heart", colour, ground, size, x, y))
    return scenes


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the example dataset.")
    parser.add_argument("--out", type=Path, default=EXAMPLE_DATASET)
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    for number, scene in enumerate(example_scenes(), 1):
        Image.fromarray(render(scene)).save(folder / f"heart-{number:02d}.png")
        (folder / f"heart-{number:02d}.txt").write_text(scene.caption + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
