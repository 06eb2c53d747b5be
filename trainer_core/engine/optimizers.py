"""What steps: the optimiser and its learning rate over the run."""

import torch
from diffusers.optimization import get_scheduler

from .optimizer_config import OptimizerConfig


def build_optimizer(config: OptimizerConfig, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        parameters,
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        fused=True,
    )


class LearningRate:
    """The learning rate as a function of the step alone, so that resuming needs no state of it."""

    def __init__(self, config: OptimizerConfig, optimizer: torch.optim.Optimizer, total: int):
        schedule = get_scheduler(
            config.schedule,
            optimizer,
            num_warmup_steps=config.warmup_steps,
            num_training_steps=total,
            num_cycles=config.cycles,
            power=config.power,
        )
        self._optimizer = optimizer
        self._factors, self._bases = schedule.lr_lambdas, schedule.base_lrs

    def set(self, step: int) -> float:
        """Sets what step `step` (from 0) uses, and returns the first group's."""
        rates = [base * factor(step) for base, factor in zip(self._bases, self._factors, strict=True)]
        for group, rate in zip(self._optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        return rates[0]
