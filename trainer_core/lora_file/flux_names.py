"""Names of a Flux's modules: the paths of diffusers and the original ones, which stack several of them."""

import re
from collections.abc import Iterable

DOUBLE = {
    "img_mod.lin": ("norm1.linear",),
    "txt_mod.lin": ("norm1_context.linear",),
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "img_attn.norm.query_norm": ("attn.norm_q",),
    "img_attn.norm.key_norm": ("attn.norm_k",),
    "txt_attn.norm.query_norm": ("attn.norm_added_q",),
    "txt_attn.norm.key_norm": ("attn.norm_added_k",),
    "img_attn.proj": ("attn.to_out.0",),
    "txt_attn.proj": ("attn.to_add_out",),
    "img_mlp.0": ("ff.net.0.proj",),
    "img_mlp.2": ("ff.net.2",),
    "txt_mlp.0": ("ff_context.net.0.proj",),
    "txt_mlp.2": ("ff_context.net.2",),
}
"""In a block of two streams, picture and text."""
SINGLE = {
    "modulation.lin": ("norm.linear",),
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "linear2": ("proj_out",),
    "norm.query_norm": ("attn.norm_q",),
    "norm.key_norm": ("attn.norm_k",),
}
"""In a block of one stream."""
OUTSIDE_BLOCKS = {
    "img_in": ("x_embedder",),
    "txt_in": ("context_embedder",),
    "time_in.in_layer": ("time_text_embed.timestep_embedder.linear_1",),
    "time_in.out_layer": ("time_text_embed.timestep_embedder.linear_2",),
    "vector_in.in_layer": ("time_text_embed.text_embedder.linear_1",),
    "vector_in.out_layer": ("time_text_embed.text_embedder.linear_2",),
    "guidance_in.in_layer": ("time_text_embed.guidance_embedder.linear_1",),
    "guidance_in.out_layer": ("time_text_embed.guidance_embedder.linear_2",),
    "final_layer.adaLN_modulation.1": ("norm_out.linear",),
    "final_layer.linear": ("proj_out",),
}
SCALE_FIRST = "norm_out.linear"
"""Its rows are scale and shift in diffusers, shift and scale in the original."""

BLOCKS = {"double_blocks": ("transformer_blocks", DOUBLE), "single_blocks": ("single_transformer_blocks", SINGLE)}


def diffusers_paths(original: str) -> tuple[str, ...]:
    """The diffusers modules whose rows an original module stacks, in their order; empty where it is none of Flux's.

    Args:
        original: such as "double_blocks.0.img_attn.qkv".
    """
    found = re.fullmatch(r"(double_blocks|single_blocks)\.(\d+)\.(.+)", original)
    if found is None:
        return OUTSIDE_BLOCKS.get(original, ())
    blocks, inner = BLOCKS[found[1]]
    return tuple(f"{blocks}.{found[2]}.{path}" for path in inner.get(found[3], ()))


def original_modules(paths: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Original module -> the diffusers modules whose rows it stacks, in their order, for all that hold one of `paths`.

    Args:
        paths: diffusers' modules; what has no original name is left out.
    """
    found: dict[str, tuple[str, ...]] = {}
    for path in paths:
        original = _original_of(path)
        if original:
            found[original] = diffusers_paths(original)
    return found


def _original_of(path: str) -> str | None:
    within = re.fullmatch(r"(transformer_blocks|single_transformer_blocks)\.(\d+)\.(.+)", path)
    for blocks, (name, inner) in BLOCKS.items():
        if within and within[1] == name:
            return next((f"{blocks}.{within[2]}.{own}" for own, held in inner.items() if within[3] in held), None)
    return next((own for own, held in OUTSIDE_BLOCKS.items() if path in held), None)
