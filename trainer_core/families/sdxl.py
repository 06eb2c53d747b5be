"""Stable Diffusion XL: CLIP-L and CLIP-G side by side, and a UNet that is told each picture's size and crop."""

from . import sd_checkpoint
from .stable_diffusion import StableDiffusionFamily


class StableDiffusionXL(StableDiffusionFamily):
    """Podell et al. 2023; the size conditioning is their section 2.2."""

    name = "sdxl"
    title = "Stable Diffusion XL"
    in_files = "Stable Diffusion XL"
    pipeline = "StableDiffusionXLPipeline"
    comfyui = ("SDXL",)
    captions = "CLIP-L and CLIP-G side by side, the layer before the last, and CLIP-G's pooled state; windows too"
    base_version = "sdxl_base_v1-0"
    architecture = "stable-diffusion-xl-v1-base"
    # The original names: diffusers, the host and sd-scripts all load them, and of diffusers' names sd-scripts none.
    default_dialect = "kohya-ldm"
    conditioned_on = ("text", "pooled")
    sized = True
    texts = {"te1": "text_encoder", "te2": "text_encoder_2"}
    pads = (None, "!")
    penultimate = True
    layout = sd_checkpoint.STABLE_DIFFUSION_XL
