"""Memory of a LoRA training step in each family at its full shape, and how many times as long a step takes otherwise.

    python benchmarks/families.py [--only sd15,sdxl,kolors] [--side 512] [--reckon]

The UNets have random weights, the batch is one picture and its caption, rank 4 on attention. Each setting runs in a
process of its own. Counted is what torch's allocator hands out during forward and backward, beside it the process's
peak. Times are the processor's, and alternate within one process. What is measured goes into families.json, of which
docs/families.md is made. --reckon computes nothing: it tells the estimates that advice goes by.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import torch
from diffusers import UNet2DConditionModel
from step_time import peak_memory
from text_encoder import peak_of

from trainer_core.adapters import lora
from trainer_core.adapters.lora_config import LoRAConfig
from trainer_core.engine import learning_parts, objective
from trainer_core.engine.device import PRECISIONS
from trainer_core.engine.memory_estimate import Rehearsal
from trainer_core.engine.objective_config import ObjectiveConfig
from trainer_core.families.base import Conditioning, Model
from trainer_core.families.diffusion import Diffusion
from trainer_core.families.registry import FAMILIES
from trainer_core.lora_file.known_targets import _UNETS

CPU = torch.device("cpu")
TEXT = {"sd15": (77, 768), "sdxl": (77, 2048), "kolors": (256, 4096)}
"""Tokens of a caption, and their width."""
POOLED = {"sdxl": 1280, "kolors": 4096}
SETTINGS = [(precision, checkpointing) for precision in ("fp32", "bf16") for checkpointing in (False, True)]
FOUND = Path(__file__).with_suffix(".json")
GLIBC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_ARENA_MAX": "1"}


def full_model(name: str, precision: str, device: str = "cpu") -> Model:
    """With a LoRA in its place; an encoder is not needed where latents and captions are given."""
    torch.manual_seed(0)
    # Made in its own precision at once: a copy in fp32 would be the process's peak.
    torch.set_default_dtype(PRECISIONS[precision])
    with torch.device(device):
        unet = UNet2DConditionModel(**_UNETS[FAMILIES[name].in_files]).requires_grad_(False)
    torch.set_default_dtype(torch.float32)
    family, config = FAMILIES[name], LoRAConfig(rank=4)
    with torch.device(device):
        lora.inject(unet, config, lora.targeted_modules(unet, config, family.targets), 0)
    return Model(
        family,
        unet.train(),
        SimpleNamespace(text_encoders={}),
        Diffusion(family.schedule),
        512,
        "benchmark",
        "benchmark",
    )


def told_of(name: str) -> Conditioning:
    told = {"text": torch.randn(1, *TEXT[name])}
    if name in POOLED:
        told |= {"pooled": torch.randn(1, POOLED[name]), "time_ids": torch.tensor([[512, 512, 0, 0, 512, 512]])}
    return told


def latents_of(side: int) -> tuple[int, int, int, int]:
    return (1, 4, side // 8, side // 8)


def step(model: Model, side: int, dtype: torch.dtype) -> None:
    """Forward and backward; the gradients are let go of."""
    told = {key: v.to(dtype) if v.is_floating_point() else v for key, v in told_of(model.family.name).items()}
    latents, noise = torch.randn(2, *latents_of(side))
    drawn = objective.Draw(noise, torch.tensor([500]))
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        losses = objective.losses(ObjectiveConfig(), model, model.denoiser, latents, told, drawn)
    losses.sum().backward()
    for parameter in lora.parameters(model.denoiser).values():
        parameter.grad = None


def one(name: str, side: int, precision: str, checkpointing: bool) -> None:
    """Prints the memory of a step, in GB, as JSON."""
    model = full_model(name, precision)
    learning_parts.recomputing(model.denoiser, checkpointing)
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak up to now
    step(model, side, PRECISIONS[precision])
    process = peak_memory()
    passing = peak_of(partial(step, model, side, PRECISIONS[precision]))
    frozen = sum(p.numel() * p.element_size() for p in model.denoiser.parameters() if not p.requires_grad)
    sizes = {"weights": frozen, "passing": passing, "process": process}
    trained = sum(p.numel() for p in lora.parameters(model.denoiser).values())
    counts = {"trained": trained, "modules": len(lora.layers(model.denoiser))}
    print(json.dumps({name: round(size / 1e9, 2) for name, size in sizes.items()} | counts))


def times(name: str, side: int, blocks: int) -> None:
    """Prints how many times as long a step takes with checkpointing as without, in bf16."""
    model, taken = full_model(name, "bf16"), {False: [], True: []}
    for block in range(blocks + 1):
        for checkpointing in (False, True) if block % 2 else (True, False):
            learning_parts.recomputing(model.denoiser, checkpointing)
            # The processor's, not the clock's: others on the machine would be measured, too.
            start = time.process_time()
            step(model, side, torch.bfloat16)
            if block:
                taken[checkpointing].append(time.process_time() - start)
    ratios = [on / off for on, off in zip(taken[True], taken[False], strict=True)]
    print(json.dumps({"ratio": round(median(ratios), 2), "of": [round(ratio, 2) for ratio in ratios]}))


def reckon(name: str, side: int) -> None:
    """Prints the estimates for each setting."""
    for precision, checkpointing in SETTINGS:
        model = full_model(name, precision, "meta")
        rehearsal, dtype = Rehearsal(model, ObjectiveConfig(), CPU), PRECISIONS[precision]
        found = rehearsal.step(latents_of(side), told_of(name), dtype, checkpointing)
        sizes = f"weights {found.weights / 1e9:.2f} GB, passing {found.passing / 1e9:.2f} GB"
        print(f"{name} {side} {precision}{'+' * checkpointing}: {sizes} (reckoned)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(TEXT), help="families")
    parser.add_argument("--side", type=int, default=512, help="of the picture, in pixels")
    parser.add_argument("--settings", default="fp32,fp32+,bf16,bf16+", help="+ is with checkpointing")
    parser.add_argument("--blocks", type=int, default=3, help="alternations; 0 = no times")
    parser.add_argument("--reckon", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    for name in given.only.split(","):
        if given.reckon:
            reckon(name, given.side)
        elif given.one == "times":
            times(name, given.side, given.blocks)
        elif given.one:
            one(name, given.side, given.one.rstrip("+"), given.one.endswith("+"))
        else:
            for asked in filter(None, given.settings.split(",")):
                found = in_process(name, given.side, asked)
                keep(name, given.side, {asked: found})
                print(name, given.side, asked, found, flush=True)
            if given.blocks:
                found = in_process(name, given.side, "times", given.blocks)
                keep(name, given.side, {"checkpointing takes": found})
                print(name, given.side, "checkpointing takes", found, flush=True)


def keep(name: str, side: int, found: dict) -> None:
    """Writes what was measured beside what is there."""
    held = json.loads(FOUND.read_text(encoding="utf-8"))
    held["families"].setdefault(name, {}).setdefault(str(side), {}).update(found)
    FOUND.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")


def in_process(name: str, side: int, what: str, blocks: int = 0) -> dict:
    command = [sys.executable, __file__, "--only", name, "--side", str(side), "--one", what, "--blocks", str(blocks)]
    # glibc gives freed memory back at once, so that the peak is the step's own; it costs time.
    environment = os.environ if what == "times" else os.environ | GLIBC
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
