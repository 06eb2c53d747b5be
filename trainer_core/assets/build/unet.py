"""scion-tiny's UNet2DConditionModel: epsilon prediction on 12×12 latents, conditioned on the text encoder's states."""

import copy
import random
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTokenizer

from ..scenes import COLOURS, RADIUS, SHAPES, Scene, varied_caption
from .progress import Progress, warm_cosine
from .text_encoder import WIDTH
from .vae import cover_pool, paint

CHANNELS = (64, 128)


def new(channels=CHANNELS) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=12,
        block_out_channels=channels,
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=WIDTH,
        attention_head_dim=8,
        norm_num_groups=32,
    )


def noise_schedule() -> DDPMScheduler:
    """Stable Diffusion 1's: scaled linear betas 0.00085 to 0.012 over 1,000 steps, epsilon prediction."""
    return DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
    )


@torch.no_grad()
def latent_pool(vae: AutoencoderKL, places: int, seed: int) -> tuple[torch.Tensor, list[Scene]]:
    """Every shape, size and colour pair at `places` places: scaled latents [N, 4, 12, 12] and what they show."""
    latents, scenes = [], []
    names = [(a, b) for a in COLOURS for b in COLOURS if a != b]
    table = {name: torch.tensor(rgb, dtype=torch.float32) / 127.5 - 1 for name, rgb in COLOURS.items()}
    kinds = [(shape, size) for shape in SHAPES for size in RADIUS]
    for colours in names:
        pair = torch.stack([table[colours[0]], table[colours[1]]])
        covers = cover_pool(SHAPES, places, seed := seed + 1)
        pixels = paint(covers, pair.expand(len(covers), 2, 3))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            latents += [vae.encode(part).latent_dist.mode().float() for part in pixels.split(48)]
        scenes += [Scene(shape, *colours, size) for shape, size in kinds for _ in range(places)]
    return torch.cat(latents) * vae.config.scaling_factor, scenes


@torch.no_grad()
def caption_states(text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, captions: list[str]) -> torch.Tensor:
    """Hidden states [N, 77, width]."""
    ids = tokenizer(captions, padding="max_length", truncation=True, max_length=77, return_tensors="pt").input_ids
    return text_encoder(ids).last_hidden_state


def weights(snr: torch.Tensor, late: bool) -> torch.Tensor:
    """Of the squared error in epsilon: min-SNR-5 at first (Hang et al. 2023, eq. 7), then (min(snr, 5) + 1) / snr.

    In terms of the picture the latter counts at least 1 however much noise there is. Epsilon's own error hardly feels
    the timesteps near pure noise, yet it is there that sampling decides the colour of the background.
    """
    capped = snr.clamp(max=5)
    return (capped + 1) / snr if late else capped / snr


def train(vae, text_encoder, tokenizer, steps: int, folder: Path, seed: int = 3, batch: int = 32, places: int = 12):
    """Denoising (Ho et al. 2020, eq. 14); one caption in ten is empty, for guidance.

    Every 500 steps the running average of the weights is kept in `folder`, and training goes on from there if it was
    interrupted. Returns that average.
    """
    latents, scenes = latent_pool(vae, places, seed * 1000)
    print(f"UNet: {len(latents)} latents, mean {latents.mean():.3f}, deviation {latents.std():.3f}", flush=True)
    begin = int((folder / "step.txt").read_text()) if (folder / "step.txt").exists() else 0
    torch.manual_seed(seed + begin)
    rng = random.Random(seed + begin)
    model = (UNet2DConditionModel.from_pretrained(folder) if begin else new()).train()
    model = model.to(memory_format=torch.channels_last)
    average = copy.deepcopy(model).requires_grad_(False)
    schedule = noise_schedule()
    snr = schedule.alphas_cumprod / (1 - schedule.alphas_cumprod)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    report = Progress("UNet", steps, begin=begin)
    for step in range(begin, steps):
        optimizer.param_groups[0]["lr"] = 2e-3 * min(warm_cosine(step, steps), (step - begin + 1) / 100)
        chosen = torch.randint(len(latents), (batch,))
        captions = ["" if rng.random() < 0.1 else varied_caption(scenes[i], rng) for i in chosen]
        states = caption_states(text_encoder, tokenizer, captions)
        clean, noise = latents[chosen], torch.randn(batch, *latents.shape[1:])
        timesteps = torch.randint(1000, (batch,))
        noisy = schedule.add_noise(clean, noise, timesteps).contiguous(memory_format=torch.channels_last)
        error = F.mse_loss(model(noisy, timesteps, states).sample, noise, reduction="none").mean((1, 2, 3))
        loss = (error * weights(snr[timesteps], late=step >= 0.3 * steps)).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        keep = min(0.999, (step - begin + 1) / (step - begin + 10))
        torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - keep)
        report(step, error=error.mean().detach(), weighted=loss.detach())
        if (step + 1) % 500 == 0:
            average.save_pretrained(folder)
            (folder / "step.txt").write_text(str(step + 1))
    return average.eval().to(memory_format=torch.contiguous_format)
