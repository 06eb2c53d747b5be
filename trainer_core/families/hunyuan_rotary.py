"""The positions of HunyuanDiT's image tokens as rotary embeddings."""

import torch
from diffusers.models.embeddings import get_2d_rotary_pos_embed_from_grid
from diffusers.pipelines.hunyuandit.pipeline_hunyuandit import get_resize_crop_region_for_grid

BASE = 32
"""Tokens a side of the square that all sizes are fitted into: 512 pixels."""


def rotary(head: int, height: int, width: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine of every image token, float32 [height · width, head].

    A picture is laid in the middle of a square of 32 by 32 positions and scaled to fill it one way; its tokens stand at
    equal distances from the region's beginning on, its end left out, as in HunyuanDiT's own code
    (hydit/modules/posemb_layers.py) and in ComfyUI's. diffusers 0.42 has the same for squares only: since its positions
    are computed by torch, the steps of other sizes are a little too short there.

    Args:
        head: channels of an attention head.
        height, width: of the picture, in tokens.
    """
    begin, end = get_resize_crop_region_for_grid((height, width), BASE)
    rows, columns = (
        first + (last - first) * torch.arange(count, device=device, dtype=torch.float32) / count
        for first, last, count in zip(begin, end, (height, width), strict=True)
    )
    grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"))
    return get_2d_rotary_pos_embed_from_grid(head, grid, use_real=True)
