"""Kolors: Stable Diffusion XL's UNet, which reads Chinese and English through ChatGLM3."""

from diffusers import AutoencoderKL

from .base import Conditioning
from .chatglm_vae import ChatGlmVaeEncoder, chat_glm, read_tokenizer
from .folder import Parts
from .sources import Source
from .stacking import side_by_side
from .unet import UNetFamily

SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.014,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1100,
    "clip_sample": False,
    "steps_offset": 1,
    "prediction_type": "epsilon",
}
"""More noise at the end than Stable Diffusion's (Kolors' report, section 2.3); a folder's own configuration counts."""


class Kolors(UNetFamily):
    name = "kolors"
    title = "Kolors"
    in_files = "Kolors"
    pipeline = "KolorsPipeline"
    captions = "ChatGLM3-6B, the layer before the last, and the last token's state; 256 tokens, Chinese and English"
    base_version = "kolors"
    architecture = "kolors-v1"
    default_dialect = "kohya"
    schedule = SCHEDULE
    conditioned_on = ("text", "pooled")
    sized = True
    # diffusers, the only other program that loads its files, has no kohya names for these layers.
    targets = UNetFamily.targets | {"all": r"(?!add_embedding\.|encoder_hid_proj$).*"}
    text_parts = ("text_encoder",)
    tokenizers = {"tokenizer": (("tokenizer.model",),)}

    def stack(self, entries: list[Conditioning], empty: Conditioning) -> Conditioning:
        return side_by_side(entries)

    def _encoder(self, vae: AutoencoderKL, parts: Parts, source: Source) -> ChatGlmVaeEncoder:
        tokenizer = read_tokenizer(source.path / "tokenizer")
        text_encoder = chat_glm(parts.states["text_encoder"], parts.configs["text_encoder"], source.path)
        return ChatGlmVaeEncoder(vae, text_encoder, tokenizer)
