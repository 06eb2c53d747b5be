"""An assistant LoRA: frozen, on in training and validation, off in pictures, and in no file."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Self

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from ..errors import BadInput
from ..lora_file.dialects import read_lora
from ..lora_file.kinds import KINDS, kind_in
from ..lora_file.lora import LoraPair, Target
from . import lora
from .kind import NAME
from .lora_config import LoRAConfig


class Assistant:
    """Adds what its pairs make of a module's input to the module's answer, beside whatever trains there.

    It hangs on the modules as hooks instead of standing among their layers: so it goes with every kind of adapter, and
    what trains has the same names, in checkpoints and in files, with it and without.

    Args:
        pairs: by module path.
        strength: how often they count.
    """

    def __init__(self, pairs: Mapping[str, LoraPair], strength: float):
        self._pairs, self._strength = pairs, strength
        self._layers: list[nn.Module] = []
        self._hooks: list[RemovableHandle] = []
        self._on = True

    @property
    def numbers(self) -> int:
        """How many it holds."""
        return sum(pair.down.numel() + pair.up.numel() for pair in self._pairs.values())

    def put(self, model: nn.Module) -> None:
        """Onto the modules, in which what trains must be already."""
        outer = {path: model.get_submodule(path) for path in self._pairs}
        names = {path: f"m{number}" for number, path in enumerate(self._pairs)}
        # peft makes the pairs, as it makes those that train, around the same modules but outside the model.
        beside = nn.ModuleDict({names[path]: getattr(module, "base_layer", module) for path, module in outer.items()})
        lora.apply(beside, {names[path]: pair for path, pair in self._pairs.items()}, self._strength)
        for path, module in outer.items():
            layer = beside[names[path]]
            self._layers.append(layer)
            self._hooks.append(module.register_forward_hook(self._adding(layer)))

    def _adding(self, layer: nn.Module) -> Callable:
        down, up, scale = layer.lora_A[NAME], layer.lora_B[NAME], layer.scaling[NAME]

        def add(module: nn.Module, given: tuple, answer: torch.Tensor) -> torch.Tensor:
            if not self._on:
                return answer
            return answer + (up(down(given[0].to(down.weight.dtype))) * scale).to(answer.dtype)

        return add

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        for layer in self._layers:
            layer.lora_A.to(device, dtype)
            layer.lora_B.to(device, dtype)
        return self

    @contextmanager
    def off(self) -> Iterator[None]:
        """As if it were not there, inside the block."""
        self._on = False
        try:
            yield
        finally:
            self._on = True

    def remove(self) -> None:
        """Takes it off the modules, which are then as they were; does nothing where it is on none."""
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._layers = [], []


def read(config: LoRAConfig, component: str, target: Target, warn: Callable[[str], None]) -> Assistant:
    """The assistant in the file `config.assistant`.

    Args:
        component: what LoRA files call the denoiser.
        target: the base.
        warn: hears of parts of the file that are not used.

    Raises:
        BadInput: the file cannot be read, is of another base, holds nothing for the denoiser, or is no plain LoRA.
    """
    try:
        found, _ = read_lora(config.assistant, target)
    except BadInput as error:
        raise BadInput(*(f"adapter.assistant: {problem}" for problem in error.problems)) from None
    kind = kind_in(found)
    if kind != "lora":
        raise BadInput(
            f"adapter.assistant: {config.assistant} holds {KINDS[kind].title}; an assistant is a plain LoRA, so choose "
            "another file"
        )
    pairs = found.pop(component, None)
    if pairs is None:
        raise BadInput(
            f"adapter.assistant: {config.assistant} holds nothing for the {component}, which an assistant is for; "
            "choose another file"
        )
    if found:
        warn(f"{config.assistant} has a part for {' and '.join(found)}, too, which an assistant has no use for")
    return Assistant(pairs, config.assistant_strength)
