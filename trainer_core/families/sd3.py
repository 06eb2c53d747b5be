"""Stable Diffusion 3 and 3.5: two CLIPs and T5, and a transformer in which picture and text are two streams."""

import json
import logging

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from torch import nn
from torch.nn import functional as F

from ..errors import BadInput
from . import sd3_checkpoint
from .base import Conditioning, Encoder, Model
from .clip_t5_vae import ClipT5VaeEncoder
from .clip_text import VOCABULARIES, ClipText, clip_text, read_tokenizer
from .clip_vocabulary.tokenizer import clip_tokenizer
from .flow import Flow
from .folder import Parts, read_parts
from .latent import LatentFamily
from .process import Process
from .sources import Source
from .stacking import continued_by_padding
from .t5_text import VOCABULARIES as T5_VOCABULARIES
from .t5_text import T5Text, read_words, t5_text, words_of
from .t5_vocabulary.tokenizer import t5_tokenizer
from .weights import State, read_weights

log = logging.getLogger(__name__)

BLOCK = r"transformer_blocks\.\d+\."
ATTENTION = BLOCK + r"attn2?\.(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out)"
FEED_FORWARD = BLOCK + r"ff(_context)?\.net\.(0\.proj|2)"
MODULATION = BLOCK + r"norm1(_context)?\.linear"
T5_LENGTH = 256
"""Tokens that T5 gives, as diffusers' pipeline has it; zeros stand for them where a base brings no T5."""
CLIPS = {"text_encoder": None, "text_encoder_2": "!"}
"""The folders of both CLIPs, and the tokens that continue a short caption; None = the end token."""
T5 = "text_encoder_3"


class Sd3Encoder(ClipT5VaeEncoder):
    """The states of both CLIPs side by side, widened by zeros, and T5's behind them.

    Args:
        width: of a text state, as the transformer takes it.
    """

    def __init__(self, vae: AutoencoderKL, clips: list[ClipText], t5: T5Text | None, width: int):
        super().__init__(vae, clips, t5)
        self.width = width

    def _encoded(self, caption: str) -> Conditioning:
        states, pooled = [], []
        for clip in self.clips:
            ids = torch.tensor(clip.windows(caption)[:1], device=clip.model.device)
            told = clip.model(ids, output_hidden_states=True)
            states.append(told.hidden_states[-2][0].float().cpu())
            pooled.append(told.text_embeds[0].float().cpu())
        words = F.pad(torch.cat(states, -1), (0, self.width - sum(state.shape[-1] for state in states)))
        sentence = self.t5.states(caption)[0] if self.t5 else torch.zeros(T5_LENGTH, self.width)
        return {"text": torch.cat([words, sentence]), "pooled": torch.cat(pooled)}


class StableDiffusion3(LatentFamily):
    """Esser et al. 2024."""

    name = "sd3"
    title = "Stable Diffusion 3"
    in_files = "Stable Diffusion 3"
    pipeline = "StableDiffusion3Pipeline"
    comfyui = ("SD3",)
    captions = "CLIP-L and CLIP-G side by side (75 tokens) and T5-XXL (256) behind them, and both CLIPs' pooled states"
    component = "transformer"
    denoiser_class = SD3Transformer2DModel
    base_version = "sd3m"
    architecture = "stable-diffusion-3-medium"
    # ComfyUI and diffusers both load every module by these names.
    default_dialect = "diffusers"
    schedule = {"num_train_timesteps": 1000, "shift": 3.0}
    latent_channels = 16
    patch = 2
    conditioned_on = ("text", "pooled")
    targets = {
        "attention": ATTENTION,
        "attention+ff": f"({ATTENTION}|{FEED_FORWARD})",
        "diffsynth": f"({ATTENTION}|{FEED_FORWARD}|{MODULATION})",
        "all": r".*",
    }
    text_parts = (*CLIPS, T5)
    tokenizers = {part.replace("text_encoder", "tokenizer"): VOCABULARIES for part in CLIPS} | {
        T5.replace("text_encoder", "tokenizer"): T5_VOCABULARIES
    }

    def from_original(
        self, weights: State, encoder: Encoder, process: Process, resolution: int | None, name: str
    ) -> Model:
        config, transformer = sd3_checkpoint.transformer_of(weights, f"the transformer of {name}")
        if resolution:
            config["sample_size"] = resolution // encoder.pixel_step
        return self._over(transformer, config, None, encoder, process, name, name)

    def described(self, denoiser: nn.Module) -> tuple[str, str]:
        if denoiser.config.qk_norm is None:
            return self.base_version, self.architecture
        size = "medium" if denoiser.config.dual_attention_layers else "large"
        return f"sd3.5{size[0]}", f"stable-diffusion-3.5-{size}"

    def stack(self, entries: list[Conditioning], empty: Conditioning) -> Conditioning:
        """The host's captions may differ in length."""
        return continued_by_padding(entries, empty)

    def predict(
        self, denoiser: nn.Module, noisy: torch.Tensor, times: torch.Tensor, conditioning: Conditioning
    ) -> torch.Tensor:
        return denoiser(noisy, conditioning["text"], conditioning["pooled"], times, return_dict=False)[0]

    def _process(self, config: dict) -> Flow:
        return Flow(config, self.patch)

    def _check(self, denoiser: nn.Module, where: str) -> None:
        if denoiser.config.in_channels != self.latent_channels:
            raise BadInput(
                f"base: the transformer of {where} takes {denoiser.config.in_channels} channels instead of "
                f"{self.latent_channels}: it is made for editing, which is not trained here"
            )

    def _read_folder(self, source: Source) -> Parts:
        index = json.loads((source.path / "model_index.json").read_text(encoding="utf-8"))
        without = list(index.get(T5) or [None, None]) == [None, None]
        texts = tuple(part for part in self.text_parts if part != T5 or not without)
        words = {part.replace("text_encoder", "tokenizer") for part in texts}
        tokenizers = {name: files for name, files in self.tokenizers.items() if name in words}
        return read_parts(source.path, (self.component, "vae", *texts), tokenizers, self.title)

    def _read_file(self, source: Source) -> Parts:
        states, configs = sd3_checkpoint.split(read_weights(source.path), source.path)
        return Parts(states, configs | {"scheduler": self.schedule}, source.path)

    def _encoder(self, vae: AutoencoderKL, parts: Parts, source: Source) -> Sd3Encoder:
        clips = []
        for part, pad in CLIPS.items():
            folder = source.path / part.replace("text_encoder", "tokenizer")
            tokenizer = clip_tokenizer(pad) if source.is_file else read_tokenizer(folder)
            state, config = parts.states[part], parts.configs[part]
            clips.append(clip_text(state, config, tokenizer, part, source.path, True, True))
        width, t5 = parts.configs[self.component].get("joint_attention_dim", 4096), None
        if T5 in parts.states:
            words = words_of(t5_tokenizer()) if source.is_file else read_words(source.path / "tokenizer_3")
            label = f"the {T5} of {source.path}"
            t5 = t5_text(parts.states[T5], parts.configs[T5], words, T5_LENGTH, self.title, label)
        else:
            log.warning(
                "base: %s brings no T5 (%s), so captions are read by both CLIPs alone, up to 75 tokens, and zeros "
                "stand for what T5 would say; generate pictures without T5, too",
                source.path,
                T5,
            )
        return Sd3Encoder(vae, clips, t5, width)
