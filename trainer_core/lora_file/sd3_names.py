"""Names of a Stable Diffusion 3's modules: the paths of diffusers and the original ones, which stack some of them."""

from collections.abc import Mapping
from typing import Any

from .fused import Rows, Stack

OUTSIDE_BLOCKS = {
    "pos_embed.proj": "x_embedder.proj",
    "context_embedder": "context_embedder",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
    "proj_out": "final_layer.linear",
}
OF_PICTURE = {
    "norm1.linear": "adaLN_modulation.1",
    "attn.norm_q": "attn.ln_q",
    "attn.norm_k": "attn.ln_k",
    "attn.to_out.0": "attn.proj",
    "attn2.norm_q": "attn2.ln_q",
    "attn2.norm_k": "attn2.ln_k",
    "attn2.to_out.0": "attn2.proj",
    "ff.net.0.proj": "mlp.fc1",
    "ff.net.2": "mlp.fc2",
}
"""In a block, the stream of the picture."""
OF_TEXT = {
    "norm1_context.linear": "adaLN_modulation.1",
    "attn.norm_added_q": "attn.ln_q",
    "attn.norm_added_k": "attn.ln_k",
    "attn.to_add_out": "attn.proj",
    "ff_context.net.0.proj": "mlp.fc1",
    "ff_context.net.2": "mlp.fc2",
}
"""In a block, the stream of the text."""
STREAMS = {"x_block": OF_PICTURE, "context_block": OF_TEXT}


def original_names(config: Mapping[str, Any]) -> dict[str, str]:
    """diffusers path -> original path of every module that has a weight of its own in both.

    Names of layers that a model of this configuration may or may not have (the norms of queries and keys, the second
    attention of 3.5 medium) are among them.

    Args:
        config: an SD3Transformer2DModel's.
    """
    names = dict(OUTSIDE_BLOCKS)
    for number in range(config["num_layers"]):
        for stream, inner in STREAMS.items():
            block = f"joint_blocks.{number}.{stream}"
            names |= {f"transformer_blocks.{number}.{ours}": f"{block}.{theirs}" for ours, theirs in inner.items()}
    for path in stacks(config).values():
        for rows in path:
            names.pop(rows.path, None)
    return names


def stacks(config: Mapping[str, Any]) -> dict[str, Stack]:
    """Original path -> what stands in its weight, for the modules that are made up otherwise there.

    q, k and v share a weight. The last modulations of both streams give shift and scale, of which diffusers has the
    scale first.

    Args:
        config: an SD3Transformer2DModel's.
    """
    width, last = config["num_attention_heads"] * config["attention_head_dim"], config["num_layers"] - 1
    found = {
        "final_layer.adaLN_modulation.1": _swapped("norm_out.linear", width),
        f"joint_blocks.{last}.context_block.adaLN_modulation.1": _swapped(
            f"transformer_blocks.{last}.norm1_context.linear", width
        ),
    }
    for number in range(config["num_layers"]):
        theirs, ours = f"joint_blocks.{number}", f"transformer_blocks.{number}"
        found[f"{theirs}.x_block.attn.qkv"] = tuple(Rows(f"{ours}.attn.to_{letter}", width) for letter in "qkv")
        found[f"{theirs}.context_block.attn.qkv"] = tuple(
            Rows(f"{ours}.attn.add_{letter}_proj", width) for letter in "qkv"
        )
        if number in config["dual_attention_layers"]:
            found[f"{theirs}.x_block.attn2.qkv"] = tuple(Rows(f"{ours}.attn2.to_{letter}", width) for letter in "qkv")
    return found


def _swapped(path: str, width: int) -> Stack:
    return Rows(path, width, width), Rows(path, width)
