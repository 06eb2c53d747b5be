"""The ways in which LoRA files name their tensors: writing each, and reading any of them back to module paths."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import BadInput
from ..files import read_json
from .alpha import effective_alpha
from .decorator import is_decorator
from .foreign import guess_family, other_methods, shapes_of, split_key
from .fused import paths_of
from .kinds import KINDS, kind_in, read_module
from .lora import LoRA, LoraPair, Misfit, Target
from .originals import Module, apart, originals_of, shape_of, stacked_lora
from .safe_io import read_tensors
from .transformer_rules import ONE_TRAINER, RULES
from .words import KEYS, word_in

FILE_LIMIT = 16 * 2**30
"""Bytes; what is larger is no LoRA."""


@dataclass(frozen=True)
class Dialect:
    """One way of naming. `keeps_alpha`: alpha has a key of its own, else it is folded into B (so that alpha = rank)."""

    name: str
    down: str
    up: str
    keeps_alpha: bool
    readers: tuple[str, ...]
    """Those that must load every module of a file in this dialect."""
    of_transformers: tuple[str, ...]
    """The same of a transformer's file."""

    def required(self, kind: str, target: Target) -> tuple[str, ...]:
        """Those that must load every module of a file of this kind: LoRA's relatives are ComfyUI's alone, and have an
        alpha."""
        readers = self.of_transformers if "transformer" in target.modules else self.readers
        if kind == "lora":
            return readers
        return tuple(name for name in readers if name == "ComfyUI" and self.keeps_alpha)


DIALECTS = {
    dialect.name: dialect
    for dialect in (
        Dialect("kohya", ".lora_down.weight", ".lora_up.weight", True, ("ComfyUI", "diffusers"), ("ComfyUI",)),
        Dialect("kohya-ldm", ".lora_down.weight", ".lora_up.weight", True, ("ComfyUI",), ("ComfyUI",)),
        Dialect("comfyui", ".lora_A.weight", ".lora_B.weight", True, ("ComfyUI",), ("ComfyUI",)),
        # diffusers refuses a file with .alpha keys beside lora_A and lora_B.
        Dialect("diffusers", ".lora_A.weight", ".lora_B.weight", False, ("diffusers",), ("ComfyUI", "diffusers")),
    )
}
"""The dialects that are written."""


def module_keys(dialect: str, target: Target) -> dict[Module, str]:
    """(component, path) -> what the module is called in a dialect, for all that the dialect has a name for; in dialects
    of original names, for stacks too.

    Beside the written ones: "peft" (as peft's save_pretrained names them), "peft-original" (the same of the original
    model) and "diffusers-old" (attention processors).
    """
    keys = {}
    for component, shapes in target.modules.items():
        originals = originals_of(component, target)
        for path in shapes:
            key = _module_key(dialect, component, path, originals.names.get(path), target)
            if key is not None:
                keys[component, path] = key
        if dialect in OF_ORIGINALS:
            keys |= {(component, name): OF_ORIGINALS[dialect](name) for name in originals.stacks}
    return keys


OF_ORIGINALS: dict[str, Callable[[str], str]] = {
    "kohya-ldm": lambda name: "lora_unet_" + name.replace(".", "_"),
    "comfyui": lambda name: f"diffusion_model.{name}",
    "peft-original": lambda name: f"base_model.model.{name}",
}
"""The dialects of original names, and what a module of a denoiser is called in each."""


def _module_key(dialect: str, component: str, path: str, original: str | None, target: Target) -> str | None:
    if component.startswith("text_encoder"):
        return _text_encoder_key(dialect, component, path, "text_encoder_2" in target.modules)
    if dialect == "kohya" and (component == "unet" or ONE_TRAINER in _forms(target)):
        return f"lora_{component}_" + path.replace(".", "_")
    if dialect in OF_ORIGINALS:
        return OF_ORIGINALS[dialect](original) if original else None
    if dialect == "diffusers":
        return f"{component}.{path}"
    if dialect == "peft":
        return f"base_model.model.{path}"
    if dialect == "diffusers-old":
        return f"{component}." + re.sub(r"\.to_out\.0$", ".to_out", path.replace(".to_", ".processor.to_"))
    return None


def _forms(target: Target) -> tuple[str, ...]:
    return RULES[target.transformer].comfyui if target.transformer in RULES else ()


def _text_encoder_key(dialect: str, component: str, path: str, several: bool) -> str | None:
    # Files keep the prefix that transformers 5 dropped from CLIP's module paths.
    path = "text_model." + path.removeprefix("text_model.")
    number = int(component.removeprefix("text_encoder").strip("_") or 1)
    if dialect in ("kohya", "kohya-ldm"):
        return f"lora_te{number if several else ''}_" + path.replace(".", "_")
    if dialect == "comfyui" and number <= 2:
        return f"text_encoders.clip_{'lg'[number - 1]}.transformer.{path}"
    return f"{component}.{path}" if dialect == "diffusers" else None


def lora_to_tensors(
    lora: LoRA, dialect: str, target: Target, dtype: torch.dtype = torch.float32
) -> dict[str, torch.Tensor]:
    """The tensors of a file in one of DIALECTS, on the CPU: matrices in `dtype`, alphas and DoRA's scales in fp32.

    All modules of a file get the same alpha, what differs is folded into B: where alphas differ, diffusers 0.42 loses
    those of the attention layers (it looks them up under names that its model does not have).

    Raises:
        BadInput: the dialect is unknown, cannot say this kind, or has no name for a module.
    """
    if dialect not in DIALECTS:
        raise BadInput(f"dialect: {dialect!r} is not one of {', '.join(DIALECTS)}.")
    kind = kind_in(lora)
    if not DIALECTS[dialect].required(kind, target):
        raise BadInput(
            f"dialect: {dialect!r} has no keys for {KINDS[kind].title}; choose one of "
            f"{', '.join(name for name in DIALECTS if DIALECTS[name].required(kind, target))}"
        )
    form, keys, tensors = DIALECTS[dialect], module_keys(dialect, target), {}
    alpha, endings = _common_alpha(lora), {"down": form.down, "up": form.up}
    if dialect in OF_ORIGINALS:
        try:
            lora = stacked_lora(lora, target)
        except ValueError as error:
            raise BadInput(_no_stack(dialect, kind, str(error))) from None
    missing = [f"{component}.{path}" for component in lora for path in lora[component] if (component, path) not in keys]
    if missing:
        raise BadInput(
            f"dialect: {dialect!r} has no name for {len(missing)} of the trained modules (first: {missing[0]}). "
            "Choose another dialect, or other target modules."
        )
    for component, modules in lora.items():
        for path, weights in modules.items():
            # A stack's alpha is as much larger as its rank, and files with stacks are not for diffusers.
            if isinstance(weights, LoraPair) and not (form.keeps_alpha and path not in target.modules[component]):
                weights = weights.with_alpha(alpha if form.keeps_alpha else float(weights.rank))
            for part, tensor in weights.parts().items():
                if part != "alpha" or form.keeps_alpha:
                    kept = torch.float32 if part in IN_FULL else dtype
                    tensor = tensor.detach().to("cpu", kept, copy=True).contiguous()
                    tensors[keys[component, path] + endings.get(part, f".{part}")] = tensor
    return tensors


def check_stacks(dialect: str, kind: str, component: str, paths: Iterable[str], target: Target) -> None:
    """That an adapter of this kind on these modules can be written in a dialect, as far as stacked weights go.

    Raises:
        BadInput: it cannot.
    """
    stacked = {path for stack in originals_of(component, target).stacks.values() for path in paths_of(stack)}
    within = [path for path in paths if path in stacked]
    if dialect in OF_ORIGINALS and kind != "lora" and within:
        raise BadInput(_no_stack(dialect, kind, f"{component}.{within[0]}"))


def _no_stack(dialect: str, kind: str, module: str) -> str:
    return (
        f"adapter.kind: {kind}, but the dialect {dialect!r} has one weight for {module} and its neighbours, and "
        f"{KINDS[kind].title} on each of them cannot be put together exactly; choose adapter.kind lora, or "
        "adapter.targets that have weights of their own there"
    )


IN_FULL = ("alpha", "dora_scale")
"""Parts that are written in fp32 always: they are few numbers, and each scales many."""


def _common_alpha(lora: LoRA) -> float:
    """The most frequent alpha that can stand for the others, of what is pairs."""
    every = [weights for modules in lora.values() for weights in modules.values()]
    counts = Counter(float(pair.alpha) for pair in every if isinstance(pair, LoraPair) and pair.alpha)
    return counts.most_common(1)[0][0] if counts else 1.0


def read_lora(path: str | Path, target: Target) -> tuple[LoRA, dict[str, str]]:
    """A LoRA file in any dialect, and its metadata.

    A peft folder's adapter_model.safetensors takes its alphas from the adapter_config.json beside it.

    Raises:
        BadInput: the file cannot be read, or does not belong to `target`; all problems at once.
    """
    path = Path(path)
    tensors, metadata = read_tensors(path, FILE_LIMIT)
    if tensors.keys() <= set(KEYS.values()) and (word := word_in(tensors, metadata, path.stem)):
        raise BadInput(f"{path}: holds the new word {word.name} and no LoRA; scion sample takes it by --words")
    if is_decorator({key: tuple(tensor.shape) for key, tensor in tensors.items()}):
        raise BadInput(f"{path}: holds a decorator and no LoRA; scion sample takes it by --decorator")
    beside = path.with_name("adapter_config.json")
    settings = None
    if any(key.startswith("base_model.model.") for key in tensors) and beside.is_file():
        settings = read_json(beside)
    return lora_from_tensors(tensors, target, metadata, str(path), settings), metadata


def lora_from_tensors(
    tensors: Mapping[str, torch.Tensor],
    target: Target,
    metadata: Mapping[str, str] | None = None,
    where: str = "LoRA",
    peft_settings: Mapping[str, Any] | None = None,
) -> LoRA:
    """What tensors with a dialect's keys do to the target's weights.

    Args:
        tensors: by key; every key must be understood.
        target: the model to match.
        metadata: the file's; diffusers keeps alphas in its "lora_adapter_metadata".
        where: what to call the LoRA in messages.
        peft_settings: the content of an adapter_config.json.

    Raises:
        BadInput: another method, several kinds, unknown modules, missing parts, shapes that do not fit; all at once.
    """
    _refuse_other_methods(tensors, where)
    modules, problems = _by_module(tensors, target, where)
    misfits = []
    alphas = _declared_alphas(metadata, peft_settings, where)
    lora: LoRA = {}
    for (component, path), parts in modules.items():
        shape = shape_of((component, path), target)
        try:
            read = read_module(parts, shape, lambda rank, at=(component, path): alphas(*at, rank))
            for (_, own), weights in apart((component, path), read, target).items():
                if own in lora.setdefault(component, {}):
                    raise ValueError(f"{own} occurs twice, the second time in it")
                lora[component][own] = weights
        except Misfit as error:
            misfits.append(f"{component}.{path}: {error}")
        except ValueError as error:
            problems.append(f"{where}: {component}.{path}: {error}.")
    problems += _told_misfits(misfits, len(modules), tensors, where) + _told_kinds(lora, where)
    if problems:
        raise BadInput(*_shortened(problems))
    return lora


def _by_module(
    tensors: Mapping[str, torch.Tensor], target: Target, where: str
) -> tuple[dict[Module, dict[str, torch.Tensor]], list[str]]:
    """The parts of each module or stack, and what is wrong with the keys."""
    modules: dict[Module, dict[str, torch.Tensor]] = {}
    names, unknown, problems = _names(target), [], []
    for key, tensor in tensors.items():
        module, part = split_key(key) or (key, "")
        if not part or names.get(module) is None:
            unknown.append(key)
        else:
            parts = modules.setdefault(names[module], {})
            if part in parts:
                problems.append(f"{where}: {'.'.join(names[module])} occurs twice (second: {key}).")
            parts[part] = tensor
    if unknown or not modules:
        problems.insert(0, _unknown_keys(unknown, tensors, where))
    return modules, problems


READ_ORDER = ("kohya", "kohya-ldm", "comfyui", "diffusers", "diffusers-old", "peft", "peft-original")


def _names(target: Target) -> dict[str, Module | None]:
    """Every name of every module in every dialect; None where two modules share one."""
    names: dict[str, Module | None] = {}
    for dialect in READ_ORDER:
        for module, key in module_keys(dialect, target).items():
            names[key] = module if names.get(key, module) == module else None
    return names


def _refuse_other_methods(tensors: Mapping[str, torch.Tensor], where: str) -> None:
    others = other_methods(tensors)
    if others:
        found = ", ".join(f"{method} ({len(keys)} keys, such as {keys[0]})" for method, keys in others.items())
        raise BadInput(
            f"{where}: holds {found}; only {', '.join(weights.title for weights in KINDS.values())} are read here. "
            "Choose a file of one of these, or load it with ComfyUI's own loader."
        )


def _told_misfits(misfits: list[str], count: int, tensors: Mapping[str, torch.Tensor], where: str) -> list[str]:
    """One sentence on all modules whose shapes do not fit, and what to do."""
    if not misfits:
        return []
    family = guess_family(shapes_of(tensors))
    looks = f" It looks like a file for {family}." if family else ""
    more = f", and so it is with {len(misfits) - 1} more of its {count} modules" if len(misfits) > 1 else ""
    return [f"{where}: {misfits[0]}{more}.{looks} Choose a file that was made for this model (see `scion inspect`)."]


def _told_kinds(lora: LoRA, where: str) -> list[str]:
    kinds: Counter[str] = Counter(weights.title for modules in lora.values() for weights in modules.values())
    if len(kinds) < 2:
        return []
    found = ", ".join(f"{title} ({count} modules)" for title, count in kinds.items())
    return [f"{where}: holds several kinds, {found}; one is read here. ComfyUI's own loader takes the file."]


def _unknown_keys(unknown: list[str], tensors: Mapping[str, torch.Tensor], where: str) -> str:
    family = guess_family(shapes_of(tensors))
    looks = f" It looks like a LoRA for {family}." if family else ""
    if not unknown:
        return f"{where}: holds no LoRA weights."
    count = "none" if len(unknown) == len(tensors) else f"only {len(tensors) - len(unknown)}"
    return (
        f"{where}: {count} of its {len(tensors)} keys belong to this model; unknown: {', '.join(unknown[:3])}"
        f"{' …' if len(unknown) > 3 else ''}.{looks} Choose a LoRA of this model's family."
    )


def _shortened(problems: list[str], most: int = 20) -> list[str]:
    rest = len(problems) - most
    return problems if rest <= 0 else [*problems[:most], f"… and {rest} more problems of the same file."]


def _declared_alphas(metadata: Mapping[str, str] | None, peft_settings: Mapping[str, Any] | None, where: str):
    """A function (component, path, rank) -> alpha, for pairs that have no alpha key.

    Without a word on it alpha is the rank (scale 1), as every reader takes it.
    """
    try:
        written = json.loads((metadata or {}).get("lora_adapter_metadata", "{}"))
    except (ValueError, RecursionError):
        written = None
    settings = peft_settings if peft_settings is not None else {}
    if not isinstance(written, dict) or not isinstance(settings, Mapping):
        raise BadInput(f"{where}: the LoRA settings beside its weights (lora_adapter_metadata) are damaged.")

    def alpha_of(component: str, path: str, rank: int) -> float:
        prefix = f"{component}."
        own = {key[len(prefix) :]: value for key, value in written.items() if key.startswith(prefix)} or settings
        if own.get("use_dora"):
            raise ValueError("was trained with DoRA as peft stores it, which is not read here; choose another file")
        alpha = own.get("lora_alpha", rank)
        for pattern, value in (own.get("alpha_pattern") or {}).items():
            if _names_module(pattern, path):
                alpha = value
                break
        if isinstance(alpha, bool) or not isinstance(alpha, (int, float)):
            raise ValueError(f"lora_alpha is {alpha!r}; a number is needed")
        return effective_alpha(rank, float(alpha), bool(own.get("use_rslora")))

    return alpha_of


def _names_module(pattern: str, path: str) -> bool:
    """Whether peft's alpha_pattern entry means this module: its whole path, or (without "^") the end of it."""
    plain = pattern.removeprefix("^").removesuffix("$").replace("\\.", ".")
    if re.search(r"[][\\()|*+?{}]", plain):
        raise ValueError(f"alpha_pattern {pattern!r} is a regular expression, which is not read here")
    return path == plain or (not pattern.startswith("^") and path.endswith(f".{plain}"))
