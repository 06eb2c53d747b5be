"""`scion demo`: a first LoRA on the built-in base, and a picture that shows what it learned."""

from collections.abc import Callable
from pathlib import Path

import torch

from .adapters import lora
from .assets import EXAMPLE_DATASET
from .engine.charts import grid, save_png
from .engine.preview_config import PreviewConfig
from .engine.run import train
from .engine.sampling import draw
from .recipe import Recipe, from_dict
from .sampler import load_for_sampling
from .terminal import Terminal

PROMPTS = [
    "a large green heart on a white background",
    "a large purple heart on a yellow background",
    "a large black heart on a cyan background",
    "a large cyan heart on a red background",
    "a large red heart on a black background",
    "a large blue ring on a yellow background",
]
"""Hearts in colours that no training picture has, one that has, and a shape that the base knew before."""

GUIDANCE = 3.0
"""Guidance scale at which scion-tiny draws best (see its model card)."""


def demo_recipe() -> Recipe:
    return from_dict(
        {
            "base": "scion-tiny",
            "dataset": {"path": str(EXAMPLE_DATASET)},
            "adapter": {"rank": 16},
            "objective": {"min_snr_gamma": 5.0},
            "optimizer": {"learning_rate": 1.2e-3, "schedule": "cosine", "warmup_steps": 10},
            "run": {"steps": 300, "batch_size": 4, "checkpoint_every": 0, "preview_every": 100},
            "preview": {"prompts": PROMPTS[:4], "guidance": GUIDANCE},
            "output": {"name": "hearts"},
        }
    )


def run_demo(out: Path, should_stop: Callable[[], bool]) -> str:
    """Trains into `out` and draws before_after.png there.

    Returns:
        "finished" or "stopped".
    """
    print("Scion's demo: the built-in base draws circles, rings, crosses …, but it has never seen a heart.")
    print(f"A LoRA learns it from sixteen pictures in {EXAMPLE_DATASET}.\n")
    result = train(demo_recipe(), out, [Terminal()], should_stop)
    if result.status == "stopped":
        return result.status
    picture = out / "before_after.png"
    before, after = before_and_after(result.lora, PROMPTS)
    save_png(picture, grid([list(before), list(after)], ["base", "with LoRA"], PROMPTS))
    print(
        f"\nBefore and after: {picture}\nThe loss:         {out / 'loss.png'}\nThe run:          {out}\n\n"
        f'Next, draw one yourself:\n  scion sample --lora "{result.lora}" '
        '--prompt "a small white heart on a purple background" --out heart.png'
    )
    return result.status


def before_and_after(file: Path, prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """The same prompts with the same seeds, without and with a LoRA of the built-in base: [N, H, W, 3] in 0..1 each."""
    model = load_for_sampling("scion-tiny", str(file))
    config = PreviewConfig(guidance=GUIDANCE)
    size = model.resolution, model.resolution
    with lora.switched_off(model.denoiser):
        before = draw(model, prompts, config, *size)
    return before, draw(model, prompts, config, *size)
