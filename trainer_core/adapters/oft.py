"""OFT: layers that rotate blocks of a module's outputs."""

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from ..errors import BadInput
from ..lora_file.oft import OftBlocks, cayley_change
from .kind import NAME, Kind, copied
from .lora_config import LoRAConfig


class RotatedOutput(nn.Module, BaseTunerLayer):
    """A module whose outputs, its bias aside, are rotated block by block (OFT, Qiu et al. 2023).

    peft's own OFT (0.16 and later) rotates the inputs. LyCORIS, and ComfyUI that reads its files, rotate the outputs,
    and neither rotation can be written as the other.

    Args:
        base_layer: linear, or a convolution.
        side: of the blocks; divides the outputs.
    """

    adapter_layer_names = ("oft_R",)

    def __init__(self, base_layer: nn.Module, side: int):
        super().__init__()
        self.base_layer = base_layer
        self.side, self.strength = side, 1.0
        self._disable_adapters, self._active_adapter, self.merged_adapters = False, NAME, []
        weight = base_layer.weight
        upper = torch.zeros(weight.shape[0] // side, side * (side - 1) // 2, device=weight.device)
        self.oft_R = nn.ParameterDict({NAME: nn.Parameter(upper)})

    def skew(self) -> torch.Tensor:
        """Q of each block, [blocks, side, side]; what trains is the part above its diagonal, row by row."""
        upper = self.oft_R[NAME]
        row, column = torch.triu_indices(self.side, self.side, 1, device=upper.device)
        half = upper.new_zeros(len(upper), self.side, self.side)
        half[:, row, column] = upper
        return half - half.transpose(1, 2)

    def set_skew(self, skew: torch.Tensor) -> None:
        row, column = torch.triu_indices(self.side, self.side, 1)
        self.oft_R[NAME].copy_(skew[:, row, column])

    def forward(self, x: torch.Tensor, *args, **kwargs) -> torch.Tensor:
        answer = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters:
            return answer
        # Channels stand last in what a linear layer answers, and behind the batch in what a convolution does.
        channels = -1 if isinstance(self.base_layer, nn.Linear) else 1
        turned = answer.movedim(channels, -1)
        if self.base_layer.bias is not None:
            turned = turned - self.base_layer.bias
        blocks = turned.unflatten(-1, (-1, self.side))
        change = self.strength * cayley_change(self.skew()).to(blocks.dtype)
        added = torch.einsum("...kn,knm->...km", blocks, change).flatten(-2)
        return answer + added.movedim(-1, channels).to(answer.dtype)


class Oft(Kind):
    name = "oft"

    def owns(self, layer: nn.Module) -> bool:
        return isinstance(layer, RotatedOutput)

    def put(self, model: nn.Module, paths: list[str], config: LoRAConfig) -> None:
        for path in paths:
            outputs = model.get_submodule(path).weight.shape[0]
            side = max(side for side in range(1, min(config.rank, outputs) + 1) if outputs % side == 0)
            if side == 1:
                raise BadInput(
                    f"adapter.rank: {config.rank}, but no block of 2 to {config.rank} divides the {outputs} outputs of "
                    f"{path}, so nothing in it could be rotated; raise the rank, or name it in adapter.exclude"
                )
            _wrap(model, path, side)

    def put_finished(self, model: nn.Module, weights: dict[str, OftBlocks], strength: float) -> None:
        for path, held in weights.items():
            layer = _wrap(model, path, held.side)
            layer.strength = strength
            with torch.no_grad():
                layer.set_skew(held.skew)

    def take(self, layer: RotatedOutput) -> OftBlocks:
        return OftBlocks(copied(layer.skew()))

    def set(self, layer: RotatedOutput, weights: OftBlocks) -> None:
        layer.set_skew(weights.skew)


def _wrap(model: nn.Module, path: str, side: int) -> RotatedOutput:
    parent, _, name = path.rpartition(".")
    layer = RotatedOutput(model.get_submodule(path), side)
    setattr(model.get_submodule(parent), name, layer)
    return layer
