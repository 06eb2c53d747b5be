"""The encoder of Kolors: ChatGLM3 for captions, a VAE for pictures."""

import logging
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from diffusers.pipelines.kolors.text_encoder import ChatGLMConfig, ChatGLMModel
from torch import nn

from ..errors import BadInput
from .base import Conditioning
from .identities import hash_of, sampled_hash
from .stacking import side_by_side
from .vae import PictureEncoder
from .weights import State, assemble

log = logging.getLogger(__name__)

LENGTH = 256
"""Tokens of a caption, the two that begin it included; shorter ones are padded in front."""


class ChatGlmVaeEncoder(PictureEncoder):
    """Implements `families.base.Encoder` with diffusers' modules; its text encoder does not train."""

    def __init__(self, vae: AutoencoderKL, text_encoder: ChatGLMModel, tokenizer):
        super().__init__(vae)
        self.text_encoder: ChatGLMModel | None = text_encoder
        self.tokenizer, self.text_encoders = tokenizer, {}
        config = text_encoder.config
        settings = [config.layernorm_epsilon, config.num_attention_heads, config.kv_channels, config.seq_length]
        weights = sampled_hash(vae.state_dict(), text_encoder.state_dict())
        self.identity = hash_of(weights, self.vae_settings, settings, LENGTH, tokenizer.get_vocab())

    @property
    def modules(self) -> list[nn.Module]:
        return [self.vae] if self.text_encoder is None else [self.vae, self.text_encoder]

    def forget_text(self) -> None:
        self.text_encoder = None

    @torch.no_grad()
    def encode_captions(self, captions: list[str]) -> list[Conditioning]:
        """States in front of the last layer, [256, width]; "pooled" is the last layer's of the last token, [width]."""
        return [self._encoded(caption) for caption in captions]

    def stack(self, entries: list[Conditioning]) -> Conditioning:
        return side_by_side(entries)

    def _encoded(self, caption: str) -> Conditioning:
        count = len(self.tokenizer(caption).input_ids)
        if count > LENGTH:
            log.warning(
                "caption %r has %d tokens; Kolors reads the first %d, the rest does not train",
                f"{caption[:60]}…",
                count,
                LENGTH,
            )
        told = self.tokenizer(caption, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt")
        place = self.text_encoder.device
        given = {name: told[name].to(place) for name in ("input_ids", "attention_mask", "position_ids")}
        # Without a cache, which only those need who go on writing.
        states = self.text_encoder(**given, output_hidden_states=True, use_cache=False, return_dict=True).hidden_states
        return {"text": states[-2][:, 0].float().cpu(), "pooled": states[-1][-1, 0].float().cpu()}


def chat_glm(state: State, config: dict, where: Path) -> ChatGLMModel:
    """The text encoder in the precision that it is stored in, as its six billion numbers want it.

    Raises:
        BadInput: the weights do not fit.
    """
    return assemble(ChatGLMModel, ChatGLMConfig(**config), state, None, f"the text_encoder of {where}")


def read_tokenizer(folder: Path):
    """
    Raises:
        BadInput: its files cannot be read, or what reads them is not installed.
    """
    try:
        from diffusers.pipelines.kolors.tokenizer import ChatGLMTokenizer

        return ChatGLMTokenizer.from_pretrained(folder, local_files_only=True)
    except ImportError as error:
        raise BadInput(
            f"base: {folder} is read with sentencepiece, which is not installed; install it: pip install sentencepiece"
        ) from error
    except Exception as error:  # sentencepiece raises nothing more exact
        raise BadInput(
            f"base: {folder} cannot be read as ChatGLM's tokenizer ({error}); is the download complete?"
        ) from None
