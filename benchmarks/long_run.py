"""Whether a long run's memory grows: what the process holds every 1,000 of 20,000 steps on the built-in base.

    python benchmarks/long_run.py [--steps 20000] [--every 1000] [--objects]

The run is a whole one: checkpoints, previews and validation now and then, history, adapter file. One thread and batch 1
at 64 pixels keep it short. Beside the resident memory stands the count of Python's blocks of memory; --objects counts
live tensors and objects, too, but the list of them, several megabytes long, then shows in the resident memory.
"""

import argparse
import gc
import sys
import tempfile
import time
from pathlib import Path

import psutil
import torch

from trainer_core.assets import EXAMPLE_DATASET
from trainer_core.engine import run
from trainer_core.engine.events import Checkpointed, Previewed, Steps, Validated
from trainer_core.recipe import Recipe, from_dict


def recipe_for(steps: int) -> Recipe:
    return from_dict(
        {
            "dataset": {"path": str(EXAMPLE_DATASET), "holdout": 2, "resolution": 64},
            "adapter": {"rank": 8},
            "optimizer": {"learning_rate": 1e-4},
            "run": {
                "steps": steps,
                "device": "cpu",
                "checkpoint_every": 250,
                "preview_every": 500,
                "validate_every": 250,
            },
            "preview": {"steps": 4, "count": 2},
        }
    )


class Watch:
    """Prints what the process holds every so many steps."""

    def __init__(self, every: int, objects: bool):
        self.every, self.objects, self.process = every, objects, psutil.Process()
        self.held: dict[int, int] = {}
        self.counts = {kind: 0 for kind in (Checkpointed, Previewed, Validated)}
        self.began = time.monotonic()

    def on(self, event) -> None:
        if type(event) in self.counts:
            self.counts[type(event)] += 1
        if isinstance(event, Steps) and event.last % self.every == 0:
            self.look(event.last, f"step {event.last}")

    def look(self, step: int, when: str) -> None:
        self.held[step] = self.process.memory_info().rss
        first = next(iter(self.held.values()))
        told = [
            f"{when}: {self.held[step] / 1e6:.1f} MB ({self.held[step] / first - 1:+.2%})",
            f"{sys.getallocatedblocks():,} blocks",
            f"{len(self.process.open_files())} open files",
            f"{self.process.num_threads()} threads",
        ]
        if self.objects:
            gc.collect()
            objects = gc.get_objects()
            tensors = sum(issubclass(type(thing), torch.Tensor) for thing in objects)
            told += [f"{tensors:,} tensors", f"{len(objects):,} objects"]
        print(", ".join(told), f"{time.monotonic() - self.began:.0f} s", sep=", ", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--every", type=int, default=1000)
    parser.add_argument("--objects", action="store_true", help="count tensors and objects, too")
    given = parser.parse_args()
    torch.set_num_threads(1)
    watch = Watch(given.every, given.objects)
    with tempfile.TemporaryDirectory() as folder:
        run.train(recipe_for(given.steps), Path(folder) / "run", [watch])
    watch.look(given.steps + 1, "after the run")
    counts = ", ".join(f"{count} {kind.__name__.lower()}" for kind, count in watch.counts.items())
    print(f"{counts}; from step {given.every} to {given.steps}: ", end="")
    print(f"{watch.held[given.steps] / watch.held[given.every] - 1:+.2%} (torch {torch.__version__})")


if __name__ == "__main__":
    main()
