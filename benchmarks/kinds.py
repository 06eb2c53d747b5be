"""What a step costs with each kind of adapter, as a ratio to LoRA, in alternation in one process.

    python benchmarks/kinds.py [--rounds 3] [--targets attention]

Forward and backward of one latent of 32×32 through a UNet of Stable Diffusion 1.5's shape with random weights, fp32,
rank 16, on one thread. Counted is the processor's time, of which other work on the machine takes less than of the
clock's. Numbers that train are counted, too.
"""

import argparse
import statistics
import time

import torch
from diffusers import UNet2DConditionModel

from trainer_core.adapters import lora
from trainer_core.adapters.lora_config import SHAPED_BY, LoRAConfig
from trainer_core.families.registry import FAMILIES

UNET = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}


def step(unet: UNet2DConditionModel) -> float:
    """Seconds of the processor."""
    noisy, words = torch.randn(1, 4, 32, 32), torch.randn(1, 77, 768)
    began = time.process_time()
    unet(noisy, torch.tensor([500]), words).sample.square().mean().backward()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--targets", default="attention")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**UNET)
    seconds: dict[str, list[float]] = {kind: [] for kind in SHAPED_BY}
    numbers = {}
    for _ in range(given.rounds + 1):
        for kind in SHAPED_BY:
            config = LoRAConfig(kind=kind, targets=[given.targets])
            paths = lora.targeted_modules(unet, config, FAMILIES["sd15"].targets)
            lora.inject(unet, config, paths, seed=0)
            numbers[kind] = sum(parameter.numel() for parameter in lora.parameters(unet).values())
            seconds[kind].append(step(unet))
            lora.remove(unet)
    for kind, taken in seconds.items():
        # The first round warms the caches up.
        ratios = [own / other for own, other in zip(taken[1:], seconds["lora"][1:], strict=True)]
        print(f"{kind}: {statistics.median(ratios):.2f} of LoRA's time, {numbers[kind]:,} numbers train")


if __name__ == "__main__":
    main()
