"""Captions' conditioning as a batch, by how those that are shorter than others are continued."""

import torch

from .base import Conditioning


def side_by_side(entries: list[Conditioning]) -> Conditioning:
    """Captions of one length: each tensor [...] becomes [N, ...]."""
    return {name: torch.stack([entry[name] for entry in entries]) for name in entries[0]}


def continued_by_windows(entries: list[Conditioning], empty: Conditioning) -> Conditioning:
    """Text states [N, 77·k, width], shorter captions continued by windows without words; what has no axis of tokens
    ("pooled", [N, width]) side by side.

    Args:
        empty: of the empty caption, one window.
    """
    longest, window = _longest(entries), empty["text"]
    return _stacked([[e["text"], *[window] * ((longest - len(e["text"])) // len(window))] for e in entries], entries)


def continued_by_padding(entries: list[Conditioning], empty: Conditioning) -> Conditioning:
    """Text states [N, tokens, width], shorter captions continued by what stands for no word; the rest side by side.

    Args:
        empty: of the empty caption, whose last state is T5's of padding.
    """
    longest, last = _longest(entries), empty["text"][-1:]
    return _stacked([[e["text"], last.expand(longest - len(e["text"]), -1)] for e in entries], entries)


def _longest(entries: list[Conditioning]) -> int:
    return max(len(entry["text"]) for entry in entries)


def _stacked(texts: list[list[torch.Tensor]], entries: list[Conditioning]) -> Conditioning:
    others = [{name: tensor for name, tensor in entry.items() if name != "text"} for entry in entries]
    return {"text": torch.stack([torch.cat(pieces) for pieces in texts]), **side_by_side(others)}
