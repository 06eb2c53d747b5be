"""Whether a recipe's settings fit the machine and the base: all that is refused before anything is encoded."""

from collections.abc import Callable

import torch

from ..errors import BadInput
from ..families.base import Model
from ..lora_file.dialects import check_stacks
from ..lora_file.save import check_dialect
from . import attention, learning_parts, learning_words, objective, optimizers, parameter_groups
from .learning_parts import Learner
from .output import dialect
from .sampling import check_sampler, check_size


def check_machine(recipe, device: torch.device) -> None:
    """What can be said before the base is loaded.

    Raises:
        BadInput: the optimiser or the attention cannot be had here, or settings are not for this optimiser.
    """
    optimizers.check(recipe.optimizer, device)
    optimizers.check_words(recipe.optimizer, recipe.words)
    attention.check(recipe.run.attention_backend, device)
    if recipe.run.ema_decay and optimizers.averages_itself(recipe.optimizer):
        raise BadInput(
            f"run.ema_decay: {recipe.run.ema_decay:g}, but {recipe.optimizer.chosen} itself averages the weights; set "
            "it to 0, or choose another optimizer.name"
        )


def check_base(
    recipe, model: Model, dtype: torch.dtype, device: torch.device, warn: Callable[[str], None]
) -> list[Learner]:
    """What the base has to say to the settings; its text encoders get the precision that they are to have.

    Args:
        dtype: in which the run computes.
        warn: hears what a person should know.

    Returns:
        The parts that are to learn.

    Raises:
        BadInput: settings do not fit the base.
    """
    model.encoder.set_text_precision(recipe.run.text_encoder_precision)
    check_size(recipe.preview.width, recipe.preview.height, model.side_step)
    check_sampler(recipe.preview.sampler, model)
    for note in objective.check(recipe.objective, model):
        warn(note)
    attention.try_out(recipe.run.attention_backend, model.denoiser, dtype, device)
    learning_words.check(model, recipe.words)
    learners = learning_parts.planned(model, recipe.adapter) if recipe.has_lora else []
    target, named = learning_parts.target_of(model, recipe.adapter), dialect(recipe, model)
    for learner in learners:
        check_stacks(named, recipe.adapter.kind, learner.part.component, learner.paths, target)
        if recipe.adapter.kind == "lora":
            check_dialect(named, learner.part.component, learner.paths, target)
    for note in learning_parts.rank_notes(learners):
        warn(note)
    paths, presets = learning_parts.paths_of(learners), model.family.targets
    parameter_groups.module_rates(recipe.optimizer, paths, presets, list(model.parts)[1:])
    return learners
