"""Names of a Flux's modules: the paths of diffusers and the original ones, which stack some of them."""

from collections.abc import Mapping
from typing import Any

from .fused import Rows, Stack

OUTSIDE_BLOCKS = {
    "x_embedder": "img_in",
    "context_embedder": "txt_in",
    "time_text_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_text_embed.timestep_embedder.linear_2": "time_in.out_layer",
    "time_text_embed.text_embedder.linear_1": "vector_in.in_layer",
    "time_text_embed.text_embedder.linear_2": "vector_in.out_layer",
    "time_text_embed.guidance_embedder.linear_1": "guidance_in.in_layer",
    "time_text_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
    "proj_out": "final_layer.linear",
}
DOUBLE = {
    "norm1.linear": "img_mod.lin",
    "norm1_context.linear": "txt_mod.lin",
    "attn.norm_q": "img_attn.norm.query_norm",
    "attn.norm_k": "img_attn.norm.key_norm",
    "attn.norm_added_q": "txt_attn.norm.query_norm",
    "attn.norm_added_k": "txt_attn.norm.key_norm",
    "attn.to_out.0": "img_attn.proj",
    "attn.to_add_out": "txt_attn.proj",
    "ff.net.0.proj": "img_mlp.0",
    "ff.net.2": "img_mlp.2",
    "ff_context.net.0.proj": "txt_mlp.0",
    "ff_context.net.2": "txt_mlp.2",
}
"""In a block of two streams, picture and text."""
SINGLE = {
    "norm.linear": "modulation.lin",
    "attn.norm_q": "norm.query_norm",
    "attn.norm_k": "norm.key_norm",
    "proj_out": "linear2",
}
"""In a block of one stream."""
WIDENED = 4
"""What the feed-forward layers of a single block take in is so many times as wide as the rest."""


def original_names(config: Mapping[str, Any]) -> dict[str, str]:
    """diffusers path -> original path of every module that has a weight of its own in both.

    The layers of the guidance are among them, which only FLUX.1 dev has.

    Args:
        config: a FluxTransformer2DModel's.
    """
    names = dict(OUTSIDE_BLOCKS)
    for ours, theirs, inner, number in _blocks(config):
        names |= {f"{ours}.{number}.{path}": f"{theirs}.{number}.{own}" for path, own in inner.items()}
    return names


def stacks(config: Mapping[str, Any]) -> dict[str, Stack]:
    """Original path -> what stands in its weight, for the modules that are made up otherwise there.

    q, k and v share a weight, in single blocks with the first layer of the feed-forward. The last modulation gives
    shift and scale, of which diffusers has the scale first.

    Args:
        config: a FluxTransformer2DModel's.
    """
    width = config["num_attention_heads"] * config["attention_head_dim"]
    found: dict[str, Stack] = {
        "final_layer.adaLN_modulation.1": (Rows("norm_out.linear", width, width), Rows("norm_out.linear", width))
    }
    for ours, theirs, _, number in _blocks(config):
        own = tuple(Rows(f"{ours}.{number}.attn.to_{letter}", width) for letter in "qkv")
        if theirs == "single_blocks":
            mlp = Rows(f"{ours}.{number}.proj_mlp", WIDENED * width)
            found[f"{theirs}.{number}.linear1"] = (*own, mlp)
            continue
        found[f"{theirs}.{number}.img_attn.qkv"] = own
        found[f"{theirs}.{number}.txt_attn.qkv"] = tuple(
            Rows(f"{ours}.{number}.attn.add_{letter}_proj", width) for letter in "qkv"
        )
    return found


def _blocks(config: Mapping[str, Any]) -> list[tuple[str, str, Mapping[str, str], int]]:
    """What diffusers and the original call the blocks, the modules with weights of their own, and each number."""
    double = [("transformer_blocks", "double_blocks", DOUBLE, n) for n in range(config["num_layers"])]
    return double + [
        ("single_transformer_blocks", "single_blocks", SINGLE, n) for n in range(config["num_single_layers"])
    ]
