"""What a text encoder that learns holds in memory, on the full shape of Stable Diffusion 1.5's CLIP-L, batch 4.

    python benchmarks/text_encoder.py

Counted is what torch's allocator hands out during one forward and backward pass, so that it is the same on every
machine.
"""

from functools import partial

import torch
from torch.profiler import ProfilerActivity, profile
from transformers import CLIPTextConfig, CLIPTextModel

from trainer_core.adapters import lora
from trainer_core.adapters.lora_config import LoRAConfig
from trainer_core.engine import learning_parts
from trainer_core.families import clip_tokens

WINDOW = 77


def full_encoder() -> CLIPTextModel:
    """Random weights; only their number and shape count."""
    config = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
    return CLIPTextModel(config).requires_grad_(False).train()


def peak_of(call) -> int:
    """The most bytes handed out during a call, beyond those before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        call()
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def step(encoder: CLIPTextModel, ids: torch.Tensor, dtype: torch.dtype) -> None:
    """Forward and backward; the gradients are let go of."""
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        told = clip_tokens.encode({"te": encoder}, {"te": ids}, WINDOW)
    told["text"].float().sum().backward()
    encoder.zero_grad(set_to_none=True)


def main() -> None:
    encoder, asked = full_encoder(), LoRAConfig(rank=16, text_encoder="on").of_text_encoder
    lora.inject(encoder, asked, lora.targeted_modules(encoder, asked, clip_tokens.TARGETS), 0, "te")
    trained = lora.parameters(encoder).values()
    print(f"{sum(p.numel() for p in trained):,} numbers train in {len(lora.layers(encoder))} modules")
    ids = torch.randint(0, 49_000, (4, WINDOW), generator=torch.Generator().manual_seed(0))
    for dtype in (torch.float32, torch.bfloat16):
        learning_parts.place(encoder, torch.device("cpu"), dtype)
        frozen = sum(p.numel() * p.element_size() for p in encoder.parameters() if not p.requires_grad)
        for checkpointing in (False, True):
            learning_parts.recomputing(encoder, checkpointing)
            step(encoder, ids, dtype)  # what is made once does not count
            peak = peak_of(partial(step, encoder, ids, dtype))
            print(
                f"{str(dtype).removeprefix('torch.')}, checkpointing {'on' if checkpointing else 'off'}: "
                f"weights {frozen / 1e6:.0f} MB, passing {peak / 1e6:.0f} MB"
            )


if __name__ == "__main__":
    main()
