"""Names of a UNet's modules, from its config: the paths of diffusers and the original latent-diffusion (LDM) ones."""

from collections.abc import Iterable, Mapping
from typing import Any

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}

OUTSIDE_BLOCKS = {
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "class_embedding.linear_1": "label_emb.0.0",
    "class_embedding.linear_2": "label_emb.0.2",
}


def ldm_names(config: Mapping[str, Any], modules: Iterable[str]) -> dict[str, str]:
    """diffusers path -> LDM path for every one of `modules` that has one.

    Args:
        config: a UNet2DConditionModel's: down_block_types, up_block_types, layers_per_block.
        modules: diffusers paths, such as "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q".

    Returns:
        For that example "input_blocks.1.1.transformer_blocks.0.attn1.to_q". Paths without a counterpart are left out.
    """
    blocks = block_names(config)
    found = {}
    for path in modules:
        if path in OUTSIDE_BLOCKS:
            found[path] = OUTSIDE_BLOCKS[path]
            continue
        parts = path.split(".")
        # A block's own path has three parts ("mid_block.resnets.0"), four below down_blocks and up_blocks.
        length = 3 if parts[0] == "mid_block" else 4
        block, inner = ".".join(parts[:length]), ".".join(parts[length:])
        if block not in blocks or not inner:
            continue
        kind = parts[length - 2]
        if kind == "resnets":
            if inner in RESNET:
                found[path] = f"{blocks[block]}.{RESNET[inner]}"
        elif kind == "downsamplers":
            # LDM calls the convolution of a downsampler "op", without a level of its own.
            if inner == "conv":
                found[path] = f"{blocks[block]}.op"
        else:
            found[path] = f"{blocks[block]}.{inner}"
    return found


def block_names(config: Mapping[str, Any]) -> dict[str, str]:
    """diffusers path -> LDM path of every resnet, attention, down- and upsampler.

    LDM numbers input and output blocks through all levels: one block per resnet (with its attention), and one for a
    downsampler; an upsampler sits behind the last resnet of its level.
    """
    down, up = config["down_block_types"], config["up_block_types"]
    layers = config["layers_per_block"]
    layers = [layers] * len(down) if isinstance(layers, int) else list(layers)
    names = {
        "mid_block.resnets.0": "middle_block.0",
        "mid_block.attentions.0": "middle_block.1",
        "mid_block.resnets.1": "middle_block.2",
    }
    number = 1
    for level in range(len(down)):
        for layer in range(layers[level]):
            names[f"down_blocks.{level}.resnets.{layer}"] = f"input_blocks.{number}.0"
            if "Attn" in down[level]:
                names[f"down_blocks.{level}.attentions.{layer}"] = f"input_blocks.{number}.1"
            number += 1
        if level < len(down) - 1:
            names[f"down_blocks.{level}.downsamplers.0"] = f"input_blocks.{number}.0"
            number += 1
    number = 0
    for level in range(len(up)):
        for layer in range(layers[-1 - level] + 1):
            names[f"up_blocks.{level}.resnets.{layer}"] = f"output_blocks.{number}.0"
            if "Attn" in up[level]:
                names[f"up_blocks.{level}.attentions.{layer}"] = f"output_blocks.{number}.1"
            number += 1
        if level < len(up) - 1:
            place = 2 if "Attn" in up[level] else 1
            names[f"up_blocks.{level}.upsamplers.0"] = f"output_blocks.{number - 1}.{place}"
    return names
