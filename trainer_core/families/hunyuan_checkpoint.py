"""HunyuanDiT's weights in their original names: the transformer in diffusers' names over the same storage."""

from ..lora_file import hunyuan_names
from ..lora_file.hunyuan_names import STYLE
from .original import in_diffusers_names, readable
from .weights import State

PARAMETERS = {
    "text_embedding_padding": "text_embedding_padding",
    "time_extra_emb.pooler.positional_embedding": "pooler.positional_embedding",
}
"""Weights that are no module's weight or bias."""
MLP_RATIO = 4.3637
"""Of the released models, whose layers are 6,144 wide behind 1,408."""
SIDE = 128
"""Of the latents that they were made for."""


def transformer_of(weights: State, label: str) -> tuple[dict, State]:
    """A transformer's configuration, and its weights in diffusers' names.

    All are views of what is given, but for the last modulation (`norm_out.linear`), whose halves are swapped.

    Args:
        weights: in their original names, such as "blocks.0.attn1.Wqkv.weight".
        label: what to call them in a message.

    Raises:
        BadInput: the shape cannot be read, or a stacked weight has another than its configuration says.
    """
    with readable(label):
        config = _config(weights)
    found = in_diffusers_names(weights, hunyuan_names, config, label, PARAMETERS)
    if f"{STYLE}.weight" in found:
        # Only the first of the styles that the original leaves room for was ever trained.
        found[f"{STYLE}.weight"] = found[f"{STYLE}.weight"][:1]
    return config, found


def _config(keys: State) -> dict:
    """
    Raises:
        KeyError: a key is not there that tells something.
    """
    patches, first = keys["x_embedder.proj.weight"], keys["blocks.0.mlp.fc1.weight"]
    width, channels, patch = patches.shape[0], patches.shape[1], patches.shape[2]
    head, text_t5 = keys["blocks.0.attn1.q_norm.weight"].shape[0], keys["pooler.positional_embedding"].shape[0] - 1
    return {
        "num_attention_heads": width // head,
        "attention_head_dim": head,
        "in_channels": channels,
        "patch_size": patch,
        "sample_size": SIDE,
        "hidden_size": width,
        "num_layers": sum(key.endswith(".mlp.fc1.weight") for key in keys),
        "mlp_ratio": _ratio(first.shape[0], width),
        "learn_sigma": keys["final_layer.linear.weight"].shape[0] == 2 * channels * patch**2,
        "cross_attention_dim": keys["blocks.0.attn2.kv_proj.weight"].shape[1],
        "cross_attention_dim_t5": keys["mlp_t5.0.weight"].shape[1],
        "pooled_projection_dim": keys["pooler.c_proj.weight"].shape[0],
        "text_len": keys["text_embedding_padding"].shape[0] - text_t5,
        "text_len_t5": text_t5,
        "use_style_cond_and_image_meta_size": "style_embedder.weight" in keys,
    }


def _ratio(inner: int, width: int) -> float:
    """What of a configuration makes a layer so wide: `int(width * ratio)` is cut, not rounded."""
    if int(width * MLP_RATIO) == inner:
        return MLP_RATIO
    return inner / width if int(width * (inner / width)) == inner else (inner + 0.5) / width
