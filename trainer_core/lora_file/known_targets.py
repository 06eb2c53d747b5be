"""The standard models that a foreign LoRA may be for, built without weights, to say who would load it."""

import functools

import torch

from ..assets import SCION_TINY
from ..files import read_json
from .lora import Target

_SDXL_UNET = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
_KOLORS_UNET = _SDXL_UNET | {
    "encoder_hid_dim": 4096,
    "encoder_hid_dim_type": "text_proj",
    "projection_class_embeddings_input_dim": 5632,
}
_UNETS = {
    "Stable Diffusion 1.x": {"cross_attention_dim": 768},
    "Stable Diffusion XL": _SDXL_UNET,
    "Kolors": _KOLORS_UNET,
}
_SD3 = {"caption_projection_dim": 1536, "num_attention_heads": 24, "num_layers": 24, "pos_embed_max_size": 8}
_TRANSFORMERS = {
    "Stable Diffusion 3": ("SD3Transformer2DModel", _SD3),
    "Stable Diffusion 3.5 Medium": (
        "SD3Transformer2DModel",
        _SD3 | {"dual_attention_layers": tuple(range(13)), "qk_norm": "rms_norm"},
    ),
    "Stable Diffusion 3.5 Large": (
        "SD3Transformer2DModel",
        _SD3 | {"caption_projection_dim": 2432, "num_attention_heads": 38, "num_layers": 38, "qk_norm": "rms_norm"},
    ),
    "HunyuanDiT": (
        "HunyuanDiT2DModel",
        {
            "hidden_size": 1408,
            "in_channels": 4,
            "mlp_ratio": 4.3637,
            "num_layers": 40,
            "patch_size": 2,
            "use_style_cond_and_image_meta_size": False,
        },
    ),
    "Flux": ("FluxTransformer2DModel", {"guidance_embeds": True}),
}
"""diffusers' classes and their configurations. The table of positions is small: no LoRA has a part in it."""


@functools.cache
def standard_target(family: str) -> Target | None:
    """The usual denoiser and text encoders of a family (as `foreign.guess_family` calls it); None if not known here."""
    import diffusers
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    if family == "scion-tiny":
        configs = {part: read_json(SCION_TINY / part / "config.json") for part in ("unet", "text_encoder")}
        with torch.device("meta"):
            return Target.of(
                unet=UNet2DConditionModel.from_config(configs["unet"]),
                text_encoder=CLIPTextModel(CLIPTextConfig.from_dict(configs["text_encoder"])),
            )
    if family in _TRANSFORMERS:  # no file here has weights for their text encoders
        kind, config = _TRANSFORMERS[family]
        with torch.device("meta"):
            return Target.of(transformer=getattr(diffusers, kind)(**config))
    if family not in _UNETS:
        return None
    with torch.device("meta"):
        parts = {"unet": UNet2DConditionModel(**_UNETS[family])}
        if family != "Kolors":  # no file has weights for its text encoder
            parts["text_encoder"] = CLIPTextModel(
                CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
            )
        if family == "Stable Diffusion XL":
            parts["text_encoder_2"] = CLIPTextModelWithProjection(
                CLIPTextConfig(
                    hidden_size=1280,
                    intermediate_size=5120,
                    num_hidden_layers=32,
                    num_attention_heads=20,
                    projection_dim=1280,
                )
            )
    return Target.of(**parts)
