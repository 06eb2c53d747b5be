"""open_clip's text encoder, as Stable Diffusion XL's checkpoints hold it, in transformers' names."""

import re

from .weights import State

OUTSIDE = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
WITHIN = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
LAYER = re.compile(r"transformer\.resblocks\.(\d+)\.(.+?)[._](weight|bias)$")


def in_transformers_names(state: State) -> State:
    """The weights in the names of transformers' CLIPTextModelWithProjection, without `text_model.`.

    open_clip keeps query, key and value in one matrix, and its projection turned round; `logit_scale` belongs to the
    half that looks at pictures.

    Args:
        state: in open_clip's names; what is in none of them is handed on.
    """
    renamed = {}
    for key, tensor in state.items():
        layer = LAYER.match(key)
        if key == "text_projection":
            renamed["text_projection.weight"] = tensor.T
        elif key in OUTSIDE:
            renamed[OUTSIDE[key]] = tensor
        elif layer and layer[2] == "attn.in_proj":
            for name, part in zip("qkv", tensor.chunk(3), strict=True):
                renamed[f"encoder.layers.{layer[1]}.self_attn.{name}_proj.{layer[3]}"] = part
        elif layer and layer[2] in WITHIN:
            renamed[f"encoder.layers.{layer[1]}.{WITHIN[layer[2]]}.{layer[3]}"] = tensor
        elif key not in ("logit_scale", "attn_mask"):
            renamed[key] = tensor
    return renamed
