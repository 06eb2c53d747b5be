"""A Stable Diffusion 3 in one file: its parts in diffusers' names, and configurations read off the shapes."""

import math
from pathlib import Path

import torch

from ..lora_file import sd3_names
from . import t5_text
from .original import in_diffusers_names, parts_of, readable, under
from .original_vae import vae_of
from .sd_checkpoint import text_config
from .weights import State

T5 = "text_encoders.t5xxl.transformer."
PARTS = {
    "transformer": ("the transformer", "model.diffusion_model."),
    "vae": ("the VAE", "first_stage_model."),
    "text_encoder": ("CLIP-L", "text_encoders.clip_l.transformer."),
    "text_encoder_2": ("CLIP-G", "text_encoders.clip_g.transformer."),
}
REMEDY = (
    "; a Stable Diffusion 3 checkpoint that brings its text encoders (sd3_medium_incl_clips.safetensors, with or "
    "without T5) or the diffusers folder has them all, and in ComfyUI the parts may come from loaders of their own"
)
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
    own = parts_of(state, PARTS, path, REMEDY, bare="transformer")
    parts, configs = {}, {}
    configs["transformer"], parts["transformer"] = transformer_of(own["transformer"], f"the transformer of {path}")
    with readable(f"{path}"):
        configs["vae"], parts["vae"] = vae_of(own["vae"], SCALING, SHIFT)
        for part in ("text_encoder", "text_encoder_2"):
            parts[part], configs[part] = _clip(own[part], part == "text_encoder_2")
        t5 = under(state, T5)
        if t5:
            parts["text_encoder_3"], configs["text_encoder_3"] = t5, t5_text.config_of(t5)
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
    with readable(label):
        config = _config(weights)
    table = {"pos_embed.pos_embed": "pos_embed"}
    return config, in_diffusers_names(weights, sd3_names, config, label, table)


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
