"""Captions as token ids, and what CLIP text encoders, one or several, make of them with gradients."""

from collections.abc import Mapping

import torch
from torch import nn

from .base import Conditioning, Tokens

ATTENTION = r"(.*\.)?self_attn\.(q_proj|k_proj|v_proj|out_proj)"
TARGETS = {"attention": ATTENTION, "attention+mlp": rf"({ATTENTION}|(.*\.)?mlp\.(fc1|fc2))"}
"""Presets; attention+mlp is what kohya's trainers take."""


def stack_tokens(entries: list[Tokens], empty: Tokens) -> Tokens:
    """Entries as a batch, int64 [N, 77·k]; shorter captions are continued by windows without words."""
    stacked = {}
    for name, window in empty.items():
        longest = max(len(entry[name]) for entry in entries)
        missing = [(longest - len(entry[name])) // len(window) for entry in entries]
        stacked[name] = torch.stack(
            [torch.cat([entry[name], *[window] * more]) for entry, more in zip(entries, missing, strict=True)]
        )
    return stacked


def encode(
    modules: Mapping[str, nn.Module], tokens: Tokens, length: int, layer: int = -1, normed: bool = True
) -> Conditioning:
    """The states of all encoders side by side: "text", [N, 77·k, width]; each window is encoded by itself.

    No attention mask: Stable Diffusion was trained with the causal mask alone, padding attended to.

    Args:
        modules: CLIPTextModels by name, or what accelerate has wrapped around them. The last one that projects its
            pooled state gives that of the first window, too: "pooled", [N, projection].
        tokens: ids by the same names, [N, 77·k].
        length: tokens of a window.
        layer: whose hidden states, counted from the end; -1 = the last.
        normed: whether the encoder's last norm follows them.
    """
    found, pooled = [], {}
    for name, module in modules.items():
        windows = tokens[name].reshape(-1, length)
        if layer == -1 and normed:
            states = module(windows).last_hidden_state
        else:
            answer = module(windows, output_hidden_states=True)
            states = answer.hidden_states[layer]
            states = last_norm(module)(states) if normed else states
            projected = getattr(answer, "text_embeds", None)
            if projected is not None:
                pooled = {"pooled": projected.reshape(len(tokens[name]), -1, projected.shape[-1])[:, 0]}
        found.append(states.reshape(*tokens[name].shape, -1))
    return {"text": found[0] if len(found) == 1 else torch.cat(found, -1), **pooled}


def last_norm(module: nn.Module) -> nn.Module:
    """The norm behind the last layer of a CLIPTextModel, with or without a projection, wrapped or not."""
    inner = getattr(module, "module", module)
    return getattr(inner, "text_model", inner).final_layer_norm
