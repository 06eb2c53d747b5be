"""A batch: everything that a training step needs of the data."""

import dataclasses
from dataclasses import dataclass

import torch

from .encoding import Conditioning
from .views import View


@dataclass(frozen=True)
class Batch:
    """Everything that a training step needs of the data; entries in the order of `keys`."""

    latents: torch.Tensor
    """float32 [N, C, h, w]."""
    conditioning: Conditioning
    """Or tokens, where the dataset hands captions out so."""
    keys: list[str]
    captions: list[str]
    views: list[View]
    taught: torch.Tensor
    """Which entries show what is to be learned under a caption, bool [N]: neither those whose caption dropout took, nor
    regularisation pictures."""
    weights: torch.Tensor | None = None
    """How much each entry counts in the loss, float32 [N]; None where all count 1."""
    masks: torch.Tensor | None = None
    """How much each place counts in its entry's loss, float32 [N, 1, h, w] in 0..1; None where all count alike."""

    def pinned(self) -> "Batch":
        """The batch in memory from which a GPU can copy beside its work."""
        return dataclasses.replace(
            self,
            latents=self.latents.pin_memory(),
            conditioning={name: tensor.pin_memory() for name, tensor in self.conditioning.items()},
            taught=self.taught.pin_memory(),
            weights=None if self.weights is None else self.weights.pin_memory(),
            masks=None if self.masks is None else self.masks.pin_memory(),
        )
