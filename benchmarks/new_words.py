"""What a new word learns, alone, on the built-in base: how often pictures show what it stands for.

    python benchmarks/new_words.py [--shape ring] [--rates 5e-4 5e-3 2e-2] [--steps 300]

Sixteen rendered pictures of one shape, captioned by a word that the base has never seen. Counted is in how many of 48
drawn pictures the judge (pixels alone) sees that shape: with the word as it begins, as it has learned, and with the
base's own word, which is the most that can be expected.
"""

import argparse
import random
import tempfile
from pathlib import Path

from PIL import Image

from trainer_core.assets.build.evaluate import as_bytes
from trainer_core.assets.judge import judge
from trainer_core.assets.scenes import CANVAS, random_scene, render
from trainer_core.engine import metrics, run
from trainer_core.engine.preview_config import PreviewConfig
from trainer_core.engine.sampling import draw
from trainer_core.lora_file.words import Word, read_word
from trainer_core.recipe import from_dict
from trainer_core.sampler import load_for_sampling

WORD = "<zorb>"
PICTURES, DRAWN = 16, 48


def write_dataset(folder: Path, shape: str) -> None:
    dice = random.Random(1)
    for number in range(PICTURES):
        scene = random_scene(dice, (shape,))
        Image.fromarray(render(scene)).save(folder / f"{number:02}.png")
        (folder / f"{number:02}.txt").write_text(scene.caption.replace(shape, WORD), encoding="utf-8")


def seen(shape: str, word: str, words: list[Word]) -> int:
    """In how many pictures the judge sees the shape."""
    dice = random.Random(2026)
    captions = [random_scene(dice, (shape,)).caption.replace(shape, word) for _ in range(DRAWN)]
    model = load_for_sampling("scion-tiny", None, device="cpu", words=words)
    pictures = draw(model, captions, PreviewConfig(steps=20, guidance=3.0), CANVAS, CANVAS, batch=16)
    return sum(judge(picture).shape == shape for picture in as_bytes(pictures))


def trained(folder: Path, dataset: Path, rate: float, steps: int):
    recipe = from_dict(
        {
            "dataset": {"path": str(dataset), "holdout": 4},
            "words": {"names": [WORD], "learning_rate": rate, "alone": True},
            "run": {"steps": steps, "batch_size": 4, "device": "cpu", "checkpoint_every": 0, "validate_every": steps},
            "preview": {"count": 1, "steps": 1},
        }
    )
    return run.train(recipe, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", default="ring")
    parser.add_argument("--rates", nargs="+", type=float, default=[5e-4, 5e-3, 2e-2])
    parser.add_argument("--steps", type=int, default=300)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        dataset = Path(place) / "pictures"
        dataset.mkdir()
        write_dataset(dataset, asked.shape)
        print(f"the base's own word, {asked.shape}: {seen(asked.shape, asked.shape, [])} of {DRAWN}", flush=True)
        begun = trained(Path(place) / "begun", dataset, 1e-12, 1)
        words = [read_word(path) for path in begun.made.words]
        print(f"the new word as it begins: {seen(asked.shape, WORD, words)} of {DRAWN}", flush=True)
        for rate in asked.rates:
            result = trained(Path(place) / f"{rate:g}", dataset, rate, asked.steps)
            words = [read_word(path) for path in result.made.words]
            losses = [
                line["validation"] for line in metrics.read(result.folder / "metrics.jsonl") if "validation" in line
            ]
            counted = f"{seen(asked.shape, WORD, words)} of {DRAWN}"
            print(f"learned at {rate:g} over {asked.steps} steps: {counted}; validation loss {losses}", flush=True)


if __name__ == "__main__":
    main()
