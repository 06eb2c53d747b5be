"""What the advice after "out of memory" estimates against what settings save, on Stable Diffusion 1.5's full shape.

    python benchmarks/memory_estimate.py [--side 256] [--only batch-2,bf16]

Batch 4 in fp32 is the beginning; each change of settings runs in a process of its own, so that its peak is its own,
with glibc told to give freed memory back at once. Measured is the process's peak over two steps; estimated, the step's
memory as the beginning's process rehearses it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from step_time import Ours, drawn_photos, full_model, peak_memory, recipe_for

from trainer_core.data.dataset import Dataset
from trainer_core.data.scan import scan_folder
from trainer_core.engine.device import PRECISIONS
from trainer_core.engine.memory_estimate import TrainerMemory

CASES = {
    "beginning": {},
    "checkpointing": {"checkpointing": True},
    "batch-2": {"batch_size": 2},
    "bf16": {"precision": "bf16"},
    "three-quarters": {"scale": 0.75},
    "bf16-checkpointing": {"precision": "bf16", "checkpointing": True},
}
"""What each changes of the beginning."""
GLIBC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_ARENA_MAX": "1"}


def one(case: str, side: int) -> None:
    """Prints the peak of two steps, and in the beginning's process all estimates, as JSON."""
    changes = CASES[case]
    batch, precision = changes.get("batch_size", 4), changes.get("precision", "fp32")
    side = int(side * changes.get("scale", 1))
    with tempfile.TemporaryDirectory() as folder:
        recipe = recipe_for(drawn_photos(Path(folder)), batch, precision)
        recipe.dataset.width = recipe.dataset.height = side
        model = full_model(PRECISIONS[precision])
        dataset = Dataset(scan_folder(recipe.dataset).items, recipe.dataset, 0, 8, side)
        dataset.encode(model.encoder)
        ours = Ours(model, recipe, dataset)
        if changes.get("checkpointing"):
            model.denoiser.enable_gradient_checkpointing()
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak up to now
        ours.run(2)
        measured = peak_memory()
    estimates = {}
    if case == "beginning":
        memory = TrainerMemory(ours.trainer)
        for name, changed in CASES.items():
            given = {key: value for key, value in changed.items() if key != "precision"}
            estimates[name] = memory.step(dtype=PRECISIONS[changed.get("precision", "fp32")], **given).total
    print(json.dumps({"measured": measured, "estimates": estimates}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=256, help="of the pictures, in pixels")
    parser.add_argument("--only", default=",".join(CASES), help="cases beside the beginning, of " + ", ".join(CASES))
    parser.add_argument("--one", choices=CASES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        return one(given.one, given.side)
    found, estimates = {}, {}
    for case in dict.fromkeys(["beginning", *given.only.split(",")]):
        command = [sys.executable, __file__, "--side", str(given.side), "--one", case]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | GLIBC)
        told = json.loads(done.stdout.splitlines()[-1])
        found[case], estimates = told["measured"], estimates or told["estimates"]
        if case == "beginning":
            print(f"process {found[case] / 1e9:.2f} GB, step estimated {estimates[case] / 1e9:.2f} GB", flush=True)
            continue
        saved, expected = found["beginning"] - found[case], estimates["beginning"] - estimates[case]
        print(
            f"{case}: saves {saved / 1e9:.2f} GB, estimated {expected / 1e9:.2f} GB ({expected / saved - 1:+.0%})",
            flush=True,
        )
    print(f"torch {torch.__version__}")


if __name__ == "__main__":
    main()
