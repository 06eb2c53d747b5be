"""A LoRA in memory: its matrices by component and module path, and the model that they belong to."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import torch
from torch import nn

Shapes = Mapping[str, tuple[int, ...]]
"""Weight shapes by module path."""
Parts = Mapping[str, torch.Tensor]
"""Tensors of one module, by what they are in it."""


class Misfit(ValueError):
    """Tensors that are whole, but of another shape than the weight that they are for."""


class ModuleWeights(ABC):
    """What an adapter of one kind does to one weight, as files hold it."""

    kind: ClassVar[str]
    """As `adapter.kind` has it."""
    title: ClassVar[str]
    """For a person."""
    word: ClassVar[str] = "weights"
    """What one module's are called in messages."""
    alpha: float

    @classmethod
    @abstractmethod
    def read(cls, parts: Parts, shape: tuple[int, ...], declared: Callable[[int], float]) -> Self:
        """From a file's tensors.

        Args:
            parts: tensors of one module by the names that `foreign.PARTS` gives them.
            shape: of the weight.
            declared: rank -> alpha, for files that have no key for it.

        Raises:
            Misfit: they are for a weight of another shape.
            ValueError: something is missing, or is not what this kind has.
        """

    @abstractmethod
    def parts(self) -> Parts:
        """The tensors to write, by the names of `foreign.PARTS`."""

    @abstractmethod
    def delta(self, weight: torch.Tensor | None = None) -> torch.Tensor:
        """What is added to the weight, in fp32 and in the weight's shape.

        Args:
            weight: needed by the kinds that change a weight by what it is: DoRA and OFT.
        """

    @property
    @abstractmethod
    def form(self) -> dict[str, str | float]:
        """What settings decide of it, by the word for it; equal for weights that fit one another."""


@dataclass(frozen=True)
class LoraPair(ModuleWeights):
    """What is added to one weight: alpha / rank * up @ down (LoRA, Hu et al. 2021).

    A convolution's kernel lies in `down`, and `up` is 1×1: up(down(x)) is then the convolution with their product.
    """

    kind: ClassVar[str] = "lora"
    title: ClassVar[str] = "LoRA"
    word: ClassVar[str] = "pair"

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

    @property
    def form(self) -> dict[str, str | float]:
        return {"rank": self.rank, "alpha": self.alpha}

    def delta(self, weight: torch.Tensor | None = None) -> torch.Tensor:
        product = self.up.float().flatten(1) @ self.down.float().flatten(1)
        return self.scale * product.reshape(self.up.shape[0], *self.down.shape[1:])

    def with_alpha(self, alpha: float) -> Self:
        """The same addition with another alpha, by an `up` in fp32 that makes up for it."""
        return replace(self, up=self.up.detach().float() * (self.alpha / alpha), alpha=alpha)

    def parts(self) -> Parts:
        return {"down": self.down, "up": self.up, "alpha": torch.tensor(self.alpha)}

    @classmethod
    def read(cls, parts: Parts, shape: tuple[int, ...], declared: Callable[[int], float]) -> Self:
        if "down" not in parts or "up" not in parts:
            there = " and ".join(sorted(parts))
            raise ValueError(f"has only {there}; both halves (A and B) are needed: save or download the file again")
        down, up = parts["down"], parts["up"]
        if min(down.ndim, up.ndim) < 2 or down.shape[0] == 0 or down.shape[0] != up.shape[1]:
            raise ValueError(f"A of shape {list(down.shape)} and B of shape {list(up.shape)} do not share a rank")
        rank = down.shape[0]
        # A 1×1 convolution may be stored as a matrix, and a matrix as a 1×1 convolution.
        fits_down = down.numel() == rank * math.prod(shape[1:]) and down.shape[1] == shape[1]
        if not fits_down or up.shape[0] != shape[0] or up.numel() != shape[0] * rank:
            raise Misfit(
                f"A of shape {list(down.shape)} and B of shape {list(up.shape)} do not fit the weight of shape "
                f"{list(shape)}"
            )
        down, up = down.reshape(rank, *shape[1:]), up.reshape(shape[0], rank, *[1] * (len(shape) - 2))
        return cls(down, up, alpha_in(parts, rank, declared))


def empty_pairs(shapes: Shapes) -> dict[str, LoraPair]:
    """Pairs of rank 1 that add nothing, to see what would become of their names."""
    pairs = {}
    for path, (outputs, *inputs) in shapes.items():
        pairs[path] = LoraPair(torch.zeros(1, *inputs), torch.zeros(outputs, 1, *[1] * (len(inputs) - 1)), 1.0)
    return pairs


def alpha_in(parts: Parts, rank: int, declared: Callable[[int], float]) -> float:
    """A module's alpha, from its own key or from what the file declares.

    Raises:
        ValueError: it is no number.
    """
    if "alpha" not in parts:
        return declared(rank)
    alpha = parts["alpha"]
    if alpha.numel() != 1 or not math.isfinite(alpha.item()):
        raise ValueError(f"alpha is not one finite number (shape {list(alpha.shape)})")
    return float(alpha.item())


LoRA = dict[str, dict[str, ModuleWeights]]
"""Component ("unet", "text_encoder", "transformer") -> module path as diffusers names it -> what is done to it."""


@dataclass(frozen=True)
class Target:
    """The model that a LoRA belongs to, as far as file names depend on it; holds shapes, no weights."""

    modules: Mapping[str, Shapes]
    """Component -> module path -> shape of its weight, for the linear and convolution modules."""
    unet_config: Mapping[str, Any] | None = None
    """The configuration of the component "unet", which its original (LDM) names are computed from."""
    transformer: str = ""
    """diffusers' class of the component "transformer", see `transformer_rules.RULES`."""
    transformer_config: Mapping[str, Any] | None = None
    """Its configuration."""

    @staticmethod
    def of(**components: nn.Module) -> "Target":
        """The target from its modules (`unet=…`, `transformer=…`, `text_encoder=…`); they may be on the meta device or
        carry peft's layers."""
        shapes = {name: module_shapes(module) for name, module in components.items()}
        transformer = components.get("transformer")
        kind = type(transformer).__name__ if transformer is not None else ""
        return Target(shapes, _config(components.get("unet")), kind, _config(transformer))


def _config(module: nn.Module | None) -> dict[str, Any] | None:
    return dict(module.config) if module is not None and hasattr(module, "config") else None


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
        if self.unmatched and not self.problem:
            more = f" and {len(self.unmatched) - 2} more" if len(self.unmatched) > 2 else ""
            text += f"; not: {', '.join(self.unmatched[:2])}{more}"
        return text + (f" ({self.problem})" if self.problem else "")
