"""Times and memory of a training step under each attention backend that computes here, in alternation in one process.

    python benchmarks/attention.py [--side 256] [--precision bf16] [--blocks 4] [--tiny]

On Stable Diffusion 1.5's full shape with random weights, or with --tiny on the built-in base, where a step is the least
work and what leads the attention to a backend would weigh most.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from step_time import Ours, drawn_photos, full_model, recipe_for
from text_encoder import peak_of

from trainer_core.data.dataset import Dataset
from trainer_core.data.scan import scan_folder
from trainer_core.engine import attention
from trainer_core.engine.device import PRECISIONS
from trainer_core.engine.isolation import isolated
from trainer_core.errors import BadInput
from trainer_core.families import registry

NAMES = ("auto", "native", "_native_flash", "_native_math", "_native_efficient", "_native_cudnn", "flash", "xformers")


def that_compute(denoiser: torch.nn.Module, dtype: torch.dtype) -> list[str]:
    found, device = [], torch.device("cpu")
    for name in NAMES:
        try:
            attention.check(name, device)
            attention.try_out(name, denoiser, dtype, device)
        except BadInput as refused:
            print(refused)
        else:
            found.append(name)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=256, help="of the pictures, in pixels")
    parser.add_argument("--precision", default="bf16", choices=("fp32", "bf16"))
    parser.add_argument("--blocks", type=int, default=4, help="alternations, of two steps each")
    parser.add_argument("--tiny", action="store_true", help="the built-in base")
    given = parser.parse_args()
    dtype = PRECISIONS[given.precision]
    with tempfile.TemporaryDirectory() as folder, isolated():
        recipe = recipe_for(drawn_photos(Path(folder)), 1, given.precision)
        recipe.dataset.width = recipe.dataset.height = given.side
        model = registry.load("scion-tiny", dtype) if given.tiny else full_model(dtype)
        dataset = Dataset(scan_folder(recipe.dataset).items, recipe.dataset, 0, 8, given.side)
        dataset.encode(model.encoder)
        names, ours = that_compute(model.denoiser, dtype), Ours(model, recipe, dataset)
        taken, peaks = {name: [] for name in names}, {}
        for block in range(given.blocks + 1):
            for name in names if block % 2 else reversed(names):
                with attention.using(model.denoiser, name):
                    start = time.perf_counter()
                    ours.run(2)
                    if block:
                        taken[name].append(time.perf_counter() - start)
                    else:
                        peaks[name] = peak_of(lambda: ours.run(1))
    for name in names:
        ratio = median(a / b for a, b in zip(taken[name], taken["auto"], strict=True))
        print(f"{name}: {ratio:.3f} times as long as auto, a step holds {peaks[name] / 1e6:.0f} MB beside the weights")


if __name__ == "__main__":
    main()
