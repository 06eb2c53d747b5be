"""The encoder of the Stable Diffusions: CLIP text encoders, one or several, for captions; a VAE for pictures."""

from collections.abc import Mapping

import torch
from diffusers import AutoencoderKL
from torch import nn

from . import clip_tokens
from .base import Conditioning, Tokens
from .clip_text import ClipText
from .identities import hash_of, sampled_hash
from .stacking import continued_by_windows
from .vae import PictureEncoder


class ClipVaeEncoder(PictureEncoder):
    """Implements `families.base.Encoder` with diffusers' and transformers' modules.

    Args:
        texts: by the name that their LoRA has in files. Their states stand side by side in a caption's conditioning;
            the last one that projects its pooled state gives that, too.
    """

    def __init__(self, vae: AutoencoderKL, texts: dict[str, ClipText]):
        super().__init__(vae)
        self.texts = texts
        weights = [text.weights for text in texts.values()]
        settings = [part for text in texts.values() for part in text.settings]
        self.identity = hash_of(sampled_hash(vae.state_dict(), *weights), self.vae_settings, *settings)
        self._empty: Conditioning | None = None

    @property
    def text_encoders(self) -> dict[str, nn.Module]:
        return {name: text.model for name, text in self.texts.items()}

    @property
    def modules(self) -> list[nn.Module]:
        return [self.vae, *self.text_encoders.values()]

    def forget_text(self) -> None:
        self.encode_captions([])  # so that the empty caption, by which others are continued, is there
        self.texts = {}

    @torch.no_grad()
    def encode_captions(self, captions: list[str]) -> list[Conditioning]:
        """Text states, [77·k, width] for a caption that needs k windows of 75 tokens; "pooled" is of the first."""
        if self._empty is None:
            self._empty = self._encoded("")
        return [self._encoded(caption) for caption in captions]

    def stack(self, entries: list[Conditioning]) -> Conditioning:
        if self._empty is None:
            self.encode_captions([])
        return continued_by_windows(entries, self._empty)

    def tokens(self, captions: list[str]) -> list[Tokens]:
        found = []
        for caption in captions:
            windows = {name: text.windows(caption, self.words) for name, text in self.texts.items()}
            # Tokenizers of one vocabulary cut alike; of two, the shorter goes on without words.
            most = max(map(len, windows.values()))
            for name, own in windows.items():
                own += self.texts[name].windows("") * (most - len(own))
            found.append({name: torch.tensor(own).flatten() for name, own in windows.items()})
        return found

    def ids(self, text: str) -> dict[str, list[int]]:
        return {name: encoder.ids(text) for name, encoder in self.texts.items()}

    def stack_tokens(self, entries: list[Tokens]) -> Tokens:
        return clip_tokens.stack_tokens(entries, self.tokens([""])[0])

    def encode_tokens(self, tokens: Tokens, modules: Mapping[str, nn.Module] | None = None) -> Conditioning:
        first = next(iter(self.texts.values()))
        layer, normed = first.layer
        return clip_tokens.encode(
            modules or self.text_encoders, tokens, first.tokenizer.model_max_length, layer, normed
        )

    def _encoded(self, caption: str) -> Conditioning:
        (tokens,) = self.tokens([caption])
        place = next(iter(self.text_encoders.values())).device
        told = self.encode_tokens({name: ids[None].to(place) for name, ids in tokens.items()})
        return {name: state[0].float().cpu() for name, state in told.items()}
