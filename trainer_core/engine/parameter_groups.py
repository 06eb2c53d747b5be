"""Which weights learn at which rate: rates of parts, LoRA+, those of new words and of a decorator."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch

from ..adapters.decorator_config import DecoratorConfig
from ..adapters.lora import matching, module_of
from ..adapters.words_config import USUAL_RATE, WordsConfig
from ..errors import BadInput
from . import learning_decorator, learning_parts, learning_words
from .optimizer_config import OptimizerConfig

if TYPE_CHECKING:
    from ..families.base import Model


def of_run(recipe, model: "Model") -> list[dict[str, Any]]:
    """All that trains in a model, by learning rate: adapters, new words, a decorator."""
    modules, parts, config = learning_parts.layers(model), model.parts, recipe.optimizer
    rates = module_rates(config, modules, parts[""].targets, list(parts)[1:])
    return [
        *groups(config, learning_parts.adapters(model), rates),
        *of_words(config, recipe.words, learning_words.parameters(model)),
        *of_decorator(config, recipe.decorator, learning_decorator.parameters(model)),
    ]


def module_rates(
    config: OptimizerConfig, paths: Iterable[str], presets: dict[str, str], text_encoders: Iterable[str] = ()
) -> dict[str, float]:
    """Learning rates by the path of the module, where they are not the run's: those of text encoders, and on top of
    them optimizer.part_rates.

    Args:
        paths: of the modules that train.
        presets: the family's, as for adapter.targets.
        text_encoders: with what their modules' paths begin, and a dot.

    Raises:
        BadInput: a part matches no module that trains.
    """
    paths, found = list(paths), {}
    if config.text_encoder_learning_rate is not None:
        begin = tuple(f"{name}." for name in text_encoders)
        found |= {path: config.text_encoder_learning_rate for path in paths if path.startswith(begin)}
    for part, rate in config.rates():
        matched = matching(part, paths, presets)
        if not matched:
            raise BadInput(
                f"optimizer.part_rates: {part!r} matches no module that trains; those are such as "
                + ", ".join(paths[:: max(1, len(paths) // 4)][:4])
            )
        found |= dict.fromkeys(matched, rate)
    return found


def groups(
    config: OptimizerConfig, parameters: dict[str, torch.nn.Parameter], rates: dict[str, float]
) -> list[dict[str, Any]]:
    """Parameters by their learning rate, in the order in which the rates first occur.

    Args:
        parameters: by name, as `adapters.lora.parameters` gives them.
        rates: from `module_rates`.
    """
    ratio, found = config.lora_plus_ratio or 1.0, {}
    for name, parameter in parameters.items():
        rate = rates.get(module_of(name), config.learning_rate)
        # LoRA+ (Hayou et al. 2024, equation 4): B's rate is `ratio` times A's.
        found.setdefault(rate * ratio if ".lora_B." in name else rate, []).append(parameter)
    return [{"params": listed, "lr": rate} for rate, listed in found.items()]


def of_words(
    config: OptimizerConfig, words: WordsConfig, vectors: dict[str, torch.nn.Parameter]
) -> list[dict[str, Any]]:
    """The vectors of new words, which have a learning rate and a weight decay of their own, as a group; none for none.

    Args:
        vectors: by name.
    """
    if not vectors:
        return []
    return [{"params": list(vectors.values()), "lr": rate_of_words(config, words), "weight_decay": words.weight_decay}]


def rate_of_words(config: OptimizerConfig, words: WordsConfig) -> float:
    """The learning rate of new words."""
    usual = config.learning_rate if config.kind.finds_rate else USUAL_RATE
    return usual if words.learning_rate is None else words.learning_rate


def of_decorator(
    config: OptimizerConfig, decorator: DecoratorConfig, vectors: dict[str, torch.nn.Parameter]
) -> list[dict[str, Any]]:
    """The vectors of a decorator, which have a learning rate of their own, as a group; none for none."""
    return [{"params": list(vectors.values()), "lr": rate_of_decorator(config, decorator)}] if vectors else []


def rate_of_decorator(config: OptimizerConfig, decorator: DecoratorConfig) -> float:
    """The learning rate of a decorator."""
    return config.learning_rate if decorator.learning_rate is None else decorator.learning_rate


def told_rate(recipe) -> tuple[str, float]:
    """The learning rate that a run is told by, and the setting that it is of: the LoRA's, else the decorator's, else
    that of new words."""
    config, decorator = recipe.optimizer, recipe.decorator
    if not recipe.has_lora and not config.kind.finds_rate:
        if not decorator.learns:
            return "words.learning_rate", rate_of_words(config, recipe.words)
        if decorator.learning_rate is not None:
            return "decorator.learning_rate", decorator.learning_rate
    return "optimizer.learning_rate", config.learning_rate
