"""A LoRA in memory: pairs of matrices by component and module path, and the model that they belong to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

Shapes = Mapping[str, tuple[int, ...]]
"""Weight shapes by module path."""


@dataclass(frozen=True)
class LoraPair:
    """What is added to one weight: alpha / rank * up @ down.

    A convolution's kernel lies in `down`, and `up` is 1×1: up(down(x)) is then the convolution with their product.
    """

    down: torch.Tensor
    """A: [rank, in], or [rank, in, height, width] for a convolution."""
    up: torch.Tensor
    """B: [out, rank], or [out, rank, 1, 1] for a convolution."""
    alpha: float

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    def delta(self) -> torch.Tensor:
        """What is added to the weight, in fp32 and in the weight's shape."""
        product = self.up.float().flatten(1) @ self.down.float().flatten(1)
        return self.scale * product.reshape(self.up.shape[0], *self.down.shape[1:])


LoRA = dict[str, dict[str, LoraPair]]
"""Component ("unet", "text_encoder", "transformer") -> module path as diffusers names it -> pair."""


@dataclass(frozen=True)
class Target:
    """The model that a LoRA belongs to, as far as file names depend on it; holds shapes, no weights."""

    modules: Mapping[str, Shapes]
    """Component -> module path -> shape of its weight, for the linear and convolution modules."""
    unet_config: Mapping[str, Any] | None = None
    """The configuration of the component "unet", which its original (LDM) names are computed from."""

    @staticmethod
    def of(**components: nn.Module) -> "Target":
        """The target from its modules (`unet=…`, `text_encoder=…`); they may be on the meta device or carry peft's
        layers."""
        unet = components.get("unet")
        config = dict(unet.config) if unet is not None and hasattr(unet, "config") else None
        return Target({name: module_shapes(module) for name, module in components.items()}, config)


def module_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Paths and weight shapes of the linear and 2-D convolution modules; peft's wrappers are seen through."""
    shapes = {}
    for path, module in model.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)) and not _WITHIN_WRAPPER.intersection(path.split(".")):
            shapes[path.removesuffix(".base_layer")] = tuple(module.weight.shape)
    return shapes


_WITHIN_WRAPPER = {"lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector", "ranknum"}


@dataclass
class ReaderReport:
    """How much of a file one reader would load; a module counts when both its halves reach a weight of its shape."""

    reader: str
    loaded: int
    total: int
    unmatched: list[str] = field(default_factory=list)
    """Keys of the file that the reader leaves aside."""
    problem: str = ""
    """Why nothing loads, where the reader refuses the file as a whole."""

    @property
    def complete(self) -> bool:
        return self.total > 0 and self.loaded == self.total and not self.unmatched

    def line(self) -> str:
        """One line for a person."""
        text = f"{self.loaded} of {self.total} modules load in {self.reader}"
        if self.unmatched:
            more = f" and {len(self.unmatched) - 2} more" if len(self.unmatched) > 2 else ""
            text += f"; not: {', '.join(self.unmatched[:2])}{more}"
        return text + (f" ({self.problem})" if self.problem else "")
