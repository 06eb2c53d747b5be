"""Stable Diffusion 1 in one file: its three parts in diffusers' names, and configurations read off the shapes."""

from pathlib import Path

import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from transformers import CLIPTextConfig, CLIPTextModel

from ..errors import BadInput
from .weights import State

UNET = "model.diffusion_model."
VAE = "first_stage_model."
TEXT = "cond_stage_model.transformer."
FOREIGN = {
    "conditioner.embedders.1.": "Stable Diffusion XL",
    "cond_stage_model.model.": "Stable Diffusion 2",
    "joint_blocks.": "Stable Diffusion 3",
    "double_blocks.": "Flux",
}
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def split(state: State, path: Path) -> tuple[dict[str, State], dict[str, dict], dict]:
    """The parts of a checkpoint.

    Returns:
        The states of unet, vae and text_encoder in diffusers' names; a configuration for each, as far as shapes tell
        (heads are Stable Diffusion 1's: 8 in the UNet, one per 64 channels in CLIP); and what marker keys say about the
        noise schedule ("v_pred" and "ztsnr", as v-prediction checkpoints carry them).

    Raises:
        BadInput: the file is of another family, or lacks a part.
    """
    for mark, name in FOREIGN.items():
        if any(key.startswith(mark) or f"diffusion_model.{mark}" in key for key in state):
            raise BadInput(f"base: {path} is a {name} checkpoint; this version trains the Stable Diffusion 1 family")
    missing = [
        f"the {part} ({prefix}…)"
        for prefix, part in ((UNET, "UNet"), (VAE, "VAE"), (TEXT, "text encoder"))
        if not any(key.startswith(prefix) for key in state)
    ]
    if missing:
        raise BadInput(f"base: {path} lacks {', '.join(missing)}; a full Stable Diffusion 1 checkpoint has all three")
    try:
        configs = {"unet": _unet_config(state), "vae": _vae_config(state), "text_encoder": _text_config(state)}
    except KeyError as error:
        raise BadInput(f"base: {path} lacks {error}, so its shape cannot be read; is the file whole?") from None
    parts = {
        "unet": convert_ldm_unet_checkpoint(dict(state), configs["unet"]),
        "vae": convert_ldm_vae_checkpoint(state, configs["vae"]),
        "text_encoder": {key[len(TEXT) :]: value for key, value in state.items() if key.startswith(TEXT)},
    }
    marks = {}
    if "v_pred" in state:
        marks["prediction_type"] = "v_prediction"
    if "ztsnr" in state:
        marks["rescale_betas_zero_snr"] = True
    return parts, configs, marks


def unet_of(weights: State, label: str) -> tuple[dict, State]:
    """A UNet's configuration, and its weights in diffusers' names over the same storage.

    Args:
        weights: in their original names, such as "input_blocks.0.0.weight".
        label: what to call them in a message.

    Raises:
        BadInput: the shape cannot be read.
    """
    state = {UNET + name: tensor for name, tensor in weights.items()}
    try:
        config = _unet_config(state)
        return config, convert_ldm_unet_checkpoint(state, config)
    except KeyError as error:
        raise BadInput(f"base: {label} lacks {error}, so its shape cannot be read") from None


def fit_prefix(state: State, config: CLIPTextConfig) -> State:
    """CLIP's keys with or without `text_model.`, as the installed transformers names them."""
    with torch.device("meta"):
        prefixed = any(key.startswith("text_model.") for key in CLIPTextModel(config).state_dict())
    bare = {key.removeprefix("text_model."): value for key, value in state.items()}
    return {f"text_model.{key}": value for key, value in bare.items()} if prefixed else bare


def current_vae_names(state: State) -> State:
    """A VAE's weights with its attention named as diffusers names it now.

    The folders of the first Stable Diffusions have older names, and in some the matrices are still 1×1 convolutions.
    """
    renamed = {}
    for key, tensor in state.items():
        if ".attentions." in key:
            path, _, kind = key.rpartition(".")
            place, _, name = path.rpartition(".")
            key = f"{place}.{OLD_ATTENTION.get(name, name)}.{kind}"
            if tensor.ndim == 4 and tensor.shape[2:] == (1, 1):
                tensor = tensor[:, :, 0, 0]
        renamed[key] = tensor
    return renamed


def _unet_config(state: State) -> dict:
    """Channels, residual blocks and attention by level, read off the encoder's half."""
    keys = {key.removeprefix(UNET): value for key, value in state.items() if key.startswith(UNET)}
    channels, attention, blocks, index = [], [], 0, 1
    while f"input_blocks.{index}.0.in_layers.0.weight" in keys:
        level_blocks, attends = 0, False
        while f"input_blocks.{index}.0.in_layers.0.weight" in keys:
            width = keys[f"input_blocks.{index}.0.out_layers.3.weight"].shape[0]
            attends |= f"input_blocks.{index}.1.proj_in.weight" in keys
            level_blocks, index = level_blocks + 1, index + 1
        channels.append(width)
        attention.append(attends)
        blocks = level_blocks
        index += 1  # the downsampler between two levels
    first = next((key for key in keys if key.endswith("attn2.to_k.weight")), "attn2.to_k.weight")
    return {
        "sample_size": 64,
        "in_channels": keys["input_blocks.0.0.weight"].shape[1],
        "out_channels": keys["out.2.weight"].shape[0],
        "block_out_channels": channels,
        "layers_per_block": blocks,
        "down_block_types": ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attention],
        "up_block_types": ["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)],
        "cross_attention_dim": keys[first].shape[1],
        "attention_head_dim": 8,
        "norm_num_groups": 32,
    }


def _vae_config(state: State) -> dict:
    keys = {key.removeprefix(VAE): value for key, value in state.items() if key.startswith(VAE)}
    channels = []
    while f"encoder.down.{len(channels)}.block.0.conv2.weight" in keys:
        channels.append(keys[f"encoder.down.{len(channels)}.block.0.conv2.weight"].shape[0])
    blocks = sum(f"encoder.down.0.block.{i}.conv2.weight" in keys for i in range(8))
    return {
        "in_channels": keys["encoder.conv_in.weight"].shape[1],
        "out_channels": keys["decoder.conv_out.weight"].shape[0],
        "down_block_types": ["DownEncoderBlock2D"] * len(channels),
        "up_block_types": ["UpDecoderBlock2D"] * len(channels),
        "block_out_channels": channels,
        "layers_per_block": blocks,
        "latent_channels": keys["post_quant_conv.weight"].shape[1],
        "norm_num_groups": 32,
        "scaling_factor": 0.18215,
    }


def _text_config(state: State) -> dict:
    bare = {key[len(TEXT) :].removeprefix("text_model."): value for key, value in state.items() if key.startswith(TEXT)}
    vocabulary, width = bare["embeddings.token_embedding.weight"].shape
    layers = sum(key.endswith("mlp.fc1.weight") for key in bare)
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": bare["encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, width // 64),
        "max_position_embeddings": bare["embeddings.position_embedding.weight"].shape[0],
        "hidden_act": "quick_gelu",
        "projection_dim": width,
        "bos_token_id": 49406,
        "eos_token_id": 49407,
        "pad_token_id": 49407,
    }
