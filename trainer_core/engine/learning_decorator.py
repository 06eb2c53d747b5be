"""A decorator that learns: what it begins as, and putting it behind a model's text conditioning."""

import torch
from torch import nn

from .. import randomness
from ..adapters.decorator import Decorator
from ..adapters.decorator_config import DecoratorConfig
from ..families.base import Model
from ..lora_file.decorator import DecoratorTokens

NAME = "decorator"
"""With this, and a dot, the names of what trains in it begin."""


def put(model: Model, config: DecoratorConfig, seed: int, device: torch.device | str = "cpu") -> None:
    """A decorator as it begins: independent normal numbers, keyed by the seed."""
    if not config.learns:
        return
    shape = config.num_tokens, model.family.text_width(model.denoiser)
    drawn = torch.randn(shape, generator=randomness.generator(seed, NAME))
    model.decorator = Decorator(drawn * config.initial_scale).to(device)


def put_read(model: Model, read: DecoratorTokens, strength: float = 1.0) -> None:
    """A decorator from a file into a model, frozen.

    Args:
        strength: by which its vectors are multiplied; at 0 there is none.

    Raises:
        BadInput: it is of a model whose text states are of another width.
    """
    width = model.family.text_width(model.denoiser)
    read.check_width(width, model.name)
    if strength:
        model.decorator = Decorator(read.weight * strength).requires_grad_(False)


def remove(model: Model) -> None:
    model.decorator = None


def parameters(model: Model) -> dict[str, nn.Parameter]:
    """The vectors, float32 [n, width], by name: decorator.weight; empty where there is none."""
    found = model.decorator
    return {f"{NAME}.{name}": rows for name, rows in found.named_parameters()} if found is not None else {}


def extract(model: Model) -> torch.Tensor | None:
    """The vectors, a float32 copy on the CPU; None where there is no decorator."""
    return None if model.decorator is None else model.decorator.weight.detach().cpu().clone()
