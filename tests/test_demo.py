"""What `scion demo` promises, measured: files, memory, and that the LoRA learned a shape and not pictures."""

import random
import subprocess
import sys
import threading
from itertools import product
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from trainer_core.adapters import lora
from trainer_core.assets import EXAMPLE_DATASET
from trainer_core.assets.build import evaluate
from trainer_core.assets.build.example import TAUGHT, example_scenes
from trainer_core.assets.judge import judge
from trainer_core.assets.scenes import COLOURS, RADIUS, Scene
from trainer_core.data.config import DatasetConfig
from trainer_core.data.scan import scan_folder
from trainer_core.sampler import load_for_sampling

ROOT = Path(__file__).parent.parent


class Demo:
    """A finished demo: its folder, what it printed, and the most memory it held, in bytes."""

    def __init__(self, folder: Path):
        command = [sys.executable, "-m", "trainer_core", "demo", "--out", str(folder)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.folder, self.memory = folder, 0
        watcher = threading.Thread(target=self._watch, args=(psutil.Process(process.pid),), daemon=True)
        watcher.start()
        self.output, _ = process.communicate()
        self.code = process.returncode

    def _watch(self, process: psutil.Process) -> None:
        try:
            while True:
                self.memory = max(self.memory, process.memory_info().rss)
                threading.Event().wait(0.1)
        except psutil.Error:
            return


pytestmark = pytest.mark.usefixtures("every_core")


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Demo:
    return Demo(tmp_path_factory.mktemp("demo") / "scion-demo")


@pytest.fixture(scope="module")
def taught(demo):
    return load_for_sampling("scion-tiny", str(demo.folder / "hearts.safetensors"))


def held_out_hearts() -> list[Scene]:
    """Fifty hearts that are in no training picture: colours, backgrounds or sizes that were not seen together."""
    seen = {(scene.colour, scene.background, scene.size) for scene in example_scenes()}
    every = [
        Scene("heart", colour, ground, size)
        for colour, ground, size in product(COLOURS, COLOURS, RADIUS)
        if colour != ground and (colour, ground, size) not in seen
    ]
    return random.Random(5).sample(every, 50)


def test_it_writes_the_lora_the_loss_and_the_picture_and_says_what_to_do_next(demo):
    assert demo.code == 0, demo.output
    for name in ("hearts.safetensors", "loss.png", "before_after.png", "recipe.json", "metrics.jsonl"):
        assert (demo.folder / name).stat().st_size > 0
        assert name in ("recipe.json", "metrics.jsonl") or name in demo.output
    assert "scion sample --lora" in demo.output
    width, height = Image.open(demo.folder / "before_after.png").size
    assert width > 1000 and height > 350


def test_it_needs_at_most_two_and_a_half_gigabytes(demo):
    assert 0 < demo.memory < 2.5e9


def test_with_the_lora_hearts_appear_on_at_least_40_of_50_held_out_prompts(taught):
    scenes = held_out_hearts()
    hearts = [verdict.shape == "heart" for verdict in evaluate.verdicts(taught, scenes)]
    assert sum(hearts) >= 40


def test_without_the_lora_hearts_appear_on_at_most_5_of_50(taught):
    with lora.switched_off(taught.denoiser):
        hearts = [verdict.shape == "heart" for verdict in evaluate.verdicts(taught, held_out_hearts())]
    assert sum(hearts) <= 5


def test_old_shapes_still_come_out_right_in_at_least_85_percent_with_the_lora(taught):
    scenes = evaluate.test_scenes(60, seed=77)
    right = [v.agrees(s) for v, s in zip(evaluate.verdicts(taught, scenes), scenes, strict=True)]
    assert sum(right) >= 51


def test_the_example_dataset_is_clean_and_leaves_colours_for_the_proof():
    scan = scan_folder(DatasetConfig(path=str(EXAMPLE_DATASET)))
    assert not scan.problems and not scan.notes
    assert 12 <= len(scan.items) <= 20
    drawn = [judge(np.asarray(Image.open(item.picture).convert("RGB"))) for item in scan.items]
    assert {verdict.shape for verdict in drawn} == {"heart"}
    assert {verdict.colour for verdict in drawn} == set(TAUGHT) < set(COLOURS)
