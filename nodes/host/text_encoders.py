"""The host's CLIP as modules that can learn: transformers' over the same storage."""

import comfy.clip_model
import comfy.sd1_clip
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from ...trainer_core.errors import BadInput
from ...trainer_core.families.base import Family
from ...trainer_core.families.clip_text import fit_prefix
from ...trainer_core.families.weights import assemble
from .originals import originals, shared

NAMES = {"sd15": {"te": "l"}, "sdxl": {"te1": "l", "te2": "g"}}
"""By family: our names of its text encoders, and the host's."""
DTYPE = "manual_cast_dtype"
"""The object patch that every CLIP has: in which precision it computes."""
WAY_OUT = "load the CLIP with its checkpoint, or set text_encoder to 'off'"


def text_encoders_of(clip, family: Family) -> dict[str, nn.Module]:
    """The text encoders of a CLIP by the names that kohya's keys have for them; their weights must not be written to.

    Args:
        clip: comfy.sd.CLIP.

    Raises:
        BadInput: it is patched, or not made as the family's text encoders are.
    """
    patcher = clip.patcher
    replaced = [name for name in patcher.object_patches if name != DTYPE]
    if patcher.patches or replaced or patcher.forced_hooks:
        raise BadInput(
            f"clip: is changed ({len(patcher.patches)} of its weights are patched: a LoRA is loaded in front of the "
            "training?), and a text encoder learns on its own weights alone. Wire the CLIP from before that"
        )
    state = originals(patcher)
    return {name: _module(clip, f"clip_{letter}", state) for name, letter in NAMES[family.name].items()}


def letters_of(family: Family) -> dict[str, str]:
    """Our names of a family's text encoders, and those under which the host's tokenizer has their tokens."""
    return NAMES[family.name]


def _module(clip, attribute: str, state: dict) -> CLIPTextModel | CLIPTextModelWithProjection:
    encoder = getattr(clip.cond_stage_model, attribute, None)
    inner = getattr(getattr(encoder, "transformer", None), "text_model", None)
    usual = isinstance(encoder, comfy.sd1_clip.SDClipModel) and isinstance(inner, comfy.clip_model.CLIPTextModel_)
    if not usual or encoder.enable_attention_masks or encoder.zero_out_masked:
        raise BadInput(f"clip: is no plain CLIP text encoder ({type(encoder).__name__}), so it cannot learn; {WAY_OUT}")
    # The second encoder of SDXL gives its pooled state, too.
    projects = attribute == "clip_g"
    kind = CLIPTextModelWithProjection if projects else CLIPTextModel
    prefix = f"{attribute}.transformer."
    own = {key.removeprefix(prefix): weight for key, weight in state.items() if key.startswith(prefix)}
    own = {key: weight for key, weight in own.items() if projects or key.startswith("text_model.")}
    config = CLIPTextConfig.from_dict(_described(inner))
    return assemble(kind, config, fit_prefix(shared(own, "clip"), kind, config), None, f"the {attribute} of clip")


def _described(inner) -> dict:
    """The configuration, read off the host's modules."""
    layer, embeddings = inner.encoder.layers[0], inner.embeddings
    rows, width = embeddings.token_embedding.weight.shape
    return {
        "vocab_size": rows,
        "hidden_size": width,
        "intermediate_size": layer.mlp.fc1.weight.shape[0],
        "projection_dim": width,
        "eos_token_id": inner.eos_token_id,
        "num_hidden_layers": len(inner.encoder.layers),
        "num_attention_heads": layer.self_attn.heads,
        "max_position_embeddings": embeddings.position_embedding.weight.shape[0],
        "layer_norm_eps": float(inner.final_layer_norm.eps),
        "hidden_act": next(
            name for name, function in comfy.clip_model.ACTIVATIONS.items() if function is layer.mlp.activation
        ),
    }
