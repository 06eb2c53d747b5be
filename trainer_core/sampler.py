"""A base with a finished LoRA in it, ready to draw."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from .adapters import lora
from .engine import learning_decorator, learning_words
from .engine.device import PRECISIONS, pick_device, pick_precision
from .families.base import Conditioning, Model
from .families.registry import load
from .lora_file.decorator import OF_LORA as OF_LORA_DECORATOR
from .lora_file.decorator import DecoratorTokens, read_decorator
from .lora_file.dialects import lora_from_tensors, read_lora
from .lora_file.lora import Target
from .lora_file.metadata import parsed
from .lora_file.safe_io import read_header
from .lora_file.words import OF_LORA, Word, read_word

Entries = tuple[list[Conditioning], Conditioning]
"""Encoded prompts, and the encoded negative prompt."""


def load_for_sampling(
    base: str,
    adapter: str | Mapping[str, torch.Tensor] | None,
    strength: float = 1.0,
    device: str = "auto",
    precision: str = "auto",
    words: Iterable[Word] = (),
    decorator: DecoratorTokens | None = None,
    decorator_strength: float = 1.0,
) -> Model:
    """Loads a base, and puts a LoRA into its denoiser and its text encoders, as far as it has parts for them.

    Args:
        adapter: a LoRA file, or the tensors of one; None for the base alone.
        words: new words that prompts may hold.
        decorator: follows every prompt.
        decorator_strength: by which its vectors are multiplied; at 0 there is none.

    Raises:
        BadInput: the base or the file cannot be used, or the file is of another model.
    """
    place = pick_device(device)
    model = _loaded(base, adapter, strength, PRECISIONS[pick_precision(precision, place)], words)
    _decorate(model, decorator, decorator_strength, place)
    model.denoiser.to(place)
    model.encoder.to(place)
    return model


def load_with_prompts(
    base: str,
    adapter: str | Mapping[str, torch.Tensor] | None,
    prompts: list[str],
    negative: str,
    strength: float = 1.0,
    device: str = "auto",
    precision: str = "auto",
    words: Iterable[Word] = (),
    decorator: DecoratorTokens | None = None,
    decorator_strength: float = 1.0,
) -> tuple[Model, Entries]:
    """The same, and the prompts and the negative prompt encoded.

    The text encoders are gone then: the device never holds them beside the denoiser, of which Kolors' is the smaller.
    """
    place = pick_device(device)
    model = _loaded(base, adapter, strength, PRECISIONS[pick_precision(precision, place)], words)
    _decorate(model, decorator, decorator_strength, place)
    model.encoder.to(place)
    entries = model.encoder.encode_captions(prompts), model.encoder.encode_captions([negative])[0]
    model.encoder.forget_text()
    model.denoiser.to(place)
    return model, entries


def words_beside(lora_file: str) -> tuple[list[Word], list[str]]:
    """The new words that a LoRA was trained with, whose files lie beside it; and the words whose files do not."""
    named, found, missing = parsed(read_header(lora_file).metadata.get(OF_LORA, "{}")), [], []
    for name, file in named.items() if isinstance(named, dict) else ():
        # Whatever a file says, nothing is read from elsewhere.
        path = Path(lora_file).with_name(Path(str(file)).name)
        if path.is_file():
            found.append(read_word(path))
        else:
            missing.append(name)
    return found, missing


def decorator_beside(lora_file: str) -> tuple[DecoratorTokens | None, str]:
    """The decorator that a LoRA was trained with, if its file lies beside it; the name of the file if it does not."""
    named = read_header(lora_file).metadata.get(OF_LORA_DECORATOR, "")
    # Whatever a file says, nothing is read from elsewhere.
    path = Path(lora_file).with_name(Path(named).name or "?")
    if named and path.is_file():
        return read_decorator(path), ""
    return None, named


def _decorate(model: Model, decorator: DecoratorTokens | None, strength: float, place: torch.device) -> None:
    if decorator is None:
        return
    learning_decorator.put_read(model, decorator, strength)
    if model.decorator is not None:
        model.decorator.to(place)


def _loaded(
    base: str,
    adapter: str | Mapping[str, torch.Tensor] | None,
    strength: float,
    dtype: torch.dtype,
    words: Iterable[Word],
) -> Model:
    model = load(base, dtype)
    learning_words.put_read(model, words)
    if adapter:
        parts = model.components
        target = Target.of(**parts)
        read = read_lora(adapter, target)[0] if isinstance(adapter, str) else lora_from_tensors(adapter, target)
        for component, weights in read.items():
            if weights:
                lora.apply(parts[component], weights, strength)
    return model
