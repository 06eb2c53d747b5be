"""LoHa and LoKr in peft's LyCORIS layers."""

from abc import abstractmethod

import torch
from peft import LoHaConfig, LoKrConfig, inject_adapter_in_model
from peft.tuners.loha.layer import LoHaLayer
from peft.tuners.lokr.layer import LoKrLayer
from peft.tuners.lycoris_utils import LycorisConfig, LycorisLayer
from torch import nn

from ..lora_file.loha import LohaWeights
from ..lora_file.lokr import LokrWeights
from ..lora_file.lora import ModuleWeights
from .kind import NAME, Kind, copied
from .lora_config import LoRAConfig


class Lycoris(Kind):
    layer: type[LycorisLayer]

    def owns(self, layer: nn.Module) -> bool:
        return isinstance(layer, self.layer)

    def put(self, model: nn.Module, paths: list[str], config: LoRAConfig) -> None:
        inject_adapter_in_model(self._settings(paths, config), model, NAME)

    def put_finished(self, model: nn.Module, weights: dict[str, ModuleWeights], strength: float) -> None:
        # Whatever these settings make is replaced by what the file has.
        inject_adapter_in_model(self._settings(list(weights), LoRAConfig(rank=1)), model, NAME)
        for path, held in weights.items():
            layer = model.get_submodule(path)
            place = layer.get_base_layer().weight.device
            for name in layer.adapter_layer_names:
                tensor = held.tensors.get(name)
                own = {} if tensor is None else {NAME: nn.Parameter(tensor.to(place, torch.float32, copy=True))}
                setattr(layer, name, nn.ParameterDict(own))
            layer.scaling[NAME] = self._scale(held) * strength

    @abstractmethod
    def _settings(self, paths: list[str], config: LoRAConfig) -> LycorisConfig:
        """peft's settings."""

    @abstractmethod
    def _scale(self, weights: ModuleWeights) -> float:
        """What the product of its tensors counts."""

    @staticmethod
    def _tensors(layer: LycorisLayer) -> dict[str, torch.Tensor]:
        """The tensors that a layer has, by the names that peft and LyCORIS share."""
        return {name: getattr(layer, name)[NAME] for name in layer.adapter_layer_names if NAME in getattr(layer, name)}


class Loha(Lycoris):
    name = "loha"
    layer = LoHaLayer

    def _settings(self, paths: list[str], config: LoRAConfig) -> LycorisConfig:
        return LoHaConfig(r=config.rank, alpha=config.strength, target_modules=paths)

    def _scale(self, weights: LohaWeights) -> float:
        return weights.alpha / weights.rank

    def take(self, layer: LoHaLayer) -> LohaWeights:
        tensors = {name: copied(tensor) for name, tensor in self._tensors(layer).items()}
        alpha = layer.scaling[NAME] * layer.r[NAME]
        return LohaWeights(tensors, alpha, tuple(layer.get_base_layer().weight.shape))

    def set(self, layer: LoHaLayer, weights: LohaWeights) -> None:
        for name, tensor in self._tensors(layer).items():
            tensor.copy_(weights.tensors[name])


class Lokr(Lycoris):
    name = "lokr"
    layer = LoKrLayer

    def _settings(self, paths: list[str], config: LoRAConfig) -> LycorisConfig:
        # LyCORIS begins with the second factor at zero: the larger one learns from the first step.
        return LoKrConfig(
            r=config.rank,
            alpha=config.strength,
            decompose_factor=config.factor or -1,
            init_weights="lycoris",
            target_modules=paths,
        )

    def _scale(self, weights: LokrWeights) -> float:
        return weights.scale

    def take(self, layer: LoKrLayer) -> LokrWeights:
        tensors = {name: copied(tensor) for name, tensor in self._tensors(layer).items()}
        alpha, shape = layer.scaling[NAME] * layer.r[NAME], tuple(layer.get_base_layer().weight.shape)
        taken = LokrWeights(tensors, alpha, shape)
        if taken.rank is None:
            # Two whole factors have no scale in a file, so the first takes it in.
            tensors["lokr_w1"] = tensors["lokr_w1"] * layer.scaling[NAME]
        return taken

    def set(self, layer: LoKrLayer, weights: LokrWeights) -> None:
        for name, tensor in self._tensors(layer).items():
            whole = name == "lokr_w1" and weights.rank is None
            tensor.copy_(weights.tensors[name] / (layer.scaling[NAME] if whole else 1.0))
