"""What a kind of adapter is to the rest: layers that it puts into a model, and what they hold as a file has it."""

from abc import ABC, abstractmethod

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from ..lora_file.lora import ModuleWeights
from .lora_config import LoRAConfig

NAME = "default"
"""peft's name for the one adapter; a LoRA in several parts would need several."""


class Kind(ABC):
    """One kind; it holds no state."""

    name: str
    """As `adapter.kind` has it."""

    @abstractmethod
    def owns(self, layer: nn.Module) -> bool:
        """Whether a module is a layer of this kind."""

    @abstractmethod
    def put(self, model: nn.Module, paths: list[str], config: LoRAConfig) -> None:
        """New layers at `paths`, which change nothing yet; what is random in them comes from torch's global state."""

    @abstractmethod
    def put_finished(self, model: nn.Module, weights: dict[str, ModuleWeights], strength: float) -> None:
        """Layers with weights of any form, which count `strength` times."""

    @abstractmethod
    def take(self, layer: BaseTunerLayer) -> ModuleWeights:
        """What a layer holds, fp32 copies on the CPU."""

    @abstractmethod
    def set(self, layer: BaseTunerLayer, weights: ModuleWeights) -> None:
        """Gives a layer weights of its own form."""


def copied(tensor: torch.Tensor) -> torch.Tensor:
    """An fp32 copy on the CPU, without gradients."""
    return tensor.detach().to("cpu", torch.float32, copy=True)
