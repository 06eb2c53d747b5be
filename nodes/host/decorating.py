"""A decorator behind the host's conditioning: vectors where the text states end, for a part of the sampling."""

import torch

from ...trainer_core.families import masked_slots
from ...trainer_core.lora_file.decorator import DecoratorTokens

MASK = "attention_mask"
"""Of the text states, where an encoder tells which of them are words."""
LATER, LATER_MASK = "conditioning_mt5xl", "attention_mask_mt5xl"
"""Of HunyuanDiT: the states of mT5, which the model reads a fixed number of."""
APART = 1e-5
"""So far two ranges of sampling lie from each other, which the host takes to have their bounds in common."""


def decorated(conditioning: list, decorator: DecoratorTokens, strength: float, start: float, end: float) -> list:
    """CONDITIONING of prompts with a decorator, from `start` to `end` of the sampling; the one that came in is not
    changed, and is the answer itself where nothing follows.

    Args:
        strength: by which the vectors are multiplied; 0 = no decorator.
        start, end: 0..1, of the sampling.

    Raises:
        BadInput: the text states are of another width.
    """
    if not strength or start >= end:
        return conditioning
    return _within(conditioning, decorator, decorator.weight * strength, start, end)


def undecorated(conditioning: list, decorator: DecoratorTokens, strength: float, start: float, end: float) -> list:
    """The same of the unconditional half: zeros stand where the vectors do."""
    if not strength or start >= end:
        return conditioning
    return _within(conditioning, decorator, torch.zeros_like(decorator.weight), start, end)


def _within(conditioning: list, decorator: DecoratorTokens, vectors: torch.Tensor, start: float, end: float) -> list:
    found = []
    for states, extras in conditioning:
        decorator.check_width(extras.get(LATER, states).shape[-1], "this conditioning")
        whole = extras.get("start_percent", 0.0), extras.get("end_percent", 1.0)
        first, last = max(start, whole[0]), min(end, whole[1])
        if first >= last:
            found.append([states, extras])
            continue
        if first > whole[0]:
            found.append([states, {**extras, "start_percent": whole[0], "end_percent": first - APART}])
        ranged = {"start_percent": first, "end_percent": last} if (first, last) != (0.0, 1.0) else {}
        found.append(_followed(states, {**extras, **ranged}, vectors))
        if last < whole[1]:
            found.append([states, {**extras, "start_percent": last + APART, "end_percent": whole[1]}])
    return found


def _followed(states: torch.Tensor, extras: dict, vectors: torch.Tensor) -> list:
    """An entry of a CONDITIONING with vectors behind its text, as `Family.with_tokens` has them."""
    if LATER in extras:
        text, mask = extras[LATER], extras[LATER_MASK]
        text, mask = masked_slots.filled(text, mask, vectors.expand(len(text), -1, -1))
        return [states, {**extras, LATER: text, LATER_MASK: mask}]
    behind = vectors.to(states).expand(len(states), -1, -1)
    mask = extras.get(MASK)
    if mask is not None and mask.shape[-1] == states.shape[1]:
        # Whoever takes them for padding would not see them.
        seen = torch.ones((*mask.shape[:-1], len(vectors)), dtype=mask.dtype, device=mask.device)
        extras = {**extras, MASK: torch.cat([mask, seen], dim=-1)}
    return [torch.cat([states, behind], dim=1), extras]
