"""What families share whose denoiser is a UNet2DConditionModel beside an AutoencoderKL."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn

from ..errors import BadInput
from .base import Conditioning, Encoder, Family, Model
from .diffusion import Diffusion
from .folder import Parts, read_parts
from .identities import hash_of, sampled_hash, unusual_settings
from .sources import Source
from .weights import State, assemble

ATTENTION = r"(.*\.)?attn\d\.(to_q|to_k|to_v|to_out\.0)"
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


class UNetFamily(Family):
    """A family says what its folders hold, and makes the encoder of its own; the rest is here."""

    text_parts: tuple[str, ...]
    """The text encoders' folders."""
    tokenizers: Mapping[str, Iterable[tuple[str, ...]]]
    """The tokenizers' folders, and the sets of files of which each must have one."""
    component = "unet"
    latent_channels = 4
    targets = {
        "attention": ATTENTION,
        "attention+ff": rf"({ATTENTION}|(.*\.)?ff\.net\.(0\.proj|2))",
        "all": r".*",
    }

    def load(self, source: Source, dtype: torch.dtype) -> Model:
        if source.is_file:
            parts = self._read_file(source)
        else:
            parts = read_parts(source.path, ("unet", "vae", *self.text_parts), self.tokenizers, self.title)
        vae_state = current_vae_names(parts.states["vae"])
        label = f"the vae of {source.path}"
        vae = assemble(AutoencoderKL, parts.configs["vae"], vae_state, torch.float32, label)
        encoder = self._encoder(vae, parts, source)
        try:
            diffusion = Diffusion(parts.configs["scheduler"])
        except ValueError as error:
            raise BadInput(f"base: {source.path}: {error}") from None
        unet = parts.states["unet"], parts.configs["unet"]
        return self._over(*unet, dtype, encoder, diffusion, source.name, str(source.path))

    def predict(
        self, denoiser: nn.Module, noisy: torch.Tensor, timesteps: torch.Tensor, conditioning: Conditioning
    ) -> torch.Tensor:
        added = None
        if self.sized:
            added = {"text_embeds": conditioning["pooled"], "time_ids": conditioning["time_ids"]}
        text = conditioning["text"]
        return denoiser(noisy, timesteps, encoder_hidden_states=text, added_cond_kwargs=added, return_dict=False)[0]

    @abstractmethod
    def _encoder(self, vae: AutoencoderKL, parts: Parts, source: Source) -> Encoder:
        """
        Raises:
            BadInput: the text encoders or tokenizers do not fit.
        """

    def _read_file(self, source: Source) -> Parts:
        """A checkpoint's parts.

        Raises:
            BadInput: the family has no such files, or this is none.
        """
        raise BadInput(f"base: {source.path} is one file; {self.title} is read from a diffusers folder")

    def _over(
        self,
        weights: State,
        config: dict,
        dtype: torch.dtype | None,
        encoder: Encoder,
        diffusion: Diffusion,
        name: str,
        where: str,
    ) -> Model:
        """The base over its UNet's weights in diffusers' names."""
        unet = assemble(UNet2DConditionModel, config, weights, dtype, f"the unet of {where}")
        if unet.config.in_channels != self.latent_channels:
            raise BadInput(
                f"base: the UNet of {where} takes {unet.config.in_channels} channels instead of "
                f"{self.latent_channels}: it is made for inpainting or editing, which is not trained here"
            )
        if (unet.config.addition_embed_type == "text_time") != self.sized:
            raise BadInput(f"base: the UNet of {where} is told other things of a picture than {self.title}'s is")
        side = unet.config.sample_size * encoder.pixel_step
        settings = unusual_settings(UNet2DConditionModel, unet.config)
        identity = hash_of(sampled_hash(weights), settings, diffusion.identity, encoder.identity)
        return Model(self, unet, encoder, diffusion, side, identity, name)


def current_vae_names(state: State) -> State:
    """A VAE's weights with its attention named as diffusers names it now.

    The folders of the first Stable Diffusions have older names, and in some the matrices are still 1×1 convolutions.
    """
    renamed = {}
    for key, tensor in state.items():
        if ".attentions." in key:
            path, _, kind = key.rpartition(".")
            place, _, name = path.rpartition(".")
            key = f"{place}.{OLD_ATTENTION.get(name, name)}.{kind}"
            if tensor.ndim == 4 and tensor.shape[2:] == (1, 1):
                tensor = tensor[:, :, 0, 0]
        renamed[key] = tensor
    return renamed
