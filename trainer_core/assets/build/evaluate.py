"""How well scion-tiny draws what captions say, by the judge: `python -m trainer_core.assets.build.evaluate`."""

import argparse
import random
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from ...engine.preview_config import PreviewConfig
from ...engine.sampling import draw
from ...families.base import Model
from ...families.registry import load
from .. import SCION_TINY
from ..judge import Verdict, judge
from ..scenes import CANVAS, SHAPES, Scene, random_scene


def test_scenes(count: int, seed: int, shapes: Iterable[str] = tuple(SHAPES)) -> list[Scene]:
    """Random scenes to ask for; the same for the same seed."""
    rng = random.Random(seed)
    return [random_scene(rng, tuple(shapes)) for _ in range(count)]


def verdicts(model: Model, scenes: list[Scene], steps: int = 20, guidance: float = 3.0) -> list[Verdict]:
    """What the judge sees in the pictures drawn for the scenes' captions, seeds 0, 1, 2, …"""
    config = PreviewConfig(steps=steps, guidance=guidance)
    pictures = draw(model, [scene.caption for scene in scenes], config, CANVAS, CANVAS, batch=32)
    return [judge(picture) for picture in as_bytes(pictures)]


def as_bytes(pictures: torch.Tensor) -> np.ndarray:
    """float [N, H, W, 3] in 0..1 to uint8."""
    return (pictures * 255).round().to(torch.uint8).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description="Ask scion-tiny for random scenes and judge what it draws.")
    parser.add_argument("--base", default=str(SCION_TINY))
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--pictures", type=Path, help="write a sheet of the first 48 here")
    options = parser.parse_args()
    scenes = test_scenes(options.count, seed=2026)
    model = load(options.base)
    found = verdicts(model, scenes)
    right = [verdict.agrees(scene) for verdict, scene in zip(found, scenes, strict=True)]
    print(f"shape and both colours: {sum(right)} of {len(right)}")
    for part in ("shape", "colour", "background", "size"):
        count = sum(
            getattr(verdict, part) == getattr(scene, part) for verdict, scene in zip(found, scenes, strict=True)
        )
        print(f"{part}: {count} of {len(right)}")
    if options.pictures:
        from ...engine.charts import save_strip

        shown = scenes[:48]
        pictures = draw(model, [s.caption for s in shown], PreviewConfig(guidance=3.0), CANVAS, CANVAS, batch=32)
        save_strip(options.pictures, pictures, [scene.caption for scene in shown])


if __name__ == "__main__":
    main()
