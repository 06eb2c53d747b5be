"""Decorator tokens: learned vectors that follow a prompt's text states on their way to the denoiser."""

import torch
from torch import nn


class Decorator(nn.Module):
    """The vectors; zeros in their places where a prompt is to be without them.

    As in ai-toolkit (toolkit/decorator.py), whose files hold the same one tensor.

    Args:
        weight: float [n, width]; what trains is a float32 copy.
    """

    def __init__(self, weight: torch.Tensor):
        super().__init__()
        self.weight = nn.Parameter(weight.detach().to(torch.float32, copy=True))

    def forward(self, on: torch.Tensor) -> torch.Tensor:
        """What follows each prompt, float32 [N, n, width].

        Args:
            on: bool [N]; zeros follow where it is False, as they do in the unconditional half of a guided prediction.
        """
        return torch.where(on[:, None, None], self.weight, torch.zeros_like(self.weight))
