"""The parts of a base that learn: where each gets its adapter, and what trains in and beside all of them, by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from ..adapters import lora, words
from ..adapters.lora_config import LoRAConfig
from ..errors import BadInput
from ..families.base import Model, Part
from ..lora_file.dialects import read_lora
from ..lora_file.lora import LoRA, LoraPair, ModuleWeights, Target, module_shapes
from . import learning_decorator, learning_words


@dataclass(frozen=True)
class Learner:
    """A part that is to learn."""

    name: str
    """As `Model.parts` has it; empty for the denoiser."""
    part: Part
    config: LoRAConfig
    """Of its adapter."""
    paths: list[str]
    """Of the modules that get one."""


def planned(model: Model, config: LoRAConfig) -> list[Learner]:
    """What the settings ask for, in the order of the model's parts.

    Raises:
        BadInput: the base has no text encoder that can learn, or settings do not fit its modules.
    """
    if config.trains_text and not model.encoder.text_encoders:
        raise BadInput(
            f"adapter.text_encoder: {config.text_encoder}, but the text encoders of {model.family.title} do not learn "
            "here; set it to off"
        )
    learners = []
    for name, part in model.parts.items():
        own = config.of_text_encoder if name else config
        if config.trains_text if name else config.trains_denoiser:
            setting = "adapter.text_encoder_targets" if name else "adapter.targets"
            learners.append(Learner(name, part, own, lora.targeted_modules(part.module, own, part.targets, setting)))
    return learners


def rank_notes(learners: list[Learner]) -> list[str]:
    """What a person should know of ranks above the width of modules, one sentence a part.

    Raises:
        BadInput: a rank is above the width of every module of a part.
    """
    found = []
    for learner in learners:
        setting = "adapter.rank"
        if learner.name and learner.config.rank == learner.config.text_encoder_rank:
            setting = "adapter.text_encoder_rank"
        found.append(lora.check_rank(learner.part.module, learner.config, learner.paths, setting))
    return [sentence for sentence in found if sentence]


def paths_of(learners: list[Learner]) -> list[str]:
    """Of all modules that get an adapter, as `layers` names them."""
    return [_named(learner.name, path) for learner in learners for path in learner.paths]


def put(learners: list[Learner], seed: int, start: Mapping[str, Mapping[str, ModuleWeights]]) -> None:
    """New adapters into the modules.

    Args:
        start: what they begin with, by the part's name; a part that is not there begins with nothing.
    """
    for learner in learners:
        lora.inject(learner.part.module, learner.config, learner.paths, seed, learner.name)
        if learner.name in start:
            lora.fill(learner.part.module, start[learner.name])


def remove(model: Model) -> None:
    """Takes every adapter out, and what learns beside them."""
    learning_words.remove(model)
    learning_decorator.remove(model)
    for part in model.parts.values():
        lora.remove(part.module)


def parameters(model: Model) -> dict[str, nn.Parameter]:
    """What trains, by name: the adapters', and behind them those of `learning_words` and `learning_decorator`."""
    return {**adapters(model), **learning_words.parameters(model), **learning_decorator.parameters(model)}


def adapters(model: Model) -> dict[str, nn.Parameter]:
    """What trains in adapters, by name: the denoiser's as `lora.parameters` has them, others behind the name of their
    part."""
    return _of_all(model, lora.parameters)


def layers(model: Model) -> dict[str, nn.Module]:
    """The adapters' layers by the path of the module that they wrap, named as `parameters` are."""
    return _of_all(model, lora.layers)


def learning(model: Model) -> dict[str, nn.Module]:
    """The text encoders that have an adapter or new words, by name."""
    return {name: module for name, module in model.encoder.text_encoders.items() if _trained(module)}


def of_a_step(model: Model) -> list[nn.Module]:
    """The modules that a step goes through: the denoiser, whether it learns or not, and text encoders that learn."""
    return [model.denoiser, *learning(model).values()]


def extract(model: Model) -> LoRA:
    """What each adapter holds, fp32 copies on the CPU, by component and module path."""
    found = {part.component: lora.extract(part.module) for part in model.parts.values()}
    return {component: weights for component, weights in found.items() if weights}


def target_of(model: Model, config: LoRAConfig) -> Target:
    """The shapes of what files of this training belong to: the denoiser's always, by which they are told apart."""
    parts = [part for name, part in model.parts.items() if config.trains_text or not name]
    return Target.of(**{part.component: part.module for part in parts})


def recomputing(module: nn.Module, on: bool) -> None:
    """Switches gradient checkpointing, which diffusers' modules and transformers' of every age name differently."""
    switch = "enable" if on else "disable"
    if hasattr(module, f"{switch}_gradient_checkpointing"):
        getattr(module, f"{switch}_gradient_checkpointing")()
        return
    newer = getattr(module, f"activation_checkpointing_{switch}", None)
    switching = newer or getattr(module, f"gradient_checkpointing_{switch}")
    if not on:
        switching()
        return
    # The reentrant form would ask for gradients of its inputs, and a caption's frozen embeddings have none. What
    # transformers does for it to the embeddings is undone.
    switching({"use_reentrant": False})
    if hasattr(module, "_require_grads_hook"):
        module.disable_input_require_grads()


def place(module: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Brings a part to its device, and what is frozen in it to the precision of the computation; what trains keeps its
    own."""
    # In this order a weight that is stored in another precision never exists twice where it came from.
    module.to(device)
    trains = {id(parameter) for parameter in _trained(module).values()}
    for parameter in module.parameters():
        if id(parameter) not in trains and parameter.dtype != dtype:
            parameter.data = parameter.data.to(dtype)


def read_start(
    file: str, model: Model, learners: list[Learner], warn: Callable[[str], None]
) -> dict[str, dict[str, ModuleWeights]]:
    """What a LoRA file has for each part that learns, by the part's name.

    Args:
        warn: hears of parts that the file lacks or has in vain.

    Raises:
        BadInput: the file cannot be read, has nothing for the first part, or was made with other settings.
    """
    try:
        read, _ = read_lora(file, Target.of(**model.components))
    except BadInput as error:
        raise BadInput(*(f"adapter.start_from: {problem}" for problem in error.problems)) from None
    first, start = learners[0].part.component, {}
    if first not in read:
        raise BadInput(f"adapter.start_from: {file} holds nothing for the {first}, which is what trains")
    for learner in learners:
        held, shapes = read.pop(learner.part.component, None), module_shapes(learner.part.module)
        if held is None:
            warn(f"{file} has no part for the {learner.part.component}, which begins with nothing")
            continue
        if learner.name:
            held = {path: _with_strength(weights, learner.config) for path, weights in held.items()}
        lora.check_start(held, {path: shapes[path] for path in learner.paths}, learner.config, bool(learner.name))
        start[learner.name] = held
    if read:
        which = "text encoder" if all(name.startswith("text_encoder") for name in read) else " and ".join(read)
        warn(f"{file} has a part for the {which}, too; it is not trained here and will not be in the file")
    return start


def _with_strength(weights: ModuleWeights, config: LoRAConfig) -> ModuleWeights:
    """A file has one alpha for all parts, whatever each was trained with."""
    same_rank = isinstance(weights, LoraPair) and weights.rank == config.rank
    return weights.with_alpha(config.scale * config.rank) if same_rank else weights


def _trained(module: nn.Module) -> dict[str, nn.Parameter]:
    return {**lora.parameters(module), **words.parameters(module)}


def _of_all(model: Model, of_one: Callable[[nn.Module], Mapping[str, nn.Module]]) -> dict:
    found = {}
    for name, part in model.parts.items():
        found |= {_named(name, path): held for path, held in of_one(part.module).items()}
    return found


def _named(part: str, path: str) -> str:
    return f"{part}.{path}" if part else path
