"""FLUX.1 dev and schnell: a transformer over picture and text side by side, then in one stream; CLIP-L and T5."""

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from torch import nn

from ..errors import BadInput
from . import clip_text, flux_checkpoint, t5_text
from .base import TOLD, UNGUIDED, Conditioning, Encoder, Model
from .clip_t5_vae import ClipT5VaeEncoder
from .clip_vocabulary.tokenizer import clip_tokenizer
from .flow import Flow
from .folder import Parts
from .latent import LatentFamily
from .process import Process
from .sources import Source
from .stacking import continued_by_padding
from .t5_vocabulary.tokenizer import t5_tokenizer
from .weights import State, read_weights

DEV = {
    "num_train_timesteps": 1000,
    "shift": 3.0,
    "use_dynamic_shifting": True,
    "base_shift": 0.5,
    "max_shift": 1.15,
    "base_image_seq_len": 256,
    "max_image_seq_len": 4096,
}
"""The noise levels of dev, moved the more the larger the picture is."""
SCHNELL = {"num_train_timesteps": 1000, "shift": 1.0, "use_dynamic_shifting": False}
TOKENS = {True: 512, False: 256}
"""Of T5, by whether it is dev: what each was made for."""
CHANNELS = 64
"""Of a token: 2×2 latents of 16 channels."""
SIDE = 1024
"""Of the pictures it was made for, in pixels; its configuration does not tell."""

BLOCK = r"(single_)?transformer_blocks\.\d+\."
ATTENTION = r"attn\.(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out)"
FEED_FORWARD = r"(ff|ff_context)\.net\.(0\.proj|2)|proj_mlp|proj_out"
MODULATION = r"(norm|norm1|norm1_context)\.linear"


class Flux(LatentFamily):
    """Black Forest Labs 2024. What sets dev apart is that it is told the guidance that it was distilled from."""

    name = "flux"
    title = "FLUX.1"
    in_files = "Flux"
    pipeline = "FluxPipeline"
    comfyui = ("Flux", "FluxSchnell")
    captions = "T5-XXL (512 tokens; schnell 256), and the pooled state of CLIP-L"
    base_version = "flux1"
    architecture = "flux-1-dev"
    denoiser_class = FluxTransformer2DModel
    component = "transformer"
    latent_channels = 16
    patch = 2
    even_levels = True
    default_dialect = "diffusers"
    schedule = DEV
    conditioned_on = ("text", "pooled")
    text_parts = ("text_encoder", "text_encoder_2")
    tokenizers = {"tokenizer": clip_text.VOCABULARIES, "tokenizer_2": t5_text.VOCABULARIES}
    targets = {
        "attention": rf"{BLOCK}{ATTENTION}",
        "attention+ff": rf"{BLOCK}({ATTENTION}|{FEED_FORWARD})",
        "diffsynth": rf"{BLOCK}({ATTENTION}|{FEED_FORWARD}|{MODULATION})",
        "all": r".*",
    }

    def predict(
        self, denoiser: nn.Module, noisy: torch.Tensor, times: torch.Tensor, conditioning: Conditioning
    ) -> torch.Tensor:
        text, (height, width) = conditioning["text"], noisy.shape[-2:]
        answer = denoiser(
            hidden_states=packed(noisy),
            # It counts the time from 0 to 1, and multiplies it itself.
            timestep=times / 1000,
            guidance=conditioning.get("guidance"),
            pooled_projections=conditioning["pooled"],
            encoder_hidden_states=text,
            txt_ids=torch.zeros(text.shape[1], 3, device=noisy.device),
            img_ids=places(height // 2, width // 2, noisy.device),
            return_dict=False,
        )[0]
        return unpacked(answer, height, width)

    def stack(self, entries: list[Conditioning], empty: Conditioning) -> Conditioning:
        """The host's captions may have more than the usual tokens."""
        return continued_by_padding(entries, empty)

    def guided_by(self, denoiser: nn.Module) -> str:
        return TOLD if denoiser.config.guidance_embeds else UNGUIDED

    def described(self, denoiser: nn.Module) -> tuple[str, str]:
        return self.base_version, self.architecture if denoiser.config.guidance_embeds else "flux-1-schnell"

    def from_original(
        self, weights: State, encoder: Encoder, process: Process, resolution: int | None, name: str
    ) -> Model:
        config, state = flux_checkpoint.transformer_of(weights, f"the transformer of {name}")
        return self._over(state, config, None, encoder, process, name, name)

    def _read_file(self, source: Source) -> Parts:
        states, configs = flux_checkpoint.split(read_weights(source.path), source.path)
        schedule = DEV if configs["transformer"]["guidance_embeds"] else SCHNELL
        return Parts(states, configs | {"scheduler": schedule}, source.path)

    def _process(self, config: dict) -> Flow:
        return Flow(config, self.patch, self.even_levels)

    def _encoder(self, vae: AutoencoderKL, parts: Parts, source: Source) -> "FluxEncoder":
        if source.is_file:
            tokenizer, words = clip_tokenizer(None), t5_text.words_of(t5_tokenizer())
        else:
            tokenizer = clip_text.read_tokenizer(source.path / "tokenizer")
            words = t5_text.read_words(source.path / "tokenizer_2")
        states, configs, where = parts.states, parts.configs, source.path
        clip = clip_text.clip_text(
            states["text_encoder"], configs["text_encoder"], tokenizer, "text_encoder", where, False, False
        )
        length = TOKENS[bool(configs["transformer"].get("guidance_embeds"))]
        label = f"the text_encoder_2 of {where}"
        t5 = t5_text.t5_text(states["text_encoder_2"], configs["text_encoder_2"], words, length, self.title, label)
        return FluxEncoder(vae, [clip], t5)

    def _check(self, denoiser: nn.Module, where: str) -> None:
        if denoiser.config.in_channels != CHANNELS:
            raise BadInput(
                f"base: the transformer of {where} takes {denoiser.config.in_channels} channels a token instead of "
                f"{CHANNELS}: it is made for inpainting or editing (Fill, Canny, Depth), which is not trained here"
            )

    def _resolution(self, denoiser: nn.Module, encoder: Encoder) -> int:
        return SIDE


class FluxEncoder(ClipT5VaeEncoder):
    """Of T5 every state, of CLIP the pooled one alone."""

    def _encoded(self, caption: str) -> Conditioning:
        clip = self.clips[0]
        ids = torch.tensor(clip.windows(caption)[:1], device=clip.model.device)
        text, _ = self.t5.states(caption)
        return {"text": text, "pooled": clip.model(ids).pooler_output[0].float().cpu()}


def packed(latents: torch.Tensor) -> torch.Tensor:
    """[N, C, h, w] to tokens of 2×2 latents, [N, h/2·w/2, 4·C]; of a token first the channel, then row and column."""
    count, channels, height, width = latents.shape
    tokens = latents.reshape(count, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return tokens.reshape(count, (height // 2) * (width // 2), channels * 4)


def unpacked(tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The reverse of `packed`: [N, C, height, width]."""
    count, _, channels = tokens.shape
    latents = tokens.reshape(count, height // 2, width // 2, channels // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return latents.reshape(count, channels // 4, height, width)


def places(rows: int, columns: int, device: torch.device) -> torch.Tensor:
    """Where each token stands: (0, row, column), float32 [rows·columns, 3]."""
    found = torch.zeros(rows, columns, 3, device=device)
    found[..., 1] = torch.arange(rows, device=device)[:, None]
    found[..., 2] = torch.arange(columns, device=device)
    return found.reshape(-1, 3)
