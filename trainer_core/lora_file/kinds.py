"""The kinds of adapter that LoRA files hold here: LoRA and its relatives."""

from collections.abc import Callable, Iterable

import torch

from .dora import DoraPair
from .loha import LohaWeights
from .lokr import LokrWeights
from .lora import LoraPair, ModuleWeights, Parts
from .oft import OftBlocks

KINDS: dict[str, type[ModuleWeights]] = {
    weights.kind: weights for weights in (LoraPair, DoraPair, LohaWeights, LokrWeights, OftBlocks)
}
_TOLD_BY = {"hada_": "loha", "lokr_": "lokr", "oft_": "oft", "dora_": "dora"}
"""How parts begin that only one kind has."""
_BESIDE = {"dora": ("down", "up")}
"""Parts of another kind that a kind has too."""


def kind_of(parts: Iterable[str]) -> str:
    """The kind that the parts of a module tell of."""
    found = {kind for part in parts for begin, kind in _TOLD_BY.items() if part.startswith(begin)}
    return next((kind for kind in _TOLD_BY.values() if kind in found), "lora")


def read_module(parts: Parts, shape: tuple[int, ...], declared: Callable[[int], float]) -> ModuleWeights:
    """What a module's tensors do to its weight; see `ModuleWeights.read`.

    Raises:
        Misfit: they are for a weight of another shape.
        ValueError: something is missing, is of two kinds, or is no finite number.
    """
    read = _read(parts, shape, declared)
    if not all(torch.isfinite(tensor).all() for tensor in parts.values()):
        raise ValueError("holds NaN or infinite numbers; the training that made it had failed")
    return read


def _read(parts: Parts, shape: tuple[int, ...], declared: Callable[[int], float]) -> ModuleWeights:
    kind = kind_of(parts)
    begin = next((begin for begin, name in _TOLD_BY.items() if name == kind), "")
    own = {"alpha", *_BESIDE.get(kind, ())} | {part for part in parts if begin and part.startswith(begin)}
    strange = [part for part in parts if kind != "lora" and part not in own]
    if strange:
        raise ValueError(f"holds {', '.join(strange)} beside {KINDS[kind].title}, which is not read here")
    for part, tensor in parts.items():
        if part != "alpha" and not tensor.is_floating_point():
            raise ValueError(f"has dtype {tensor.dtype}; floating-point weights are needed")
    return KINDS[kind].read(parts, shape, declared)


def fits(parts: Parts, shape: tuple[int, ...]) -> bool:
    """Whether tensors, of which only the shapes are looked at, are all of a module for a weight of this shape."""
    try:
        _read(parts, shape, float)
    except ValueError:
        return False
    return True


def kind_in(lora: dict[str, dict[str, ModuleWeights]]) -> str:
    """The kind of a LoRA's modules, which are all of one; that of plain LoRA where there are none."""
    return next((weights.kind for modules in lora.values() for weights in modules.values()), "lora")
