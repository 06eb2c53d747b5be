"""A Flux in its original names: its transformer in diffusers' names, and its configuration read off the shapes."""

import re

import torch

from ..errors import BadInput
from ..lora_file.flux_names import SCALE_FIRST, diffusers_paths
from .weights import State

HEAD_WIDTH = 128
"""Of every Flux: the rotary positions have 16 + 56 + 56 places in it, which no tensor tells."""
QUANTISED = (".scale_weight", ".weight_scale", ".input_scale", ".comfy_quant", ".absmax", ".quant_map")
"""How keys end beside weights that are no plain numbers."""


def transformer_of(weights: State, label: str) -> tuple[dict, State]:
    """A transformer's configuration, and its weights in diffusers' names over the same storage.

    The rows of fused weights are views. Only the last modulation, whose halves diffusers has the other way round, is
    copied.

    Args:
        weights: in their original names, such as "double_blocks.0.img_attn.qkv.weight"; norms' may end in "scale" (as
            files have them) or "weight" (as ComfyUI has them).
        label: what to call them in a message.

    Raises:
        BadInput: the shape cannot be read, or weights are quantised.
    """
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
    return config, _renamed(weights)


def _config(weights: State) -> dict:
    width, channels = weights["img_in.weight"].shape
    head = weights.get("double_blocks.0.img_attn.norm.query_norm.scale")
    head = weights["double_blocks.0.img_attn.norm.query_norm.weight"] if head is None else head
    return {
        "in_channels": channels,
        "out_channels": weights["final_layer.linear.weight"].shape[0],
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


def _renamed(weights: State) -> State:
    """What is none of Flux's keeps its name, by which a comparison with the module finds it."""
    renamed = {}
    for key, tensor in weights.items():
        module, _, kind = key.rpartition(".")
        paths = diffusers_paths(module)
        kind = "weight" if kind == "scale" and paths else kind
        if paths == (SCALE_FIRST,):
            shift, scale = tensor.chunk(2)
            tensor = torch.cat([scale, shift])
        if len(paths) < 2:
            renamed[f"{paths[0]}.{kind}" if paths else key] = tensor
            continue
        renamed |= {f"{path}.{kind}": rows for path, rows in zip(paths, _rows(tensor, len(paths)), strict=True)}
    return renamed


def _rows(tensor: torch.Tensor, count: int) -> list[torch.Tensor]:
    """A fused weight's or bias's parts, as views: q, k and v alike, and where there is a fourth, what the feed-forward
    takes in, four times as high."""
    unit = tensor.shape[0] // (3 if count == 3 else 7)
    heights = [unit] * 3 if count == 3 else [unit, unit, unit, tensor.shape[0] - 3 * unit]
    return list(tensor.split(heights))
