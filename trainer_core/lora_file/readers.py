"""Who loads a file: the key rules of ComfyUI, diffusers and sd-scripts, applied to the names that are in it."""

import types
from collections.abc import Callable, Mapping

import torch

from .dialects import OF_ORIGINALS, module_keys
from .foreign import split_key
from .fused import paths_of
from .kinds import KINDS, fits, kind_of
from .lora import ReaderReport, Target
from .originals import Originals, originals_of, shape_of
from .transformer_rules import RULES

CLIP_MODULES = (
    "mlp.fc1",
    "mlp.fc2",
    "self_attn.k_proj",
    "self_attn.q_proj",
    "self_attn.v_proj",
    "self_attn.out_proj",
)
"""What ComfyUI maps in each layer of a CLIP text encoder."""


def reader_reports(tensors: Mapping[str, torch.Tensor], target: Target) -> list[ReaderReport]:
    """What each reader would load of these tensors into the target's model.

    The rules were read in ComfyUI v0.33 (comfy/lora.py) and sd-scripts 0.10; diffusers' are run, as installed. A target
    without a UNet is reported for diffusers only, and so is Kolors, which the other two do not know; a transformer for
    ComfyUI and diffusers, as sd-scripts knows transformers by their original names alone.
    """
    kinds = {kind_of(parts) for parts in _modules(tensors).values()}
    relatives = [KINDS[kind].title for kind in KINDS if kind in kinds - {"lora"}]
    reports = [_refused("diffusers", tensors, relatives) if relatives else _diffusers(tensors, target)]
    if target.transformer in RULES:
        if not RULES[target.transformer].mixin:
            reports.clear()
        reports.insert(0, _by_names("ComfyUI", tensors, target, _transformer_names(target).get))
    if target.unet_config is not None and not _is_kolors(target):
        reports.insert(0, _by_names("ComfyUI", tensors, target, comfyui_names(target).get))
        by_sd_scripts = _by_names("sd-scripts", tensors, target, kohya_names(target).get)
        reports.append(_refused("sd-scripts", tensors, relatives) if relatives else by_sd_scripts)
    return reports


def _refused(reader: str, tensors: Mapping[str, torch.Tensor], relatives: list[str]) -> ReaderReport:
    """The report of a reader that knows plain LoRA alone; what else is in the file it would drop or misread."""
    problem = f"it does not know {' or '.join(relatives)}"
    return ReaderReport(reader, 0, len(_modules(tensors)), list(tensors), problem)


def _by_names(
    reader: str, tensors: Mapping[str, torch.Tensor], target: Target, resolve: Callable[[str], tuple[str, str] | None]
) -> ReaderReport:
    """The report of a reader that looks keys up in a table of module names."""
    halves = {key: split_key(key) for key in tensors}
    modules = _modules(tensors)
    loaded = {name for name, parts in modules.items() if _fits(parts, target, resolve(name))}
    unmatched = [key for key, half in halves.items() if half is None or half[0] not in loaded]
    return ReaderReport(reader, len(loaded), len(modules), unmatched)


def _modules(tensors: Mapping[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """The file's modules, by the name that they have there, with their parts."""
    modules: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        half = split_key(key)
        if half and half[1] != "alpha":
            modules.setdefault(half[0], {})[half[1]] = tensor
    return modules


def _fits(parts: Mapping[str, torch.Tensor], target: Target, module: tuple[str, str] | None) -> bool:
    weight = shape_of(module, target) if module is not None else None
    if weight is None:
        return False
    if kind_of(parts) != "lora":
        return fits(parts, weight)
    if len(parts) < 2:
        return False
    down, up = parts["down"], parts["up"]
    if min(down.ndim, up.ndim) < 2 or down.shape[0] != up.shape[1] or up.shape[0] != weight[0]:
        return False
    return down.flatten(1).shape[1] == torch.Size(weight[1:]).numel() and up.numel() == weight[0] * down.shape[0]


def comfyui_names(target: Target) -> dict[str, tuple[str, str]]:
    """Module names that ComfyUI knows for an SD-family UNet and its CLIP encoders -> (component, path).

    Attention projections it knows under diffusers' dotted names only with ".processor" in them: files that diffusers
    writes (lora_A, lora_B) therefore lose their attention layers there.
    """
    names = {}
    for dialect in ("comfyui", "kohya-ldm"):
        names |= {key: module for module, key in module_keys(dialect, target).items() if module[0] == "unet"}
    for (component, path), _ in module_keys("comfyui", target).items():
        if component == "unet":
            under = path.replace(".", "_")
            old = path.replace(".to_", ".processor.to_")
            old = old[:-2] if old.endswith(".to_out.0") else old
            for name in (f"lora_unet_{under}", f"lycoris_{under}", old, f"unet.{old}"):
                names[name] = (component, path)
    for (component, path), key in module_keys("comfyui", target).items():
        if component == "unet":
            continue
        names[key] = (component, path)
        plain = path.removeprefix("text_model.")
        if plain.startswith("encoder.layers.") and plain.split(".", 3)[3] in CLIP_MODULES:
            under = plain.replace(".", "_")
            prefixes = ("lora_te_", "lora_te1_") if component == "text_encoder" else ("lora_te2_",)
            names |= {f"{prefix}text_model_{under}": (component, path) for prefix in prefixes}
            names[f"{component}.text_model.{plain}"] = (component, path)
    return names


def _transformer_names(target: Target) -> dict[str, tuple[str, str]]:
    """Module names that ComfyUI knows for a transformer -> (component, path); LoRA on its text encoders is not told."""
    rules, names = RULES[target.transformer], {}
    for path in target.modules["transformer"]:
        names |= dict.fromkeys(rules.comfyui_names(path), ("transformer", path))
    for dialect in ("comfyui", "kohya-ldm", *(["peft-original"] if rules.official else [])):
        names |= {key: module for module, key in module_keys(dialect, target).items() if module[0] == "transformer"}
    return names


def kohya_names(target: Target) -> dict[str, tuple[str, str]]:
    """Module names that sd-scripts knows: SD1.x under diffusers' paths, SDXL under the original ones.

    It trains and loads transformers, resnets, down- and upsamplers; not the input, output and embedding layers.
    """
    dialect = "kohya-ldm" if _is_sdxl(target) else "kohya"
    outside = ("conv_in", "conv_out", "time_embedding.", "add_embedding.", "class_embedding.")
    return {
        key: (component, path)
        for (component, path), key in module_keys(dialect, target).items()
        if not path.startswith(outside)
    }


def _is_sdxl(target: Target) -> bool:
    return (target.unet_config or {}).get("addition_embed_type") == "text_time"


def _is_kolors(target: Target) -> bool:
    """Whether its UNet has a layer of its own in front of the text, as that of no other family with sizes has."""
    return _is_sdxl(target) and (target.unet_config or {}).get("encoder_hid_dim_type") == "text_proj"


def _diffusers(tensors: Mapping[str, torch.Tensor], target: Target) -> ReaderReport:
    """The report for diffusers: its own converter is run, then its prefixes and paths are matched."""
    total = len(_modules(tensors))
    try:
        converted = _diffusers_keys(tensors, target)
    except (ValueError, LookupError, AttributeError, AssertionError, RuntimeError) as error:
        problem = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        return ReaderReport("diffusers", 0, total, list(tensors), f"refused: {problem}")
    modules: dict[tuple[str, str], dict[str, torch.Tensor]] = {}
    for (component, key), tensor in converted.items():
        half = split_key(key)
        if half:
            modules.setdefault((component, half[0]), {})[half[1]] = tensor
    loaded = {module: parts for module, parts in modules.items() if _fits(parts, target, module)}
    # The converter renames, but most often it hands the same tensors on: so the file's own keys can be told.
    reached = {id(tensor) for parts in loaded.values() for tensor in parts.values()}
    reached_modules = {split_key(key)[0] for key, tensor in tensors.items() if id(tensor) in reached}
    reached_modules |= _taken_apart(_modules(tensors), loaded, target)
    unmatched = [key for key in tensors if (split_key(key) or ("",))[0] not in reached_modules]
    return ReaderReport("diffusers", len(reached_modules), total, unmatched)


def _taken_apart(
    names: Mapping[str, Mapping[str, torch.Tensor]], loaded: Mapping[tuple[str, str], object], target: Target
) -> set[str]:
    """The names of a file's modules all of whose parts are loaded, where a converter has made new tensors of them."""
    originals = originals_of("transformer", target) if "transformer" in target.modules else Originals()
    known = {}
    for dialect in OF_ORIGINALS:
        known |= {key: path for (_, path), key in module_keys(dialect, target).items() if originals.names}
    found = set()
    for name in names:
        path = known.get(name)
        own = paths_of(originals.stacks[path]) if path in originals.stacks else [path]
        if path and all(("transformer", part) in loaded for part in own):
            found.add(name)
    return found


def _diffusers_keys(tensors: Mapping[str, torch.Tensor], target: Target) -> dict[tuple[str, str], torch.Tensor]:
    """(component, key in peft's form) -> tensor, by diffusers' own loaders.

    Raises:
        ValueError, LookupError, AttributeError, AssertionError, RuntimeError: diffusers refuses the file.
    """
    from diffusers import loaders
    from diffusers.utils import (
        convert_state_dict_to_diffusers,
        convert_state_dict_to_peft,
        convert_unet_state_dict_to_peft,
    )

    state = dict(tensors)
    if _is_sdxl(target) and not _is_kolors(target):
        config = types.SimpleNamespace(**target.unet_config)
        state = loaders.StableDiffusionXLLoraLoaderMixin.lora_state_dict(state, unet_config=config)[0]
    elif target.unet_config is not None:
        state = loaders.StableDiffusionLoraLoaderMixin.lora_state_dict(state)[0]
    elif target.transformer in RULES:
        state = getattr(loaders, RULES[target.transformer].mixin).lora_state_dict(state)
    if not all("lora" in key for key in state):
        raise ValueError("a key without 'lora' in it")
    found = {}
    for component in target.modules:
        own = {key[len(component) + 1 :]: value for key, value in state.items() if key.startswith(f"{component}.")}
        if not own:
            continue
        if component.startswith("text_encoder"):
            own = convert_state_dict_to_peft(convert_state_dict_to_diffusers(own))
            if not any(path.startswith("text_model.") for path in target.modules[component]):
                own = {key.removeprefix("text_model."): value for key, value in own.items()}
        elif "lora_A" not in next(iter(own)):
            own = convert_unet_state_dict_to_peft(own)
        found |= {(component, key): value for key, value in own.items()}
    return found
