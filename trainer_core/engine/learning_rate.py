"""The learning rate over the run."""

import torch
from diffusers.optimization import get_scheduler
from transformers.optimization import get_cosine_with_min_lr_schedule_with_warmup, get_wsd_schedule

from .optimizer_config import OptimizerConfig


class LearningRate:
    """The learning rate as a function of the step alone, so that resuming needs no state of it.

    Args:
        told: what `set` says at the highest; None = optimizer.learning_rate.
    """

    def __init__(
        self, config: OptimizerConfig, optimizer: torch.optim.Optimizer, total: int, told: float | None = None
    ):
        self._optimizer, self._told = optimizer, config.learning_rate if told is None else told
        self._bases = [float(group["lr"]) for group in optimizer.param_groups]
        # A stand-in, because a schedule writes into the optimiser that it is made for.
        bystander = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=config.learning_rate)
        (self._factor,) = _schedule(config, bystander, total).lr_lambdas

    def set(self, step: int) -> float:
        """Sets what step `step` (from 0) uses in every group, and returns the one that is told."""
        factor = self._factor(step)
        for group, base in zip(self._optimizer.param_groups, self._bases, strict=True):
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(base * factor)
            else:
                group["lr"] = base * factor
        return self._told * factor


def _schedule(
    config: OptimizerConfig, optimizer: torch.optim.Optimizer, total: int
) -> torch.optim.lr_scheduler.LambdaLR:
    if config.schedule == "cosine_with_min":
        return get_cosine_with_min_lr_schedule_with_warmup(
            optimizer, config.warmup_steps, total, min_lr_rate=config.min_ratio
        )
    if config.schedule == "warmup_stable_decay":
        decay = config.decay_of(total)
        schedule = get_wsd_schedule(
            optimizer,
            config.warmup_steps,
            decay,
            num_stable_steps=total - config.warmup_steps - decay,
            decay_type=config.decay_shape,
            min_lr_ratio=config.min_ratio,
        )
        if config.warmup_steps:
            # transformers' warm-up begins at the ratio; ours begins at 0, whatever the schedule.
            schedule.lr_lambdas = [_risen(factor, config.warmup_steps) for factor in schedule.lr_lambdas]
        return schedule
    return get_scheduler(
        config.schedule,
        optimizer,
        num_warmup_steps=config.warmup_steps,
        num_training_steps=total,
        num_cycles=config.cycles,
        power=config.power,
    )


def _risen(factor, warmup_steps: int):
    return lambda step: step / warmup_steps if step < warmup_steps else factor(step)
