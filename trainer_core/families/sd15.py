"""Stable Diffusion 1: UNet2DConditionModel with CLIP-L and an 8× VAE, and every model of its shape (scion-tiny too)."""

from . import sd_checkpoint
from .stable_diffusion import StableDiffusionFamily


class StableDiffusion1(StableDiffusionFamily):
    name = "sd15"
    title = "Stable Diffusion 1"
    in_files = "Stable Diffusion 1.x"
    pipeline = "StableDiffusionPipeline"
    comfyui = ("SD15",)
    captions = "CLIP-L, last layer; captions of any length, in windows of 75 tokens"
    base_version = "sd_v1"
    architecture = "stable-diffusion-v1"
    default_dialect = "kohya"
    conditioned_on = ("text",)
    texts = {"te": "text_encoder"}
    pads = (None,)
    penultimate = False
    layout = sd_checkpoint.STABLE_DIFFUSION_1
