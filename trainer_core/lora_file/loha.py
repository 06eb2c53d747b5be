"""LoHa in memory: the elementwise product of two pairs."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Self

import torch

from .lora import Misfit, ModuleWeights, Parts, alpha_in

MATRICES = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
CORES = ("hada_t1", "hada_t2")


@dataclass(frozen=True)
class LohaWeights(ModuleWeights):
    """What is added to one weight: alpha / rank * (w1_a @ w1_b) * (w2_a @ w2_b), elementwise (FedPara, Hyeon-Woo et al.
    2022, proposition 1), or for a convolution each factor as a Tucker product with a core t (proposition 3)."""

    kind: ClassVar[str] = "loha"
    title: ClassVar[str] = "LoHa"

    tensors: Parts
    """w1_a and w2_a [out, rank], w1_b and w2_b [rank, in × height × width]; with the cores [rank, rank, height, width]
    they are [rank, out] and [rank, in]."""
    alpha: float
    shape: tuple[int, ...]
    """Of the weight."""

    @property
    def rank(self) -> int:
        return self.tensors["hada_w1_b"].shape[0]

    @property
    def form(self) -> dict[str, str | float]:
        return {"rank": self.rank, "alpha": self.alpha} | (
            {"a Tucker core": "yes"} if "hada_t1" in self.tensors else {}
        )

    def delta(self, weight: torch.Tensor | None = None) -> torch.Tensor:
        product = self._factor("hada_w1", "hada_t1") * self._factor("hada_w2", "hada_t2")
        return self.alpha / self.rank * product.reshape(self.shape)

    def _factor(self, name: str, core: str) -> torch.Tensor:
        a, b = self.tensors[f"{name}_a"].float(), self.tensors[f"{name}_b"].float()
        if core in self.tensors:
            return torch.einsum("ij...,ip,jr->pr...", self.tensors[core].float(), a, b)
        return a @ b

    def parts(self) -> Parts:
        return {**self.tensors, "alpha": torch.tensor(self.alpha)}

    @classmethod
    def read(cls, parts: Parts, shape: tuple[int, ...], declared: Callable[[int], float]) -> Self:
        names = MATRICES + (CORES if any(core in parts for core in CORES) else ())
        missing = [name for name in names if name not in parts]
        if missing:
            raise ValueError(f"has no {' and no '.join(missing)}: save or download the file again")
        rank = parts["hada_w1_b"].shape[0] if parts["hada_w1_b"].ndim else 0
        if len(names) == len(MATRICES):
            a, b = (shape[0], rank), (rank, math.prod(shape[1:]))
        else:
            a, b = (rank, shape[0]), (rank, shape[1])
        core = (rank, rank, *shape[2:])
        for name in names:
            wanted = core if name in CORES else a if name.endswith("_a") else b
            if not rank or tuple(parts[name].shape) != wanted:
                raise Misfit(
                    f"{name} of shape {list(parts[name].shape)} does not fit the weight of shape {list(shape)} at rank "
                    f"{rank}, where it is {list(wanted)}"
                )
        return cls({name: parts[name] for name in names}, alpha_in(parts, rank, declared), tuple(shape))
