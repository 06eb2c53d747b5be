"""The encoder of Stable Diffusion 1: CLIP-L for captions, an AutoencoderKL for pictures."""

import torch
from diffusers import AutoencoderKL
from transformers import CLIPTextModel, CLIPTokenizer

from .base import Conditioning
from .identities import hash_of, sampled_hash


def stack_windows(entries: list[Conditioning], empty: Conditioning) -> Conditioning:
    """Text states [N, 77·k, width]; shorter captions are continued by windows without words."""
    longest = max(entry["text"].shape[0] for entry in entries)
    window = empty["text"]
    continued = [[e["text"], *[window] * ((longest - e["text"].shape[0]) // window.shape[0])] for e in entries]
    return {"text": torch.stack([torch.cat(states) for states in continued])}


class ClipVaeEncoder:
    """Implements `families.base.Encoder` with diffusers' and transformers' modules."""

    def __init__(self, vae: AutoencoderKL, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer):
        self.vae, self.text_encoder, self.tokenizer = vae, text_encoder, tokenizer
        self.pixel_step = 2 ** (len(vae.config.block_out_channels) - 1)
        self.identity = self._identity()
        self._empty_window: torch.Tensor | None = None

    @property
    def device(self) -> torch.device:
        return next(self.vae.parameters()).device

    def to(self, device: torch.device | str) -> "ClipVaeEncoder":
        self.vae.to(device)
        self.text_encoder.to(device)
        return self

    @torch.no_grad()
    def encode_pictures(self, pixels: torch.Tensor) -> torch.Tensor:
        """The posterior's mode, times the VAE's scaling factor: the same picture always gives the same latents."""
        images = pixels.to(self.device).permute(0, 3, 1, 2) * 2 - 1
        latents = self.vae.encode(images).latent_dist.mode()
        shift = getattr(self.vae.config, "shift_factor", None) or 0.0
        return ((latents - shift) * self.vae.config.scaling_factor).float().cpu()

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        shift = getattr(self.vae.config, "shift_factor", None) or 0.0
        scaled = latents.to(self.device, torch.float32) / self.vae.config.scaling_factor + shift
        images = self.vae.decode(scaled).sample
        return (images / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).float().cpu()

    @torch.no_grad()
    def encode_captions(self, captions: list[str]) -> list[Conditioning]:
        """Last hidden states, [77·k, width] for a caption that needs k windows of 75 tokens."""
        if self._empty_window is None:
            self._empty_window = self._encode_ids(self._windows(""))
        return [{"text": self._encode_ids(self._windows(caption))} for caption in captions]

    def stack(self, entries: list[Conditioning]) -> Conditioning:
        if self._empty_window is None:
            self.encode_captions([])
        return stack_windows(entries, {"text": self._empty_window})

    def _identity(self) -> str:
        """Over the weights and every setting that changes latents or text states without changing a weight's shape.

        CLIP's own eos_token_id is none of them: it chooses the pooled state, which is not used here, and old
        configurations have it wrong.
        """
        # Versions of transformers differ in this prefix.
        text_state = {key.removeprefix("text_model."): value for key, value in self.text_encoder.state_dict().items()}
        vae, text, words = self.vae.config, self.text_encoder.config, self.tokenizer
        return hash_of(
            sampled_hash(self.vae.state_dict(), text_state),
            [vae.scaling_factor, getattr(vae, "shift_factor", None) or 0.0, vae.norm_num_groups, vae.act_fn],
            [text.hidden_act, text.num_attention_heads, text.layer_norm_eps],
            [words.bos_token_id, words.eos_token_id, words.pad_token_id, words.model_max_length],
            words.get_vocab(),
        )

    def _windows(self, caption: str) -> list[list[int]]:
        tokens = self.tokenizer
        ids = tokens(caption, add_special_tokens=False, verbose=False).input_ids
        room = tokens.model_max_length - 2
        windows = [ids[i : i + room] for i in range(0, len(ids), room)] or [[]]
        framed = [[tokens.bos_token_id, *window, tokens.eos_token_id] for window in windows]
        return [window + [tokens.pad_token_id] * (tokens.model_max_length - len(window)) for window in framed]

    def _encode_ids(self, windows: list[list[int]]) -> torch.Tensor:
        # No attention mask: Stable Diffusion was trained with the causal mask alone, padding attended to.
        states = self.text_encoder(torch.tensor(windows, device=self.device)).last_hidden_state
        return states.flatten(0, 1).float().cpu()
