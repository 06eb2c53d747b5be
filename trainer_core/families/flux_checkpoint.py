"""A Flux in one file: its parts in diffusers' names, and configurations read off the shapes."""

import re
from pathlib import Path

from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

from ..errors import BadInput
from ..lora_file.flux_names import original_names, stacks
from ..lora_file.fused import unstacked
from . import t5_text
from .sd_checkpoint import VAE, text_config, vae_config
from .weights import State

PARTS = {
    "transformer": ("the transformer", "model.diffusion_model."),
    "vae": ("the VAE", "vae."),
    "text_encoder": ("CLIP-L", "text_encoders.clip_l.transformer."),
    "text_encoder_2": ("T5", "text_encoders.t5xxl.transformer."),
}
"""What is in ComfyUI's checkpoints of Flux, and under which keys."""
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
    own = {part: _under(state, prefix) for part, (_, prefix) in PARTS.items()}
    if not own["transformer"]:
        others = tuple(prefix for _, prefix in PARTS.values())
        own["transformer"] = {key: tensor for key, tensor in state.items() if not key.startswith(others)}
    missing = [f"{title} ({prefix}…)" for part, (title, prefix) in PARTS.items() if not own[part]]
    if missing:
        raise BadInput(
            f"base: {path} lacks {', '.join(missing)}. ComfyUI's checkpoints of Flux have them all (flux1-dev-fp8 and "
            "the like), and so has the diffusers folder; in ComfyUI the parts may come from loaders of their own"
        )
    parts, configs = {}, {}
    configs["transformer"], parts["transformer"] = transformer_of(own["transformer"], f"the transformer of {path}")
    try:
        configs["vae"] = vae_config(own["vae"], SCALING) | {
            "shift_factor": SHIFT,
            "use_quant_conv": "quant_conv.weight" in own["vae"],
            "use_post_quant_conv": "post_quant_conv.weight" in own["vae"],
        }
        parts["vae"] = convert_ldm_vae_checkpoint(
            {VAE + key: value for key, value in own["vae"].items()}, configs["vae"]
        )
        clip = {key.removeprefix("text_model."): value for key, value in own["text_encoder"].items()}
        # Its other half's, which nothing here asks.
        parts["text_encoder"] = {
            key: value for key, value in clip.items() if key not in ("text_projection.weight", "logit_scale")
        }
        configs["text_encoder"] = text_config(parts["text_encoder"], projects=False)
        parts["text_encoder_2"] = own["text_encoder_2"]
        configs["text_encoder_2"] = t5_text.config_of(parts["text_encoder_2"])
    except KeyError as error:
        raise BadInput(f"base: {path} lacks {error}, so its shape cannot be read; is the file whole?") from None
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
    try:
        config = _config(weights)
    except KeyError as error:
        raise BadInput(f"base: {label} lacks {error}, so its shape cannot be read; is the file whole?") from None
    width = config["attention_head_dim"]
    if width != HEAD_WIDTH:
        raise BadInput(f"base: {label} has attention heads of width {width} instead of {HEAD_WIDTH}: it is no Flux")
    names = {theirs: ours for ours, theirs in original_names(config).items()}
    fused, found = stacks(config), {}
    for key, tensor in weights.items():
        path, _, kind = key.rpartition(".")
        if path in fused:
            try:
                found |= {f"{ours}.{kind}": rows for ours, rows in unstacked(fused[path], tensor).items()}
            except ValueError as error:
                raise BadInput(f"base: {label}: {key} has {error}") from None
        elif path in names:
            found[f"{names[path]}.{'weight' if kind == 'scale' else kind}"] = tensor
        else:
            # What has no other name keeps its own, and is named where it is found to be too much.
            found[key] = tensor
    return config, found


def _config(weights: State) -> dict:
    """
    Raises:
        KeyError: a key is not there that tells something.
    """
    width, channels = weights["img_in.weight"].shape
    head = weights.get("double_blocks.0.img_attn.norm.query_norm.scale")
    head = weights["double_blocks.0.img_attn.norm.query_norm.weight"] if head is None else head
    outputs = weights["final_layer.linear.weight"].shape[0]
    return {
        "in_channels": channels,
        # As diffusers' configurations have it.
        "out_channels": None if outputs == channels else outputs,
        "num_layers": _count(weights, "double_blocks"),
        "num_single_layers": _count(weights, "single_blocks"),
        "attention_head_dim": head.shape[0],
        "num_attention_heads": width // head.shape[0],
        "joint_attention_dim": weights["txt_in.weight"].shape[1],
        "pooled_projection_dim": weights["vector_in.in_layer.weight"].shape[1],
        "guidance_embeds": "guidance_in.in_layer.weight" in weights,
    }


def _count(weights: State, blocks: str) -> int:
    numbers = (re.match(rf"{blocks}\.(\d+)\.", key) for key in weights)
    return 1 + max((int(found[1]) for found in numbers if found), default=-1)


def _under(state: State, prefix: str) -> State:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
