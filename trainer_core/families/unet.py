"""What families share whose denoiser is a UNet2DConditionModel."""

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from ..errors import BadInput
from .base import Conditioning
from .diffusion import Diffusion
from .latent import LatentFamily

ATTENTION = r"(.*\.)?attn\d\.(to_q|to_k|to_v|to_out\.0)"


class UNetFamily(LatentFamily):
    """A family says what its folders hold, and makes the encoder of its own; the rest is here."""

    denoiser_class = UNet2DConditionModel
    component = "unet"
    latent_channels = 4
    targets = {
        "attention": ATTENTION,
        "attention+ff": rf"({ATTENTION}|(.*\.)?ff\.net\.(0\.proj|2))",
        "all": r".*",
    }

    def predict(
        self, denoiser: nn.Module, noisy: torch.Tensor, times: torch.Tensor, conditioning: Conditioning
    ) -> torch.Tensor:
        added = None
        if self.sized:
            added = {"text_embeds": conditioning["pooled"], "time_ids": conditioning["time_ids"]}
        text = conditioning["text"]
        return denoiser(noisy, times, encoder_hidden_states=text, added_cond_kwargs=added, return_dict=False)[0]

    def text_width(self, denoiser: nn.Module) -> int:
        # Kolors' UNet itself narrows what ChatGLM says.
        return denoiser.config.encoder_hid_dim or denoiser.config.cross_attention_dim

    def _process(self, config: dict) -> Diffusion:
        return Diffusion(config)

    def _check(self, denoiser: nn.Module, where: str) -> None:
        if denoiser.config.in_channels != self.latent_channels:
            raise BadInput(
                f"base: the UNet of {where} takes {denoiser.config.in_channels} channels instead of "
                f"{self.latent_channels}: it is made for inpainting or editing, which is not trained here"
            )
        if (denoiser.config.addition_embed_type == "text_time") != self.sized:
            raise BadInput(f"base: the UNet of {where} is told other things of a picture than {self.title}'s is")
