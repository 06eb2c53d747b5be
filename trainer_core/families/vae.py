"""Pictures through an AutoencoderKL: to latents, scaled as its denoiser expects them, and back."""

from typing import Self

import torch
from diffusers import AutoencoderKL
from torch import nn

from .identities import hash_of
from .new_words import NO_WORDS
from .text_precision import set_precision


class PictureEncoder:
    """The half of `families.base.Encoder` that pictures need; the VAE computes in its own precision, float32."""

    identity: str
    words = NO_WORDS

    def __init__(self, vae: AutoencoderKL):
        self.vae = vae
        self.pixel_step = 2 ** (len(vae.config.block_out_channels) - 1)

    @property
    def modules(self) -> list[nn.Module]:
        """All that it encodes with."""
        return [self.vae]

    def to(self, device: torch.device | str, text: bool = True) -> Self:
        for module in self.modules:
            if text or module is self.vae:
                module.to(device)
        return self

    def set_text_precision(self, precision: str) -> None:
        """See `families.base.Encoder`."""
        for module in self.modules:
            if module is not self.vae:
                set_precision(module, precision)
        if precision != "auto":
            self.identity = hash_of(self.identity, precision)

    @property
    def device(self) -> torch.device:
        return next(self.vae.parameters()).device

    @property
    def vae_settings(self) -> list:
        """What changes latents without changing a weight's shape."""
        config = self.vae.config
        return [config.scaling_factor, self._shift, config.norm_num_groups, config.act_fn]

    @property
    def _shift(self) -> float:
        return getattr(self.vae.config, "shift_factor", None) or 0.0

    @torch.no_grad()
    def encode_pictures(self, pixels: torch.Tensor) -> torch.Tensor:
        """The posterior's mode, times the VAE's scaling factor: the same picture always gives the same latents."""
        images = pixels.to(self.device).permute(0, 3, 1, 2) * 2 - 1
        latents = self.vae.encode(images).latent_dist.mode()
        return ((latents - self._shift) * self.vae.config.scaling_factor).float().cpu()

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        scaled = latents.to(self.device, torch.float32) / self.vae.config.scaling_factor + self._shift
        images = self.vae.decode(scaled).sample
        return (images / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).float().cpu()
