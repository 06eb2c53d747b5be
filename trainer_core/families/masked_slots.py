"""Vectors in the places of padding: how text of a fixed length, whose mask tells words from padding, takes more in."""

import torch


def filled(states: torch.Tensor, mask: torch.Tensor, vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """States and mask with vectors behind the last word; where a caption leaves too little room, over its end.

    Args:
        states: [N, L, width].
        mask: of words (not 0), [N, L].
        vectors: [N, n, width], n at most L, on any device.

    Returns:
        Both of the same shapes and precisions, in other storage.
    """
    count, length = vectors.shape[1], states.shape[1]
    places = torch.arange(length, device=mask.device)
    words = ((mask != 0) * (places + 1)).amax(dim=1)
    taken = words.clamp(max=length - count)[:, None] + places[:count]
    wide = taken[..., None].expand(-1, -1, states.shape[-1]).to(states.device)
    return states.scatter(1, wide, vectors.to(states)), mask.scatter(1, taken, torch.ones_like(mask))
