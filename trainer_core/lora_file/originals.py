"""The modules of a model under their original names, some of which stand for several in one weight."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from .fused import Stack, fuse_pairs, paths_of, split_pair
from .lora import LoRA, LoraPair, ModuleWeights, Target
from .transformer_rules import RULES
from .unet_names import ldm_names

Module = tuple[str, str]
"""A component, and a path in it: as diffusers has it or, of a stack, as the original does."""


@dataclass(frozen=True)
class Originals:
    """What a denoiser's modules are called in the original."""

    names: Mapping[str, str] = field(default_factory=dict)
    """diffusers path -> original path, of modules with a weight of their own there."""
    stacks: Mapping[str, Stack] = field(default_factory=dict)
    """Original path -> what stands in its weight, of the others."""


def originals_of(component: str, target: Target) -> Originals:
    """Of the modules that the target has; of none where nothing is known."""
    shapes = target.modules[component]
    if component == "unet" and target.unet_config is not None:
        return Originals(ldm_names(target.unet_config, shapes))
    if component == "transformer" and target.transformer in RULES and target.transformer_config is not None:
        source = RULES[target.transformer].originals
        if source is not None:
            names, stacks = source.original_names(target.transformer_config), source.stacks(target.transformer_config)
            return Originals(
                {path: name for path, name in names.items() if path in shapes},
                {name: stack for name, stack in stacks.items() if all(path in shapes for path in paths_of(stack))},
            )
    return Originals()


def shape_of(module: Module, target: Target) -> tuple[int, ...] | None:
    """Of a module's weight, or of a stack's; None where the target has neither."""
    component, path = module
    shapes = target.modules.get(component, {})
    if path in shapes or component not in target.modules:
        return shapes.get(path)
    stack = originals_of(component, target).stacks.get(path)
    return (sum(rows.count for rows in stack), *shapes[stack[0].path][1:]) if stack else None


def stacked_lora(lora: LoRA, target: Target) -> LoRA:
    """A LoRA with the pairs of stacked modules as pairs of their stacks, exactly.

    Raises:
        ValueError: something other than plain pairs lies on a stacked module; says which.
    """
    found: LoRA = {}
    for component, modules in lora.items():
        found[component] = dict(modules)
        for name, stack in originals_of(component, target).stacks.items():
            own = {path: found[component].pop(path) for path in paths_of(stack) if path in modules}
            other = next((path for path, weights in own.items() if type(weights) is not LoraPair), None)
            if other:
                raise ValueError(f"{component}.{other}")
            if own:
                found[component][name] = fuse_pairs(stack, own)
    return found


def apart(module: Module, weights: ModuleWeights, target: Target) -> dict[Module, ModuleWeights]:
    """What was read for a module or a stack, by the modules that it is for.

    Raises:
        ValueError: it is for a stack, and no plain pair.
    """
    component, path = module
    if path in target.modules[component]:
        return {module: weights}
    if type(weights) is not LoraPair:
        raise ValueError(f"is {weights.title} on a weight that stacks several layers, which is not read here")
    # A file may hold the matrices of stacks as 1×1 convolutions; those of the modules are linear.
    flat = replace(weights, down=weights.down.flatten(1), up=weights.up.flatten(1))
    split = split_pair(originals_of(component, target).stacks[path], flat)
    return {(component, own): pair for own, pair in split.items()}
