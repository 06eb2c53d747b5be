"""A run holds as much after many steps as after few; benchmarks/long_run.py watches 20,000 of them."""

import gc
import sys

import psutil
import torch

from trainer_core.engine import run
from trainer_core.engine.events import Steps

FEW, MANY = 24, 60
"""After the first of these everything was done once: previews, validation, checkpoints and the deletion of old ones."""


class Watch:
    """Counts live tensors, Python's blocks of memory and resident bytes after two steps of a run."""

    def __init__(self):
        self.counts = {}

    def on(self, event):
        if isinstance(event, Steps) and event.last in (FEW, MANY):
            gc.collect()
            tensors = sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
            self.counts[event.last] = tensors, sys.getallocatedblocks(), psutil.Process().memory_info().rss


def test_memory_does_not_grow_with_the_steps(make_recipe, tmp_path):
    watch = Watch()
    looks = {"dataset.holdout": 1, "run.validate_every": 6, "run.preview_every": 12, "run.checkpoint_every": 4}
    run.train(make_recipe(looks, **{"run.steps": MANY, "run.batch_size": 1}), tmp_path / "run", [watch])
    (tensors, blocks, resident), (tensors_after, blocks_after, resident_after) = watch.counts.values()
    assert tensors_after == tensors
    assert abs(blocks_after / blocks - 1) < 0.002
    assert resident_after < 1.01 * resident
