"""A Stable Diffusion 3 in one file: its parts in diffusers' names, and configurations read off the shapes."""

import logging
import math
from pathlib import Path

import torch
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

from ..errors import BadInput
from ..lora_file.fused import unstacked
from ..lora_file.sd3_names import original_names, stacks
from . import t5_text
from .sd_checkpoint import text_config, vae_config
from .weights import State

log = logging.getLogger(__name__)

TRANSFORMER = "model.diffusion_model."
VAE = "first_stage_model."
T5 = "text_encoders.t5xxl.transformer."
PARTS = {
    "transformer": ("the transformer", TRANSFORMER),
    "vae": ("the VAE", VAE),
    "text_encoder": ("CLIP-L", "text_encoders.clip_l.transformer."),
    "text_encoder_2": ("CLIP-G", "text_encoders.clip_g.transformer."),
}
SIDE = 128
"""Of the latents that they were made for: 1,024 pixels."""
HEAD = 64
"""Width of an attention head (Esser et al. 2024, section 5.3: as many heads as blocks, 64 wide)."""
SCALING, SHIFT = 1.5305, 0.0609
"""Of the VAE's latents."""


def split(state: State, path: Path) -> tuple[dict[str, State], dict[str, dict]]:
    """The parts of a checkpoint and their configurations, in diffusers' names; "text_encoder_3" where T5 is there.

    Raises:
        BadInput: the file lacks a part other than T5.
    """
    own = {part: _under(state, prefix) for part, (_, prefix) in PARTS.items()}
    if not own["transformer"]:
        own["transformer"] = {key: tensor for key, tensor in state.items() if not key.startswith("text_encoders.")}
    missing = [f"{title} ({prefix}…)" for part, (title, prefix) in PARTS.items() if not own[part]]
    if missing:
        raise BadInput(
            f"base: {path} lacks {', '.join(missing)}; a Stable Diffusion 3 checkpoint that brings its text encoders "
            "(sd3_medium_incl_clips.safetensors, with or without T5) or the diffusers folder has them all, and in "
            "ComfyUI the parts may come from loaders of their own"
        )
    parts, configs = {}, {}
    configs["transformer"], parts["transformer"] = transformer_of(own["transformer"], f"the transformer of {path}")
    try:
        configs["vae"] = vae_config(own["vae"], SCALING) | {
            "shift_factor": SHIFT,
            "use_quant_conv": "quant_conv.weight" in own["vae"],
            "use_post_quant_conv": "post_quant_conv.weight" in own["vae"],
        }
        named = {VAE + key: tensor for key, tensor in own["vae"].items()}
        parts["vae"] = convert_ldm_vae_checkpoint(named, configs["vae"])
        for part in ("text_encoder", "text_encoder_2"):
            parts[part], configs[part] = _clip(own[part], part == "text_encoder_2")
        t5 = _under(state, T5)
        if t5:
            parts["text_encoder_3"], configs["text_encoder_3"] = t5, t5_text.config_of(t5)
    except KeyError as error:
        raise BadInput(f"base: {path} lacks {error}, so its shape cannot be read; is the file whole?") from None
    return parts, configs


def transformer_of(weights: State, label: str) -> tuple[dict, State]:
    """A transformer's configuration, and its weights in diffusers' names.

    All are views of what is given, but for the last modulation of each stream, whose halves are swapped.

    Args:
        weights: in their original names, such as "joint_blocks.0.x_block.attn.qkv.weight".
        label: what to call them in a message.

    Raises:
        BadInput: the shape cannot be read, or a stacked weight has another than the others say.
    """
    try:
        config = _config(weights)
    except KeyError as error:
        raise BadInput(f"base: {label} lacks {error}, so its shape cannot be read") from None
    names = {theirs: ours for ours, theirs in original_names(config).items()}
    fused, found = stacks(config), {}
    for key, tensor in weights.items():
        path, _, kind = key.rpartition(".")
        if path in fused:
            try:
                found |= {f"{ours}.{kind}": rows for ours, rows in unstacked(fused[path], tensor).items()}
            except ValueError as error:
                raise BadInput(f"base: {label}: {key} has {error}") from None
        elif key == "pos_embed":
            found["pos_embed.pos_embed"] = tensor
        else:
            # What has no other name keeps its own, and is named where it is found to be too much.
            found[f"{names[path]}.{kind}" if path in names else key] = tensor
    return config, found


def _config(keys: State) -> dict:
    """
    Raises:
        KeyError: a key is not there that tells something.
    """
    patches, blocks = keys["x_embedder.proj.weight"], "joint_blocks.{}.x_block.{}"
    width, channels, patch = patches.shape[0], patches.shape[1], patches.shape[2]
    norm = keys.get(blocks.format(0, "attn.ln_q.weight"))
    head = HEAD if norm is None else norm.shape[0]
    depth = sum(key.endswith(".x_block.attn.qkv.weight") for key in keys)
    text = keys["context_embedder.weight"]
    return {
        "sample_size": SIDE,
        "patch_size": patch,
        "in_channels": channels,
        "out_channels": keys["final_layer.linear.weight"].shape[0] // patch**2,
        "num_layers": depth,
        "attention_head_dim": head,
        "num_attention_heads": max(1, width // head),
        "joint_attention_dim": text.shape[1],
        "caption_projection_dim": text.shape[0],
        "pooled_projection_dim": keys["y_embedder.mlp.0.weight"].shape[1],
        "pos_embed_max_size": math.isqrt(keys["pos_embed"].shape[1]),
        "dual_attention_layers": [
            number for number in range(depth) if blocks.format(number, "attn2.qkv.weight") in keys
        ],
        "qk_norm": None if norm is None else "rms_norm",
    }


def _clip(state: State, projects: bool) -> tuple[State, dict]:
    """A CLIP's weights without `text_model.`, and its configuration.

    The pooled state of CLIP-L is not projected, whatever the file holds beside it; transformers' class projects it, so
    it does so by one.
    """
    bare = {key.removeprefix("text_model."): tensor for key, tensor in state.items() if key != "logit_scale"}
    if not projects:
        table = bare["embeddings.token_embedding.weight"]
        bare["text_projection.weight"] = torch.eye(table.shape[1], dtype=table.dtype)
    return bare, text_config(bare, projects)


def _under(state: State, prefix: str) -> State:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
