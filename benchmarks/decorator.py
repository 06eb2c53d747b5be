"""What decorator tokens learn, alone, on the built-in base: how often prompts with them show the example's concept.

    python benchmarks/decorator.py [--tokens 4] [--rates 1e-3 1e-2] [--scales 1.0] [--steps 300] [--lora]

The demo's training (sixteen hearts, a shape that the base has never seen), with a decorator instead of the LoRA.
Counted is in how many of 50 drawn pictures the judge (pixels alone) sees a heart, on prompts that are in no training
picture; and in how many of 60 it sees what prompts of the base's own shapes say.
"""

import argparse
import dataclasses
import random
import tempfile
from itertools import product
from pathlib import Path

from trainer_core.assets.build import evaluate
from trainer_core.assets.build.example import example_scenes
from trainer_core.assets.scenes import COLOURS, RADIUS, Scene
from trainer_core.demo import demo_recipe
from trainer_core.engine import run
from trainer_core.lora_file.decorator import read_decorator
from trainer_core.sampler import load_for_sampling

HEARTS, OLD = 50, 60


def held_out() -> list[Scene]:
    seen = {(scene.colour, scene.background, scene.size) for scene in example_scenes()}
    every = [
        Scene("heart", colour, ground, size)
        for colour, ground, size in product(COLOURS, COLOURS, RADIUS)
        if colour != ground and (colour, ground, size) not in seen
    ]
    return random.Random(5).sample(every, HEARTS)


def scores(lora: Path | None, decorator: Path | None) -> str:
    tokens = read_decorator(decorator) if decorator else None
    model = load_for_sampling("scion-tiny", lora and str(lora), device="cpu", decorator=tokens)
    hearts = sum(verdict.shape == "heart" for verdict in evaluate.verdicts(model, held_out()))
    scenes = evaluate.test_scenes(OLD, seed=77)
    old = sum(v.agrees(s) for v, s in zip(evaluate.verdicts(model, scenes), scenes, strict=True))
    return f"hearts {hearts} of {HEARTS}, old shapes {old} of {OLD}"


def trained(folder: Path, steps: int, **decorator):
    recipe = demo_recipe()
    quiet = dataclasses.replace(recipe.run, steps=steps, preview_every=0, device="cpu")
    settings = dataclasses.replace(recipe.decorator, **decorator)
    preview = dataclasses.replace(recipe.preview, prompts=recipe.preview.prompts[:1], steps=1)
    adapter = recipe.adapter if not settings.alone else type(recipe.adapter)()
    asked = dataclasses.replace(recipe, run=quiet, decorator=settings, preview=preview, adapter=adapter)
    return run.train(asked, folder).made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", nargs="+", type=int, default=[4])
    parser.add_argument("--rates", nargs="+", type=float, default=[1e-3, 1e-2])
    parser.add_argument("--scales", nargs="+", type=float, default=[1.0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--lora", action="store_true", help="measure the base alone and the demo's LoRA, too")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        if asked.lora:
            print(f"the base alone: {scores(None, None)}", flush=True)
            made = trained(Path(place) / "lora", asked.steps)
            print(f"the demo's LoRA: {scores(made.lora, None)}", flush=True)
        for tokens, rate, scale in product(asked.tokens, asked.rates, asked.scales):
            how = {"num_tokens": tokens, "learning_rate": rate, "initial_scale": scale, "alone": True}
            made = trained(Path(place) / f"{tokens}-{rate:g}-{scale:g}", asked.steps, **how)
            said = f"{tokens} tokens, learning rate {rate:g}, initial scale {scale:g}"
            print(f"{said}: {scores(made.lora, made.decorator)}", flush=True)


if __name__ == "__main__":
    main()
