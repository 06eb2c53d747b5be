"""A Stable Diffusion in one file: its parts in diffusers' names, and configurations read off the shapes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

from . import open_clip, original_vae
from .original import parts_of, readable
from .weights import State

UNET = "model.diffusion_model."
HEAD_WIDTH = 64
"""Of CLIP's text encoders, and of Stable Diffusion XL's UNet."""


@dataclass(frozen=True)
class Layout:
    """What one family's checkpoints hold."""

    title: str
    texts: Mapping[str, str]
    """Text encoders, by their folder in diffusers' layout: the prefix of their keys."""
    projects: str
    """The text encoder, if any, that is open_clip's, and gives the projected state of its end token."""
    scaling_factor: float
    """Of the VAE's latents."""
    side: int
    """Of the latents it was made for."""
    heads: int | None
    """In each of the UNet's attention layers; None = as many as 64 channels go into their width."""


STABLE_DIFFUSION_1 = Layout("Stable Diffusion 1", {"text_encoder": "cond_stage_model.transformer."}, "", 0.18215, 64, 8)
STABLE_DIFFUSION_XL = Layout(
    "Stable Diffusion XL",
    {"text_encoder": "conditioner.embedders.0.transformer.", "text_encoder_2": "conditioner.embedders.1.model."},
    "text_encoder_2",
    0.13025,
    128,
    None,
)


def split(state: State, path: Path, layout: Layout) -> tuple[dict[str, State], dict[str, dict], dict]:
    """The parts of a checkpoint.

    Returns:
        The states of unet, vae and text encoders in diffusers' names; a configuration for each, as far as shapes tell
        (numbers of heads are the layout's); and what marker keys say about the noise schedule ("v_pred" and "ztsnr", as
        v-prediction checkpoints carry them).

    Raises:
        BadInput: the file lacks a part.
    """
    names = {"unet": ("the UNet", UNET), "vae": ("the VAE", original_vae.PREFIX)}
    for number, (part, prefix) in enumerate(layout.texts.items(), 1):
        names[part] = f"text encoder {number}" if len(layout.texts) > 1 else "the text encoder", prefix
    own = parts_of(state, names, path, f"; a full {layout.title} checkpoint has them all")
    configs, parts = {}, {}
    configs["unet"], parts["unet"] = unet_of(own["unet"], layout, f"the UNet of {path}")
    with readable(f"{path}"):
        configs["vae"], parts["vae"] = original_vae.vae_of(own["vae"], layout.scaling_factor)
        for part in layout.texts:
            given = open_clip.in_transformers_names(own[part]) if part == layout.projects else clip_names(own[part])
            parts[part], configs[part] = given, text_config(given, part == layout.projects)
    marks = {}
    if "v_pred" in state:
        marks["prediction_type"] = "v_prediction"
    if "ztsnr" in state:
        marks["rescale_betas_zero_snr"] = True
    return parts, configs, marks


def unet_of(weights: State, layout: Layout, label: str) -> tuple[dict, State]:
    """A UNet's configuration, and its weights in diffusers' names over the same storage.

    Args:
        weights: in their original names, such as "input_blocks.0.0.weight".
        label: what to call them in a message.

    Raises:
        BadInput: the shape cannot be read.
    """
    with readable(label):
        config = _unet_config(weights, layout)
        return config, convert_ldm_unet_checkpoint({UNET + name: tensor for name, tensor in weights.items()}, config)


def clip_names(state: State) -> State:
    """Without what some checkpoints carry of CLIP's other half."""
    bare = {key.removeprefix("text_model."): value for key, value in state.items()}
    return {key: value for key, value in bare.items() if key not in ("text_projection.weight", "logit_scale")}


def _unet_config(keys: State, layout: Layout) -> dict:
    """Channels, residual blocks and attention by level, read off the encoder's half."""
    channels, depths, blocks, index = [], [], 0, 1
    while f"input_blocks.{index}.0.in_layers.0.weight" in keys:
        level_blocks, depth = 0, 0
        while f"input_blocks.{index}.0.in_layers.0.weight" in keys:
            width = keys[f"input_blocks.{index}.0.out_layers.3.weight"].shape[0]
            depth = max(depth, _depth(keys, f"input_blocks.{index}.1"))
            level_blocks, index = level_blocks + 1, index + 1
        channels.append(width)
        depths.append(depth)
        blocks = level_blocks
        index += 1  # the downsampler between two levels
    first = next((key for key in keys if key.endswith("attn2.to_k.weight")), "attn2.to_k.weight")
    proj_in = next((key for key in keys if key.endswith(".1.proj_in.weight")), "proj_in.weight")
    config = {
        "sample_size": layout.side,
        "in_channels": keys["input_blocks.0.0.weight"].shape[1],
        "out_channels": keys["out.2.weight"].shape[0],
        "block_out_channels": channels,
        "layers_per_block": blocks,
        "down_block_types": ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths],
        "up_block_types": ["CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in reversed(depths)],
        "cross_attention_dim": keys[first].shape[1],
        "attention_head_dim": layout.heads or [max(1, width // HEAD_WIDTH) for width in channels],
        "norm_num_groups": 32,
    }
    if any(depth > 1 for depth in depths):
        config["transformer_layers_per_block"] = [max(1, depth) for depth in depths]
    if keys[proj_in].ndim == 2:
        config["use_linear_projection"] = True
    if "label_emb.0.0.weight" in keys:
        config["addition_embed_type"] = "text_time"
        config["addition_time_embed_dim"] = 256
        config["projection_class_embeddings_input_dim"] = keys["label_emb.0.0.weight"].shape[1]
    return config


def _depth(keys: State, place: str) -> int:
    """Transformer blocks in the attention at a place."""
    pattern = re.compile(rf"{re.escape(place)}\.transformer_blocks\.(\d+)\.")
    # Counted, for a number in a key may be any.
    return len({found[1] for key in keys if (found := pattern.match(key))})


def text_config(state: State, projects: bool) -> dict:
    """
    Args:
        state: in transformers' names, without `text_model.`.
        projects: whether it is open_clip's, which has another activation.
    """
    vocabulary, width = state["embeddings.token_embedding.weight"].shape
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": state["encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": sum(key.endswith("mlp.fc1.weight") for key in state),
        "num_attention_heads": max(1, width // HEAD_WIDTH),
        "max_position_embeddings": state["embeddings.position_embedding.weight"].shape[0],
        "hidden_act": "gelu" if projects else "quick_gelu",
        "projection_dim": state["text_projection.weight"].shape[0] if projects else width,
        "bos_token_id": 49406,
        "eos_token_id": 49407,
        "pad_token_id": 49407,
    }
