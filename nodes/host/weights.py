"""A MODEL of the host as a base that trains: its weights shared, its schedule read, what cannot be trained refused."""

from dataclasses import dataclass
from pathlib import Path

import comfy.lora
import torch

from ...trainer_core.errors import BadInput
from ...trainer_core.families import registry
from ...trainer_core.families.base import Family, Model
from . import memory
from .encoder import HostEncoder
from .originals import originals, shared
from .process import SAMPLING, process_of
from .text_encoders import text_encoders_of

FAMILIES = {kind: name for name, family in registry.FAMILIES.items() for kind in family.comfyui}
"""The host's architectures (comfy.supported_models) and our families."""
PREFIX = "diffusion_model."
READ = (SAMPLING, "manual_cast_dtype")
"""Object patches that are obeyed here, or that concern sampling alone."""
ATTACHMENT = "scion"
"""Under this name patchers that our own loader made carry what their weights do not tell."""


@dataclass(frozen=True)
class Attached:
    base: str
    """As the recipe has it."""
    name: str
    resolution: int | None
    """In pixels; None = the family's own."""


@dataclass(frozen=True)
class HostBase:
    """A host's model, ready for the engine."""

    model: Model
    base: str
    """What the recipe calls it: a path or built-in name where that is known, by which the run can be repeated."""
    warnings: list[str]


def base_of(patcher, clip, vae, bake: bool, text_learns: bool = False) -> HostBase:
    """The base in a MODEL, with the CLIP and VAE that encode for it. Nothing is copied on the CPU; nothing is written.

    Args:
        bake: whether the weight patches (LoRAs) of the MODEL belong to the base; without it they are refused.
        text_learns: whether the text encoders of the CLIP are to learn, where the family's can.

    Raises:
        BadInput: model or CLIP cannot be trained, or CLIP or VAE are of another; says what it is and what to do.
    """
    family = _family(patcher)
    _refuse_patches(patcher, bake)
    # Another patcher over the same weights, such as one with a LoRA that was just sampled, may have written into them.
    memory.release()
    state = originals(patcher)
    weights = shared({key.removeprefix(PREFIX): w for key, w in state.items() if key.startswith(PREFIX)}, "model")
    if bake:
        weights |= _baked(patcher, weights)
    attached, origin = patcher.attachments.get(ATTACHMENT), _origin(patcher)
    name = attached.name if attached else Path(origin).stem or type(patcher.model.model_config).__name__
    encoder = HostEncoder(clip, vae, patcher.model, family)
    # Of the others the engine says that they cannot.
    if text_learns and family.text_targets:
        encoder.let_learn(text_encoders_of(clip, family))
    model = family.from_original(
        weights,
        encoder,
        process_of(patcher, family),
        attached.resolution if attached else None,
        name,
    )
    changes = _changes(patcher, clip, vae)
    base = f"{origin or name} with {', '.join(changes)}" if changes else origin or name
    return HostBase(model, base, _warnings(patcher))


def _family(patcher) -> Family:
    kind = type(patcher.model.model_config).__name__
    if kind not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise BadInput(
            f"model: is of the architecture {kind}; this version trains {known} here. Load a checkpoint of that family"
        )
    return registry.FAMILIES[FAMILIES[kind]]


def _refuse_patches(patcher, bake: bool) -> None:
    if patcher.patches and not bake:
        raise BadInput(
            f"model: {len(patcher.patches)} of its weights are patched (a LoRA is loaded in front of the training). "
            "Wire the MODEL from before the LoRA loader; or, to make it part of the base, set patched_model to 'bake'"
        )
    replaced = [name for name in patcher.object_patches if name.startswith(PREFIX)]
    if replaced:
        raise BadInput(
            f"model: a node has replaced parts of it ({replaced[0]}{', …' if len(replaced) > 1 else ''}); wire the "
            "MODEL from before that node"
        )


def _baked(patcher, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies of the patched weights with their patches in them, float32."""
    baked = {}
    for key, patches in patcher.patches.items():
        name = key.removeprefix(PREFIX)
        with torch.inference_mode():
            changed = comfy.lora.calculate_weight(patches, weights[name].to(torch.float32, copy=True), key)
        with torch.inference_mode(False):
            baked[name] = torch.empty(changed.shape).copy_(changed)
    return baked


def _warnings(patcher) -> list[str]:
    """What a MODEL carries that sampling obeys and training does not."""
    options = dict(patcher.model_options)
    within = options.pop("transformer_options", {})
    carried = [name for name in within if within[name] and name.startswith(("patches", "optimized_attention"))]
    carried += [name for name in options if "function" in name and options[name]]
    carried += [name for name in patcher.object_patches if name not in READ]
    for what in ("injections", "hook_patches", "additional_models", "weight_wrapper_patches"):
        if getattr(patcher, what, None):
            carried.append(what)
    carried += [f"wrapper {kind}" for kind, wrappers in patcher.wrappers.items() if any(wrappers.values())]
    if not carried:
        return []
    return [f"The model carries patches that training does not see ({', '.join(carried)}); they act when sampling."]


def _origin(patcher) -> str:
    """What a patcher was loaded from, as the recipe would have it; empty where the host does not say."""
    if ATTACHMENT in patcher.attachments:
        return patcher.attachments[ATTACHMENT].base
    made = patcher.cached_patcher_init
    paths = [argument for argument in made[1] if isinstance(argument, str)] if made else []
    return paths[0] if paths and Path(paths[0]).is_file() else ""


def _changes(patcher, clip, vae) -> list[str]:
    """How the wired parts differ from what the origin's name alone would give: who repeats the run must know."""
    changes = ["its LoRAs baked in"] if patcher.patches else []
    if SAMPLING in patcher.object_patches:
        changes.append("another sampling")
    if clip.layer_idx is not None or clip.patcher.patches:
        changes.append("a changed CLIP")
    for name, part in (("CLIP", clip.patcher), ("VAE", vae.patcher)):
        if _origin(part) != _origin(patcher):
            changes.append(f"another {name}")
    return changes
