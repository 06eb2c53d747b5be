"""scion-tiny's AutoencoderKL: 96×96 pixels to 12×12 latents of four channels and back."""

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch.nn import functional as F

from ..scenes import CANVAS, COLOURS, JITTER, NEW_SHAPES, RADIUS, SHAPES, Scene, coverage
from .progress import Progress, warm_cosine

SCALING = 0.18215
"""Stable Diffusion 1's latent scale, which hosts take for granted: the VAE is made to fit it, not the reverse."""


def new() -> AutoencoderKL:
    # 64 channels everywhere: with 32, each of the 32 norm groups holds one channel, whose mean the norm takes away, and
    # with it the flat colours that this world is made of.
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(64, 64, 64, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=32,
        sample_size=CANVAS,
        scaling_factor=SCALING,
    )


def cover_pool(shapes, places: int, seed: int) -> torch.Tensor:
    """Coverage maps of every shape and size at random places: float32 [shapes × sizes × places, 96, 96]."""
    rng = np.random.default_rng(seed)
    covers = []
    for shape in shapes:
        for size in RADIUS:
            for x, y in rng.uniform(-JITTER[size], JITTER[size], (places, 2)):
                covers.append(coverage(Scene(shape, "red", "white", size, x, y)))
    return torch.from_numpy(np.stack(covers))


def colour_pairs() -> torch.Tensor:
    """Every pair of different colours, front and back: float32 [56, 2, 3] in -1..1."""
    table = torch.tensor(list(COLOURS.values()), dtype=torch.float32) / 127.5 - 1
    return torch.stack([torch.stack([a, b]) for i, a in enumerate(table) for j, b in enumerate(table) if i != j])


def paint(cover: torch.Tensor, pair: torch.Tensor) -> torch.Tensor:
    """Pictures from covers [N, H, W] and colours [N, 2, 3]: float32 [N, 3, H, W] in -1..1."""
    front, back = pair[:, 0, :, None, None], pair[:, 1, :, None, None]
    return back + cover[:, None] * (front - back)


def train(steps: int, seed: int = 1, batch: int = 8) -> AutoencoderKL:
    """L1 + L2 reconstruction; the first three quarters on 64×64 windows, then whole scenes.

    The decoder reads the latents with noise of a tenth of their deviation, which makes it forgiving of a denoiser's
    errors. The posterior is not sampled: at its initial deviation of 1 that noise drowns the signal for hundreds of
    steps (squared error 0.28 after 120 steps, against 0.18 without).
    """
    torch.manual_seed(seed)
    model = new().train()
    # The VAE learns the new shapes too: it stands for a VAE that has seen the world, the UNet for a model that has not.
    covers, pairs = cover_pool((*SHAPES, *NEW_SHAPES), 64, seed), colour_pairs()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warm_cosine(step, steps))
    report = Progress("VAE", steps)
    for step in range(steps):
        whole = step >= steps * 3 // 4
        n = batch // 2 if whole else batch
        pixels = paint(covers[torch.randint(len(covers), (n,))], pairs[torch.randint(len(pairs), (n,))])
        if not whole:
            top, left = (int(v) for v in torch.randint(CANVAS - 64 + 1, (2,)))
            pixels = pixels[:, :, top : top + 64, left : left + 64]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            latents = model.encode(pixels).latent_dist.mode()
            noisy = latents + 0.1 * latents.detach().std() * torch.randn_like(latents)
            decoded = model.decode(noisy).sample.float()
        squared = F.mse_loss(decoded, pixels)
        loss = squared + F.l1_loss(decoded, pixels) + 1e-4 * latents.float().square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        report(step, squared=squared.detach(), deviation=latents.detach().float().std())
    return model.eval().requires_grad_(False)


@torch.no_grad()
def fit_scale(model: AutoencoderKL, seed: int = 2) -> AutoencoderKL:
    """Folds an affine map into the 1×1 convolutions around the latents, so that latents × 0.18215 have mean 0 and
    deviation 1 in each channel, as the noise schedule expects; and makes the posterior sharp (deviation 0.0025)."""
    generator = torch.Generator().manual_seed(seed)
    covers, pairs = cover_pool(SHAPES, 24, seed), colour_pairs()
    chosen = torch.randint(len(pairs), (len(covers),), generator=generator)
    latents = torch.cat(
        [
            model.encode(paint(c, pairs[p])).latent_dist.mode()
            for c, p in zip(covers.split(32), chosen.split(32), strict=True)
        ]
    )
    shift = latents.mean((0, 2, 3))
    scale = 1 / (SCALING * latents.std((0, 2, 3)))
    before, after = model.quant_conv, model.post_quant_conv
    # decode first: its weight takes z' back to z = z' / scale + shift
    after.bias += after.weight[:, :, 0, 0] @ shift
    after.weight /= scale[None, :, None, None]
    before.bias[:4] = (before.bias[:4] - shift) * scale
    before.weight[:4] *= scale[:, None, None, None]
    before.weight[4:] = 0
    before.bias[4:] = -12
    return model
