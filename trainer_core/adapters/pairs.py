"""Pairs of matrices in peft's LoRA layers: LoRA, and DoRA with a magnitude beside each pair."""

import re

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn

from ..errors import BadInput
from ..lora_file.dora import DoraPair, lengths
from ..lora_file.lora import LoraPair
from .kind import NAME, Kind, copied
from .lora_config import LoRAConfig


class Lora(Kind):
    name = "lora"
    has_magnitude = False

    def owns(self, layer: nn.Module) -> bool:
        return isinstance(layer, LoraLayer) and (NAME in layer.lora_magnitude_vector) == self.has_magnitude

    def put(self, model: nn.Module, paths: list[str], config: LoRAConfig) -> None:
        settings = LoraConfig(
            r=config.rank,
            lora_alpha=config.strength,
            target_modules=paths,
            lora_dropout=config.dropout,
            use_rslora=config.rslora,
            use_dora=self.has_magnitude,
            bias="none",
        )
        inject_adapter_in_model(settings, model, NAME)

    def put_finished(self, model: nn.Module, weights: dict[str, LoraPair], strength: float) -> None:
        settings = LoraConfig(
            r=1,
            target_modules=list(weights),
            rank_pattern={f"^{re.escape(path)}": pair.rank for path, pair in weights.items()},
            alpha_pattern={f"^{re.escape(path)}": self._alpha(pair, strength) for path, pair in weights.items()},
            use_dora=self.has_magnitude,
            bias="none",
        )
        dtype = next(model.parameters()).dtype
        inject_adapter_in_model(settings, model, NAME)
        with torch.no_grad():
            for path, pair in weights.items():
                layer = model.get_submodule(path)
                for half in (layer.lora_A[NAME], layer.lora_B[NAME]):
                    half.to(dtype)
                self._put_one(layer, pair, strength)

    def _put_one(self, layer: LoraLayer, pair: LoraPair, strength: float) -> None:
        self.set(layer, pair)

    def _alpha(self, pair: LoraPair, strength: float) -> float:
        return pair.alpha * strength

    def take(self, layer: LoraLayer) -> LoraPair:
        down, up = (copied(half[NAME].weight) for half in (layer.lora_A, layer.lora_B))
        return LoraPair(down, up, layer.scaling[NAME] * layer.r[NAME])

    def set(self, layer: LoraLayer, weights: LoraPair) -> None:
        layer.lora_A[NAME].weight.copy_(weights.down)
        layer.lora_B[NAME].weight.copy_(weights.up)


def _length(weight: torch.Tensor, lora_weight: torch.Tensor, scaling: float, adapter_name: str = "") -> torch.Tensor:
    """The length of each output of a weight with its pair added, in the shape that peft's DoRA layer has it in.

    peft rounds it to the precision of the base, in bf16 to eight bits, by which a fresh adapter would change what the
    model answers.
    """
    with torch.autocast(weight.device.type, enabled=False):
        found = lengths(weight.float() + scaling * lora_weight.float())
    return found.flatten() if weight.ndim == 2 else found.transpose(0, 1)


class Dora(Lora):
    name = "dora"
    has_magnitude = True

    def put(self, model: nn.Module, paths: list[str], config: LoRAConfig) -> None:
        super().put(model, paths, config)
        for path in paths:
            self._measured_in_full(model.get_submodule(path))
            if not self._magnitude(model.get_submodule(path)).all():
                raise BadInput(
                    f"adapter.kind: dora cannot train {path}, which has outputs whose weights are all zero, so without "
                    "a direction; name it in adapter.exclude, or choose another kind"
                )

    def _put_one(self, layer: LoraLayer, pair: DoraPair, strength: float) -> None:
        self._measured_in_full(layer)
        self.set(layer, pair)
        # peft adds this to what the base answers, so a share of it is a share of the way to the new weight.
        layer.lora_magnitude_vector[NAME].register_forward_hook(lambda module, given, added: strength * added)

    def _alpha(self, pair: LoraPair, strength: float) -> float:
        return pair.alpha

    def take(self, layer: LoraLayer) -> DoraPair:
        weight = layer.get_base_layer().weight.detach()
        magnitude = self._magnitude(layer).detach().reshape(-1, *[1] * (weight.ndim - 1)).to(weight.device)
        down, up = (half[NAME].weight.detach().float() for half in (layer.lora_A, layer.lora_B))
        pair = LoraPair(down, up, layer.scaling[NAME] * layer.r[NAME])
        scaled = DoraPair.of_magnitude(pair, magnitude, weight)
        return DoraPair(copied(down), copied(up), pair.alpha, copied(scaled.dora_scale))

    def set(self, layer: LoraLayer, weights: DoraPair) -> None:
        super().set(layer, weights)
        magnitude = self._magnitude(layer)
        magnitude.copy_(weights.magnitude(layer.get_base_layer().weight).reshape(magnitude.shape))

    def _measured_in_full(self, layer: LoraLayer) -> None:
        """Lengths in fp32, and the magnitude that changes nothing while B is zero."""
        layer.lora_magnitude_vector[NAME].get_weight_norm = _length
        weight = layer.get_base_layer().weight.detach()
        self._magnitude(layer).data = _length(weight, torch.zeros_like(weight), 0.0)

    @staticmethod
    def _magnitude(layer: LoraLayer) -> torch.Tensor:
        return layer.lora_magnitude_vector[NAME].weight
