"""The encoder of the Stable Diffusions: CLIP text encoders, one or several, for captions; a VAE for pictures."""

import torch
from diffusers import AutoencoderKL
from torch import nn

from .base import Conditioning
from .clip_text import ClipText
from .identities import hash_of, sampled_hash
from .vae import PictureEncoder


def stack_windows(entries: list[Conditioning], empty: Conditioning) -> Conditioning:
    """Text states [N, 77·k, width], shorter captions continued by windows without words; what has no axis of tokens
    ("pooled", [N, width]) side by side."""
    longest = max(entry["text"].shape[0] for entry in entries)
    window = empty["text"]
    continued = [[e["text"], *[window] * ((longest - e["text"].shape[0]) // window.shape[0])] for e in entries]
    text = {"text": torch.stack([torch.cat(states) for states in continued])}
    return text | {name: torch.stack([entry[name] for entry in entries]) for name in entries[0] if name != "text"}


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
        return stack_windows(entries, self._empty)

    def _encoded(self, caption: str) -> Conditioning:
        windows = [text.windows(caption) for text in self.texts.values()]
        # Tokenizers of one vocabulary cut alike; of two, the shorter goes on without words.
        most = max(map(len, windows))
        windows = [
            own + text.windows("") * (most - len(own)) for own, text in zip(windows, self.texts.values(), strict=True)
        ]
        answers = [text.states(torch.tensor(ids)) for text, ids in zip(self.texts.values(), windows, strict=True)]
        told = {"text": torch.cat([states for states, _ in answers], -1).flatten(0, 1).float().cpu()}
        pooled = [state for _, state in answers if state is not None]
        return told | ({"pooled": pooled[-1][0].float().cpu()} if pooled else {})
