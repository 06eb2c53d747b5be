"""A Flux in one file: its parts in diffusers' names, and configurations read off the shapes."""

import re
from pathlib import Path

from ..errors import BadInput
from ..lora_file import flux_names
from . import t5_text
from .original import in_diffusers_names, parts_of, readable
from .original_vae import vae_of
from .sd_checkpoint import clip_names, text_config
from .weights import State

PARTS = {
    "transformer": ("the transformer", "model.diffusion_model."),
    "vae": ("the VAE", "vae."),
    "text_encoder": ("CLIP-L", "text_encoders.clip_l.transformer."),
    "text_encoder_2": ("T5", "text_encoders.t5xxl.transformer."),
}
"""What is in ComfyUI's checkpoints of Flux, and under which keys."""
REMEDY = (
    ". ComfyUI's checkpoints of Flux have them all (flux1-dev-fp8 and the like), and so has the diffusers folder; in "
    "ComfyUI the parts may come from loaders of their own"
)
SCALING, SHIFT = 0.3611, 0.1159
"""Of the VAE's latents."""
HEAD_WIDTH = 128
"""Of every Flux: the rotary positions have 16 + 56 + 56 places in it, which no tensor tells."""
QUANTISED = (".scale_weight", ".weight_scale", ".input_scale", ".comfy_quant", ".absmax", ".quant_map")
"""How keys end beside weights that are no plain numbers."""
RELATIVES = {
    "distilled_guidance_layer.": "Chroma",
    "double_stream_modulation_img.": "FLUX.2",
    "img_in.proj.": "HunyuanVideo",
}
"""Models of the same blocks, by what they alone have."""


def split(state: State, path: Path) -> tuple[dict[str, State], dict[str, dict]]:
    """The parts of a checkpoint and their configurations, in diffusers' names.

    Raises:
        BadInput: the file lacks a part, as the files do that hold a transformer alone.
    """
    own = parts_of(state, PARTS, path, REMEDY, bare="transformer")
    parts, configs = {"text_encoder_2": own["text_encoder_2"]}, {}
    configs["transformer"], parts["transformer"] = transformer_of(own["transformer"], f"the transformer of {path}")
    with readable(f"{path}"):
        configs["vae"], parts["vae"] = vae_of(own["vae"], SCALING, SHIFT)
        parts["text_encoder"] = clip_names(own["text_encoder"])
        configs["text_encoder"] = text_config(parts["text_encoder"], projects=False)
        configs["text_encoder_2"] = t5_text.config_of(parts["text_encoder_2"])
    return parts, configs


def transformer_of(weights: State, label: str) -> tuple[dict, State]:
    """A transformer's configuration, and its weights in diffusers' names over the same storage.

    The rows of fused weights are views. Only the last modulation, whose halves diffusers has the other way round, is
    copied.

    Args:
        weights: in their original names, such as "double_blocks.0.img_attn.qkv.weight"; norms' may end in "scale" (as
            files have them) or "weight" (as ComfyUI has them).
        label: what to call them in a message.

    Raises:
        BadInput: it is a relative of Flux, the shape cannot be read, weights are quantised, or a stacked one has
            another shape than the others say.
    """
    relative = next((title for mark, title in RELATIVES.items() if any(key.startswith(mark) for key in weights)), None)
    if relative:
        raise BadInput(f"base: {label} is {relative}'s; this version trains FLUX.1 dev and schnell")
    quantised = [key for key in weights if key.endswith(QUANTISED) or key == "scaled_fp8"]
    if quantised:
        raise BadInput(
            f"base: {label} is quantised ({quantised[0]}{', …' if len(quantised) > 1 else ''}), and its weights cannot "
            "be read as numbers; take the file in bf16, fp16 or plain fp8"
        )
    # Norms as ComfyUI has them.
    weights = {re.sub(r"_norm\.scale$", "_norm.weight", key): tensor for key, tensor in weights.items()}
    with readable(label):
        config = _config(weights)
    width = config["attention_head_dim"]
    if width != HEAD_WIDTH:
        raise BadInput(f"base: {label} has attention heads of width {width} instead of {HEAD_WIDTH}: it is no Flux")
    return config, in_diffusers_names(weights, flux_names, config, label)


def _config(weights: State) -> dict:
    """
    Raises:
        KeyError: a key is not there that tells something.
    """
    width, channels = weights["img_in.weight"].shape
    head = weights["double_blocks.0.img_attn.norm.query_norm.weight"]
    outputs = weights["final_layer.linear.weight"].shape[0]
    return {
        "in_channels": channels,
        # As diffusers' configurations have it.
        "out_channels": None if outputs == channels else outputs,
        "num_layers": _count(weights, ".img_attn.qkv"),
        "num_single_layers": _count(weights, ".linear1"),
        "attention_head_dim": head.shape[0],
        "num_attention_heads": width // head.shape[0],
        "joint_attention_dim": weights["txt_in.weight"].shape[1],
        "pooled_projection_dim": weights["vector_in.in_layer.weight"].shape[1],
        "guidance_embeds": "guidance_in.in_layer.weight" in weights,
    }


def _count(weights: State, module: str) -> int:
    """Blocks that have a module; counted, for a number in a key may be any."""
    return sum(key.endswith(f"{module}.weight") for key in weights)
