"""OFT in memory: blocks of a weight's outputs, each rotated."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Self

import torch

from .lora import Misfit, ModuleWeights, Parts, alpha_in


def cayley_change(skew: torch.Tensor) -> torch.Tensor:
    """R - I for the rotation R = (I + Q)(I - Q)⁻¹ (Cayley's; Qiu et al. 2023, section 3.3): for small Q it keeps what
    R would round away.

    Args:
        skew: Q, skew-symmetric, fp32 [blocks, side, side].
    """
    identity = torch.eye(skew.shape[-1], device=skew.device, dtype=skew.dtype).expand_as(skew)
    # I - Q is never singular; solve() would wait for a GPU to say so.
    return torch.linalg.solve_ex(identity - skew, 2 * skew, left=False).result


@dataclass(frozen=True)
class OftBlocks(ModuleWeights):
    """Each block w [side, in, …] of a weight's outputs becomes Rᵀ w (OFT, Qiu et al. 2023, as LyCORIS' Diag-OFT)."""

    kind: ClassVar[str] = "oft"
    title: ClassVar[str] = "OFT"

    skew: torch.Tensor
    """Q: [blocks, side, side], skew-symmetric; block times side = outputs."""

    @property
    def alpha(self) -> float:
        """In files of this kind the largest length that Q may have; 0 = any."""
        return 0.0

    @property
    def side(self) -> int:
        return self.skew.shape[1]

    @property
    def form(self) -> dict[str, str | float]:
        return {"blocks of the side": self.side}

    def delta(self, weight: torch.Tensor | None = None) -> torch.Tensor:
        blocks = weight.float().unflatten(0, (-1, self.side))
        return torch.einsum("knm,kn...->km...", cayley_change(self.skew.float()), blocks).flatten(0, 1)

    def parts(self) -> Parts:
        # Readers take Q as B - Bᵀ.
        return {"oft_blocks": self.skew.triu(1), "alpha": torch.tensor(self.alpha)}

    @classmethod
    def read(cls, parts: Parts, shape: tuple[int, ...], declared: Callable[[int], float]) -> Self:
        blocks = parts["oft_blocks"].float()
        if blocks.ndim == 4:
            raise ValueError("oft_blocks have four axes, as BOFT's have, which is not read here; ComfyUI loads it")
        if blocks.ndim != 3 or blocks.shape[1] != blocks.shape[2] or blocks.shape[0] * blocks.shape[1] != shape[0]:
            raise Misfit(f"oft_blocks of shape {list(blocks.shape)} do not fit the weight of shape {list(shape)}")
        skew = blocks - blocks.transpose(1, 2)
        longest = alpha_in(parts, blocks.shape[1], lambda rank: 0.0)
        if longest > 0:
            # As ComfyUI and LyCORIS hold it to its constraint.
            skew = skew * min(1.0, longest / (float(skew.norm()) + 1e-8))
        return cls(skew)
