"""What the Stable Diffusion families share: CLIP, checkpoints that are a single file, and the host's models."""

from collections.abc import Mapping

from diffusers import AutoencoderKL
from torch import nn

from . import clip_tokens, sd_checkpoint
from .base import Conditioning, Encoder, Model, Tokens
from .clip_text import VOCABULARIES, clip_text, layer_of, read_tokenizer
from .clip_vae import ClipVaeEncoder
from .clip_vocabulary.tokenizer import clip_tokenizer
from .folder import Parts
from .process import Process
from .sources import Source
from .stacking import continued_by_windows
from .unet import UNetFamily
from .weights import State, read_weights

SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "clip_sample": False,
    "steps_offset": 1,
    "prediction_type": "epsilon",
}
"""Stable Diffusion's noise schedule, for checkpoints that are a single file and bring no configuration."""


class StableDiffusionFamily(UNetFamily):
    """A family says which text encoders it has, and how their states are taken."""

    texts: dict[str, str]
    """The text encoders: a name that LoRA files have for each, and its folder."""
    pads: tuple[str | None, ...]
    """The tokens that continue a short caption of a checkpoint that brings no tokenizers; None = the end token."""
    penultimate: bool
    """Whether text states are those in front of the last layer."""
    layout: sd_checkpoint.Layout
    """Of its checkpoints."""
    schedule = SCHEDULE
    text_targets = clip_tokens.TARGETS

    @property
    def text_parts(self) -> tuple[str, ...]:
        return tuple(self.texts.values())

    @property
    def tokenizers(self) -> dict:
        return {part.replace("text_encoder", "tokenizer"): VOCABULARIES for part in self.text_parts}

    def from_original(
        self, weights: State, encoder: Encoder, process: Process, resolution: int | None, name: str
    ) -> Model:
        config, unet = sd_checkpoint.unet_of(weights, self.layout, f"the UNet of {name}")
        if resolution:
            config["sample_size"] = resolution // encoder.pixel_step
        return self._over(unet, config, None, encoder, process, name, name)

    def encode_tokens(
        self, tokens: Tokens, modules: Mapping[str, nn.Module], length: int, layer: int | None
    ) -> Conditioning:
        own, normed = layer_of(self.penultimate)
        return clip_tokens.encode(modules, tokens, length, own if layer is None else layer, normed)

    def stack(self, entries: list[Conditioning], empty: Conditioning) -> Conditioning:
        return continued_by_windows(entries, empty)

    def _read_file(self, source: Source) -> Parts:
        states, configs, marks = sd_checkpoint.split(read_weights(source.path), source.path, self.layout)
        return Parts(states, configs | {"scheduler": self.schedule | marks}, source.path)

    def _encoder(self, vae: AutoencoderKL, parts: Parts, source: Source) -> ClipVaeEncoder:
        texts = {}
        for (name, part), pad in zip(self.texts.items(), self.pads, strict=True):
            if source.is_file:
                tokenizer = clip_tokenizer(pad)
            else:
                tokenizer = read_tokenizer(source.path / part.replace("text_encoder", "tokenizer"))
            state, config = parts.states[part], parts.configs[part]
            projects = part == self.layout.projects
            texts[name] = clip_text(state, config, tokenizer, part, source.path, self.penultimate, projects)
        return ClipVaeEncoder(vae, texts)
