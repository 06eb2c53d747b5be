"""An optimiser's state as plain values and tensors, so that JSON and safetensors hold it and nothing is pickled."""

import importlib
import math
from collections import defaultdict, deque
from typing import Any

import torch

from ..errors import ScionError

SEPARATOR = "|"
MARK = "~"
"""The key that tells a value which JSON has no word for from a plain mapping."""
QUANTISED = {
    "OptimState8bit": "torchao.optim.subclass_8bit",
    "OptimState4bit": "torchao.optim.subclass_4bit",
    "OptimStateFp8": "torchao.optim.subclass_fp8",
}
"""Tensors made of tensors, and where their classes are: a file names the class, but not what is imported for it."""
PAGED = ("state1", "state2")
"""What bitsandbytes' paged optimisers keep in memory that moves between GPU and computer; only they can ask for it."""
OWN = frozenset({"state", "param_groups", "defaults", "found_inf", "grad_scale"})
"""Attributes of torch optimisers that are kept in their own ways, or belong to one step."""


def pack(
    optimizer: torch.optim.Optimizer, parameters: dict[str, torch.nn.Parameter]
) -> tuple[dict, dict[str, torch.Tensor]]:
    """Plain values, and tensors by "state|parameter".

    Args:
        parameters: what it optimises, by name.

    Raises:
        ScionError: the state has something that neither JSON nor safetensors can hold.
    """
    names = {parameter: name for name, parameter in parameters.items()}
    tensors: dict[str, torch.Tensor] = {}
    groups, values, attributes = [], {}, {}
    for number, group in enumerate(optimizer.param_groups):
        plain = {key: value for key, value in group.items() if key != "params"}
        groups.append({key: _encode(value, f"group {number}.{key}", tensors) for key, value in plain.items()})
    own = {}
    for parameter, entries in optimizer.state.items():
        if isinstance(parameter, str):  # some keep what belongs to no parameter among the parameters
            own[parameter] = _encode(entries, f"own.{parameter}", tensors)
            continue
        for key, value in entries.items():
            path = f"{key}{SEPARATOR}{names[parameter]}"
            encoded = _encode(value, path, tensors)
            if encoded != {MARK: "tensor", "name": path}:
                values.setdefault(names[parameter], {})[key] = encoded
    # Some count their steps beside the state.
    for key, value in vars(optimizer).items():
        if key not in OWN and not key.startswith("_") and isinstance(value, (bool, int, float, torch.Tensor)):
            attributes[key] = _encode(value, f"attribute.{key}", tensors)
    return {"groups": groups, "values": values, "own": own, "attributes": attributes}, tensors


def unpack(
    optimizer: torch.optim.Optimizer, parameters: dict[str, torch.nn.Parameter], packed: dict, tensors: dict
) -> None:
    """Puts a packed state back, number by number.

    Not through `load_state_dict`, which brings every state to its parameter's precision: 8 bits would come back as 32.
    """
    current = optimizer.param_groups
    group_of = {parameter: group for group in current for parameter in group["params"]}
    state: dict[torch.nn.Parameter, dict] = {}

    def place(tensor: torch.Tensor, key: str, parameter: torch.nn.Parameter) -> torch.Tensor:
        # torch's own rule: counters stay on the host, except where the whole step is one kernel.
        group = group_of[parameter]
        stays = key == "step" and not (group.get("fused") or group.get("capturable"))
        if key in PAGED and getattr(optimizer, "is_paged", False):
            return optimizer.get_state_buffer(parameter, dtype=tensor.dtype).copy_(tensor)
        return tensor.clone() if stays else tensor.to(parameter.device, copy=True)

    for path, tensor in tensors.items():
        key, _, name = path.partition(SEPARATOR)
        if name in parameters:
            state.setdefault(parameters[name], {})[key] = place(tensor, key, parameters[name])
    for name, entries in packed["values"].items():
        parameter = parameters[name]
        for key, value in entries.items():
            state.setdefault(parameter, {})[key] = _decode(
                value, tensors, lambda tensor, key=key, parameter=parameter: place(tensor, key, parameter)
            )
    groups = []
    for saved, group in zip(packed["groups"], current, strict=True):
        plain = {}
        for key, value in saved.items():
            there = group[key] if isinstance(group.get(key), torch.Tensor) else group["params"][0]
            device = there.device
            plain[key] = _decode(value, tensors, lambda tensor, device=device: tensor.to(device, copy=True))
        groups.append({**plain, "params": group["params"]})
    restored: dict[Any, Any] = defaultdict(dict, state)
    device = current[0]["params"][0].device

    def copy(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(device, copy=True)

    for key, value in packed.get("own", {}).items():
        restored[key] = _decode(value, tensors, copy)
    optimizer.__setstate__({"state": restored, "param_groups": groups})
    for key, value in packed.get("attributes", {}).items():
        setattr(optimizer, key, _decode(value, tensors, copy))


def _encode(value: Any, path: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        if type(value) in (torch.Tensor, torch.nn.Parameter):
            tensors[path] = value.detach()
            return {MARK: "tensor", "name": path}
        return _encode_quantised(value, path, tensors)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {MARK: "float", "value": str(value)}
    if isinstance(value, torch.dtype):
        return {MARK: "dtype", "value": str(value).removeprefix("torch.")}
    if isinstance(value, (list, tuple)):
        entries = [_encode(entry, f"{path}.{number}", tensors) for number, entry in enumerate(value)]
        return entries if isinstance(value, list) else {MARK: "tuple", "value": entries}
    if isinstance(value, deque):
        return {MARK: "deque", "value": _encode(list(value), path, tensors), "longest": value.maxlen}
    if isinstance(value, dict):  # keys may be numbers or tuples
        pairs = enumerate(value.items())
        entries = [[_encode(k, f"{path}.{n}", tensors), _encode(v, f"{path}.{n}", tensors)] for n, (k, v) in pairs]
        return {MARK: "dict", "value": entries}
    raise ScionError(f"the optimiser's {path.partition(SEPARATOR)[0]!r} is a {type(value).__name__}, which is not kept")


def _encode_quantised(value: torch.Tensor, path: str, tensors: dict[str, torch.Tensor]) -> dict:
    name = type(value).__name__
    if name not in QUANTISED:
        raise ScionError(f"the optimiser's {path.partition(SEPARATOR)[0]!r} is a {name}, which is not kept")
    parts, facts = value.__tensor_flatten__()
    inner = {part: _encode(getattr(value, part), f"{part} of {path}", tensors) for part in parts}
    return {MARK: name, "parts": inner, "facts": _encode(list(facts), path, tensors)}


def _decode(value: Any, tensors: dict[str, torch.Tensor], place) -> Any:
    if isinstance(value, list):
        return [_decode(entry, tensors, place) for entry in value]
    if not isinstance(value, dict):
        return value
    kind = value[MARK]
    if kind == "tensor":
        return place(tensors[value["name"]])
    if kind == "float":
        return float(value["value"])
    if kind == "dtype":
        return getattr(torch, value["value"])
    if kind == "tuple":
        return tuple(_decode(entry, tensors, place) for entry in value["value"])
    if kind == "deque":
        return deque(_decode(value["value"], tensors, place), value["longest"])
    if kind == "dict":
        return {_decode(key, tensors, place): _decode(entry, tensors, place) for key, entry in value["value"]}
    quantised = getattr(importlib.import_module(QUANTISED[kind]), kind)
    parts = {part: _decode(entry, tensors, place) for part, entry in value["parts"].items()}
    return quantised.__tensor_unflatten__(parts, _decode(value["facts"], tensors, place), None, None)
