"""The encoder of HunyuanDiT: a Chinese BERT and mT5 for captions, a VAE for pictures."""

import torch
from diffusers import AutoencoderKL
from torch import nn

from .base import Conditioning
from .bert_text import BertText
from .identities import hash_of, sampled_hash
from .stacking import side_by_side
from .t5_text import T5Text
from .vae import PictureEncoder


class BertT5VaeEncoder(PictureEncoder):
    """Implements `families.base.Encoder` with diffusers' and transformers' modules; its text encoders do not learn."""

    def __init__(self, vae: AutoencoderKL, bert: BertText, t5: T5Text):
        super().__init__(vae)
        self.bert: BertText | None = bert
        self.t5: T5Text | None = t5
        self.text_encoders = {}
        states = [part.state_dict() for part in (vae, bert.model, t5.model)]
        self.identity = hash_of(sampled_hash(*states), self.vae_settings, *bert.settings, *t5.settings)

    @property
    def modules(self) -> list[nn.Module]:
        texts = [text.model for text in (self.bert, self.t5) if text is not None]
        return [self.vae, *texts]

    def forget_text(self) -> None:
        self.bert = self.t5 = None

    @torch.no_grad()
    def encode_captions(self, captions: list[str]) -> list[Conditioning]:
        """The states of both text encoders, "text" [77, width] and "text_t5" [256, width], and which of their tokens
        are words (1.0) or padding (0.0), "text_mask" and "text_t5_mask"."""
        return [self._encoded(caption) for caption in captions]

    def stack(self, entries: list[Conditioning]) -> Conditioning:
        return side_by_side(entries)

    def _encoded(self, caption: str) -> Conditioning:
        (text, mask), (text_t5, mask_t5) = self.bert.states(caption), self.t5.states(caption)
        return {"text": text, "text_mask": mask.float(), "text_t5": text_t5, "text_t5_mask": mask_t5.float()}
