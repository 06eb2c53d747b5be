"""What alpha means in a LoRA file."""

import math


def effective_alpha(rank: int, alpha: float, rslora: bool) -> float:
    """The alpha to store with a pair, so that readers, who apply alpha / rank, get the scale of the training.

    Rank-stabilised LoRA (Kalajdzievski, 2023) trains with alpha / sqrt(rank).
    """
    return alpha * math.sqrt(rank) if rslora else alpha
