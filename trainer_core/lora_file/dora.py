"""DoRA in memory: a pair whose sum with the weight is brought to a learned length, output by output."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Self

import torch

from .lora import LoraPair, Misfit, Parts

EPSILON = torch.finfo(torch.float32).eps
"""What ComfyUI adds to a length before it divides by it."""


def lengths(weight: torch.Tensor) -> torch.Tensor:
    """The length of what makes each output of a weight [out, in, …], fp32 [out, 1, …]."""
    return weight.float().flatten(1).norm(dim=1).reshape(-1, *[1] * (weight.ndim - 1))


@dataclass(frozen=True)
class DoraPair(LoraPair):
    """(W + alpha / rank * up @ down) * dora_scale / |W| for a weight W (DoRA, Liu et al. 2024).

    The paper divides by |W + …|. ComfyUI (weight_adapter/base.py, `weight_decompose`) divides by |W| where the scale
    belongs to outputs, so `dora_scale` is the paper's magnitude times |W| / |W + …|: the same numbers, and the host
    computes what was trained.
    """

    kind: ClassVar[str] = "dora"
    title: ClassVar[str] = "DoRA"

    dora_scale: torch.Tensor
    """[out, 1], or [out, 1, 1, 1] for a convolution."""

    def delta(self, weight: torch.Tensor | None = None) -> torch.Tensor:
        weight = weight.float()
        summed = weight + super().delta()
        return summed * (self.dora_scale.float() / (lengths(weight) + EPSILON)) - weight

    @classmethod
    def of_magnitude(cls, pair: LoraPair, magnitude: torch.Tensor, weight: torch.Tensor) -> "DoraPair":
        """From the paper's magnitude [out, 1, …] of each output."""
        scale = magnitude.float() * (lengths(weight) + EPSILON) / lengths(weight + pair.delta().to(weight.device))
        return cls(pair.down, pair.up, pair.alpha, scale)

    def magnitude(self, weight: torch.Tensor) -> torch.Tensor:
        """The paper's magnitude, fp32 [out, 1, …]: the length that each output ends with."""
        summed = weight.float() + super().delta().to(weight.device)
        return self.dora_scale.float().to(weight.device) * lengths(summed) / (lengths(weight) + EPSILON)

    def parts(self) -> Parts:
        return {**super().parts(), "dora_scale": self.dora_scale}

    @classmethod
    def read(cls, parts: Parts, shape: tuple[int, ...], declared: Callable[[int], float]) -> Self:
        pair = LoraPair.read(parts, shape, declared)
        scale = parts["dora_scale"]
        if scale.ndim == len(shape) and scale.shape[0] == 1 != shape[0] and scale.numel() == shape[1]:
            raise ValueError(
                f"dora_scale of shape {list(scale.shape)} belongs to inputs; only scales of outputs are read here "
                "(LyCORIS: wd_on_output). ComfyUI's own loader takes the file"
            )
        if scale.numel() != shape[0] or scale.shape[0] != shape[0]:
            raise Misfit(f"dora_scale of shape {list(scale.shape)} does not fit the weight of shape {list(shape)}")
        return cls(pair.down, pair.up, pair.alpha, scale.reshape(shape[0], *[1] * (len(shape) - 1)))
