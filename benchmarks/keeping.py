"""What it costs to keep a moving average of a LoRA, and a checkpoint of it, beside an optimiser's step.

    python benchmarks/keeping.py

The matrices are those of a LoRA of Stable Diffusion 1.5's size; the base is not needed. One core.
"""

import statistics
import tempfile
import time
from pathlib import Path

import torch
from diffusers.training_utils import EMAModel

from trainer_core.engine import checkpoints
from trainer_core.engine.checkpoints import Checkpoint
from trainer_core.engine.ema import Ema

SIZES = {"rank 4, attention": (256, (4, 778)), "rank 16, all layers": (512, (16, 1200))}
"""Matrices, and the shape of each."""
ROUNDS, WARM = 40, 5


def parameters(count: int, shape: tuple[int, int]) -> dict[str, torch.nn.Parameter]:
    made = {f"{number}.weight": torch.nn.Parameter(torch.randn(shape)) for number in range(count)}
    for parameter in made.values():
        parameter.grad = 1e-3 * torch.randn_like(parameter)
    return made


def updates(trained: dict[str, torch.nn.Parameter]) -> dict[str, float]:
    """Median milliseconds of a step of fused AdamW, of our update and of diffusers', in alternation."""
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-4, fused=True)
    ours, theirs, skipped = Ema(trained, 0.999), EMAModel(trained.values(), decay=0.999), torch.zeros(())
    actions = {
        "AdamW": optimizer.step,
        "ours": lambda: ours.update(skipped),
        "diffusers": lambda: theirs.step(trained.values()),
    }
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(ROUNDS):
        for name, action in actions.items():
            begun = time.perf_counter()
            action()
            seconds[name].append(time.perf_counter() - begun)
    return {name: 1000 * statistics.median(measured[WARM:]) for name, measured in seconds.items()}


def checkpoint(trained: dict[str, torch.nn.Parameter]) -> tuple[float, float]:
    """Median milliseconds to write one with AdamW's state and an average, and its megabytes."""
    tensors = {name: parameter.detach() for name, parameter in trained.items()}
    moments = {f"{key}|{name}": tensor for key in ("exp_avg", "exp_avg_sq") for name, tensor in tensors.items()}
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        for step in range(1, 8):
            begun = time.perf_counter()
            path = checkpoints.save(Path(folder), Checkpoint(step, tensors, {}, moments, averages=tensors), keep=1)
            seconds.append(time.perf_counter() - begun)
        size = sum(file.stat().st_size for file in path.iterdir())
    return 1000 * statistics.median(seconds), size / 1e6


def main() -> None:
    torch.set_num_threads(1)
    for name, (count, shape) in SIZES.items():
        trained = parameters(count, shape)
        took = updates(trained)
        saving, size = checkpoint(trained)
        print(f"{name}, {count * shape[0] * shape[1]:,} numbers")
        print("  " + ", ".join(f"{action} {milliseconds:.1f} ms" for action, milliseconds in took.items()))
        print("  " + ", ".join(f"ours / {other} {took['ours'] / took[other]:.2f}" for other in ("AdamW", "diffusers")))
        print(f"  checkpoint {saving:.0f} ms, {size:.1f} MB")


if __name__ == "__main__":
    main()
