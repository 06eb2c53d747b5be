"""The encoder that Stable Diffusion 3 and Flux share: CLIP text encoders beside T5 for captions, a VAE for pictures."""

from abc import abstractmethod

import torch
from diffusers import AutoencoderKL
from torch import nn

from .base import Conditioning
from .clip_text import ClipText
from .identities import hash_of, sampled_hash
from .stacking import side_by_side
from .t5_text import T5Text
from .vae import PictureEncoder


class ClipT5VaeEncoder(PictureEncoder):
    """Implements `families.base.Encoder` with diffusers' and transformers' modules; its text encoders do not learn.

    Args:
        clips: as many as the family has, in its order.
        t5: None where the base brings none.
    """

    def __init__(self, vae: AutoencoderKL, clips: list[ClipText], t5: T5Text | None):
        super().__init__(vae)
        self.clips, self.t5, self.text_encoders = clips, t5, {}
        states = [vae.state_dict(), *(clip.weights for clip in clips), *([t5.model.state_dict()] if t5 else [])]
        settings = [part for text in (*clips, *([t5] if t5 else [])) for part in text.settings]
        self.identity = hash_of(sampled_hash(*states), self.vae_settings, *settings)

    @property
    def texts(self) -> list[nn.Module]:
        """What captions go through."""
        return [clip.model for clip in self.clips] + ([self.t5.model] if self.t5 else [])

    @property
    def modules(self) -> list[nn.Module]:
        return [self.vae, *self.texts]

    def forget_text(self) -> None:
        self.clips, self.t5 = [], None

    @torch.no_grad()
    def encode_captions(self, captions: list[str]) -> list[Conditioning]:
        return [self._encoded(caption) for caption in captions]

    def stack(self, entries: list[Conditioning]) -> Conditioning:
        return side_by_side(entries)

    @abstractmethod
    def _encoded(self, caption: str) -> Conditioning:
        """A caption's conditioning, float32 on the CPU, of the same shapes for every caption."""
