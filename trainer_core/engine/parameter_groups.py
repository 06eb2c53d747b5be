"""Which weights learn at which rate: rates of parts, and LoRA+."""

from collections.abc import Iterable
from typing import Any

import torch

from ..adapters.lora import matching, module_of
from ..errors import BadInput
from .optimizer_config import OptimizerConfig


def module_rates(config: OptimizerConfig, paths: Iterable[str], presets: dict[str, str]) -> dict[str, float]:
    """Learning rates of optimizer.part_rates by the path of the module.

    Args:
        paths: of the modules that train.
        presets: the family's, as for adapter.targets.

    Raises:
        BadInput: a part matches no module that trains.
    """
    paths, found = list(paths), {}
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
