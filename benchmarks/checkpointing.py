"""What gradient checkpointing saves and costs, on Stable Diffusion 1.5's full shape at 256×256, batch 4.

    python benchmarks/checkpointing.py [--precision fp32]

Each setting runs in a process of its own, so that its peak is its own.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from step_time import Ours, drawn_photos, full_model, peak_memory, recipe_for

from trainer_core.data.dataset import Dataset
from trainer_core.data.scan import scan_folder
from trainer_core.engine.device import PRECISIONS


def one(precision: str, checkpointing: bool) -> None:
    """Prints peak memory, the seconds of the second step, and both losses, as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = recipe_for(drawn_photos(Path(folder)), 4, precision)
        model = full_model(PRECISIONS[precision])
        dataset = Dataset(scan_folder(recipe.dataset).items, recipe.dataset, 0, 8, 256)
        dataset.encode(model.encoder)
        ours = Ours(model, recipe, dataset)
        if checkpointing:
            model.denoiser.enable_gradient_checkpointing()
        losses, before = [], peak_memory()
        ends = []
        ours.trainer.train(
            lambda event: (losses.extend(event.losses), ends.append(time.perf_counter())),
            lambda: ours.trainer.step >= 2,
        )
    print(json.dumps({"peak": peak_memory(), "before": before, "losses": losses, "seconds": ends[1] - ends[0]}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--one", choices=("on", "off"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        return one(given.precision, given.one == "on")
    results = {}
    for setting in ("off", "on"):
        command = [sys.executable, __file__, "--precision", given.precision, "--one", setting]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
        results[setting] = json.loads(lines[-1])
        found = results[setting]
        print(
            f"{setting}: peak {found['peak'] / 1e9:.2f} GB, {found['seconds']:.2f} s a step, losses {found['losses']}"
        )
    off, on = results["off"], results["on"]
    print(
        f"peak {1 - on['peak'] / off['peak']:.0%} lower, step {on['seconds'] / off['seconds']:.2f} times as long, "
        f"losses {'bit-equal' if on['losses'] == off['losses'] else 'DIFFER'} (torch {torch.__version__})"
    )


if __name__ == "__main__":
    main()
