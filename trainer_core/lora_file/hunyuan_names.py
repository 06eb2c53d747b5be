"""Names of HunyuanDiT's modules: the paths of diffusers and the original ones, in which q, k and v share a weight."""

from collections.abc import Mapping
from typing import Any

from .fused import Rows, Stack

OUTSIDE_BLOCKS = {
    "pos_embed.proj": "x_embedder.proj",
    "proj_out": "final_layer.linear",
    "text_embedder.linear_1": "mlp_t5.0",
    "text_embedder.linear_2": "mlp_t5.2",
    "time_extra_emb.extra_embedder.linear_1": "extra_embedder.0",
    "time_extra_emb.extra_embedder.linear_2": "extra_embedder.2",
    "time_extra_emb.pooler.c_proj": "pooler.c_proj",
    "time_extra_emb.pooler.k_proj": "pooler.k_proj",
    "time_extra_emb.pooler.q_proj": "pooler.q_proj",
    "time_extra_emb.pooler.v_proj": "pooler.v_proj",
    "time_extra_emb.style_embedder": "style_embedder",
    "time_extra_emb.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_extra_emb.timestep_embedder.linear_2": "t_embedder.mlp.2",
}
IN_BLOCK = {
    "attn1.norm_k": "attn1.k_norm",
    "attn1.norm_q": "attn1.q_norm",
    "attn1.to_out.0": "attn1.out_proj",
    "attn2.norm_k": "attn2.k_norm",
    "attn2.norm_q": "attn2.q_norm",
    "attn2.to_out.0": "attn2.out_proj",
    "attn2.to_q": "attn2.q_proj",
    "ff.net.0.proj": "mlp.fc1",
    "ff.net.2": "mlp.fc2",
    "norm1.linear": "default_modulation.1",
    "norm1.norm": "norm1",
    # The two number them in different order.
    "norm2": "norm3",
    "norm3": "norm2",
}
SKIP = ("skip_linear", "skip_norm")
"""Of the blocks behind the middle one, which take in what the earlier ones gave."""
STYLE = "time_extra_emb.style_embedder"


def original_names(config: Mapping[str, Any]) -> dict[str, str]:
    """diffusers path -> original path of every module that has a weight of its own in both.

    Args:
        config: a HunyuanDiT2DModel's.
    """
    names, depth = dict(OUTSIDE_BLOCKS), config["num_layers"]
    if not config["use_style_cond_and_image_meta_size"]:
        del names[STYLE]
    for number in range(depth):
        block = f"blocks.{number}"
        names |= {f"{block}.{ours}": f"{block}.{theirs}" for ours, theirs in IN_BLOCK.items()}
        if number > depth // 2:
            names |= {f"{block}.{name}": f"{block}.{name}" for name in SKIP}
    return names


def stacks(config: Mapping[str, Any]) -> dict[str, Stack]:
    """Original path -> what stands in its weight, for the modules that are made up otherwise there.

    Self-attention has one weight for q, k and v, cross-attention one for k and v; the last modulation gives shift and
    scale, of which diffusers has the scale first.

    Args:
        config: a HunyuanDiT2DModel's.
    """
    width = config["num_attention_heads"] * config["attention_head_dim"]
    found = {"final_layer.adaLN_modulation.1": (Rows("norm_out.linear", width, width), Rows("norm_out.linear", width))}
    for number in range(config["num_layers"]):
        own, across = f"blocks.{number}.attn1", f"blocks.{number}.attn2"
        found[f"{own}.Wqkv"] = tuple(Rows(f"{own}.to_{letter}", width) for letter in "qkv")
        found[f"{across}.kv_proj"] = tuple(Rows(f"{across}.to_{letter}", width) for letter in "kv")
    return found
