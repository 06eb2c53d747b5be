"""LoKr in memory: the Kronecker product of two small weights, each whole or as a pair."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Self

import torch

from .lora import Misfit, ModuleWeights, Parts, alpha_in

NAMES = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")


@dataclass(frozen=True)
class LokrWeights(ModuleWeights):
    """What is added to one weight: scale * w1 ⊗ w2 (Yeh et al. 2024, LyCORIS).

    w1 is [out1, in1], w2 [out2, in2] (of a convolution [out2, in2, height, width], or flat behind out2), and the weight
    [out1 × out2, in1 × in2, …]. Each may be given as w_a @ w_b, w2 also as a Tucker product with a core t2
    [rank, rank, height, width]. The scale is alpha / rank; every reader takes it as 1 where neither is a pair.
    """

    kind: ClassVar[str] = "lokr"
    title: ClassVar[str] = "LoKr"

    tensors: Parts
    """By NAMES."""
    alpha: float
    shape: tuple[int, ...]
    """Of the weight."""

    @property
    def rank(self) -> int | None:
        """None where both factors are whole."""
        pair = self.tensors.get("lokr_w2_b", self.tensors.get("lokr_w1_b"))
        return None if pair is None else pair.shape[0]

    @property
    def scale(self) -> float:
        return 1.0 if self.rank is None else self.alpha / self.rank

    @property
    def form(self) -> dict[str, str | float]:
        shapes = {name: "×".join(map(str, tensor.shape)) for name, tensor in self.tensors.items()}
        return shapes | ({} if self.rank is None else {"alpha": self.alpha})

    def factors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """w1 and w2, whole, fp32."""
        held = {name.removeprefix("lokr_"): tensor.float() for name, tensor in self.tensors.items()}
        first = held["w1"] if "w1" in held else held["w1_a"] @ held["w1_b"]
        if "w2" in held:
            second = held["w2"]
        elif "t2" in held:
            second = torch.einsum("ij...,ip,jr->pr...", held["t2"], held["w2_a"], held["w2_b"])
        else:
            second = held["w2_a"] @ held["w2_b"]
        return first, second

    def delta(self, weight: torch.Tensor | None = None) -> torch.Tensor:
        first, second = self.factors()
        first = first.reshape(*first.shape, *[1] * (second.ndim - 2))
        return self.scale * torch.kron(first, second.contiguous()).reshape(self.shape)

    def parts(self) -> Parts:
        return {**self.tensors, "alpha": torch.tensor(self.alpha)}

    @classmethod
    def read(cls, parts: Parts, shape: tuple[int, ...], declared: Callable[[int], float]) -> Self:
        tensors = {name: parts[name] for name in NAMES if name in parts}
        for factor in ("lokr_w1", "lokr_w2"):
            pair = [f"{factor}_a" in tensors, f"{factor}_b" in tensors]
            if (factor in tensors) == all(pair) or any(pair) != all(pair):
                raise ValueError(f"needs {factor}, or {factor}_a and {factor}_b: save or download the file again")
        shapes = ", ".join(f"{name} of shape {list(tensor.shape)}" for name, tensor in tensors.items())
        misfit = Misfit(f"{shapes}: their product does not fit the weight of shape {list(shape)}")
        pair = tensors.get("lokr_w2_b", tensors.get("lokr_w1_b"))
        rank = 1 if pair is None or not pair.ndim else pair.shape[0]
        if not rank:
            raise misfit
        found = cls(tensors, alpha_in(parts, rank, declared), tuple(shape))
        try:
            # On the meta device nothing is computed but shapes.
            first, second = cls({n: t.to("meta") for n, t in tensors.items()}, 0.0, found.shape).factors()
        except (RuntimeError, IndexError):
            raise misfit from None
        if first.ndim != 2 or second.ndim not in (2, len(shape)):
            raise misfit
        behind = (shape[1], *shape[2:]) if second.ndim == len(shape) else (math.prod(shape[1:]),)
        made = (first.shape[0] * second.shape[0], first.shape[1] * second.shape[1], *second.shape[2:])
        if made != (shape[0], *behind):
            raise misfit
        return found
