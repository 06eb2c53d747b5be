"""What makes two bases the same: hashes over weights, and over what else decides their answers."""

import hashlib
import inspect
import json
from collections.abc import Mapping
from typing import Any

import torch


def sampled_hash(*states: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, shapes and up to 64 evenly spaced values of every tensor, so that gigabytes take moments.

    Values are compared as fp32; weights must come as they were stored, before they are rounded to a precision.
    """
    digest = hashlib.sha256()
    for state in states:
        for name, tensor in sorted(state.items()):
            flat = tensor.detach().reshape(-1)
            picked = flat[:: max(1, flat.numel() // 64)][:64].to("cpu", torch.float32)
            digest.update(f"{name}{tuple(tensor.shape)}".encode() + picked.numpy().tobytes())
    return digest.hexdigest()


def hash_of(*parts: Any) -> str:
    """SHA-256 over plain values; equal for equal numbers, and for lists and tuples of the same."""
    return hashlib.sha256(json.dumps(_plain(parts), sort_keys=True).encode()).hexdigest()


def unusual_settings(module_class: type, config: Mapping[str, Any]) -> dict[str, Any]:
    """A diffusers configuration without what is as its class would have it: who wrote it, and with which version, does
    not show, nor what a later version adds."""
    known = inspect.signature(module_class.__init__).parameters
    return {key: value for key, value in config.items() if key in known and _plain(value) != _plain(known[key].default)}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
