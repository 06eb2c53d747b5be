"""A LoRA as the folder that peft itself reads, for models that diffusers has no LoRA loader for."""

import re
from pathlib import Path

import torch

from ..files import write_json
from .dialects import lora_from_tensors, module_keys
from .lora import LoRA, LoraPair, ReaderReport, Target
from .safe_io import write_tensors
from .transformer_rules import RULES

SETTINGS, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""The files of such a folder."""


def is_needed(target: Target) -> bool:
    """Whether diffusers cannot load the model's LoRA files by itself."""
    return target.transformer in RULES and not RULES[target.transformer].mixin


def write(
    folder: str | Path, lora: LoRA, dtype: torch.dtype, metadata: dict[str, str], target: Target, base: str
) -> list[ReaderReport]:
    """What `peft.PeftModel.from_pretrained(transformer, folder)` reads.

    Ranks and alphas of single modules go into its patterns; the weights are written last.

    Args:
        dtype: of the matrices.
        base: what the settings call the base model.

    Returns:
        That peft loads it; nothing where nothing was written, as of LoRA's relatives.

    Raises:
        ScionError: the disk is full, or the folder is not writable.
    """
    pairs = lora.get("transformer", {})
    if not pairs or any(type(pair) is not LoraPair for pair in pairs.values()):
        return []
    keys, tensors = module_keys("peft", target), {}
    for path, pair in pairs.items():
        name = keys["transformer", path]
        tensors[f"{name}.lora_A.weight"] = pair.down.detach().to("cpu", dtype).contiguous()
        tensors[f"{name}.lora_B.weight"] = pair.up.detach().to("cpu", dtype).contiguous()
    settings = _settings(pairs, base)
    lora_from_tensors(tensors, target, peft_settings=settings)  # it must be readable again
    folder = Path(folder)
    write_json(folder / SETTINGS, settings)
    write_tensors(folder / WEIGHTS, tensors, {"format": "pt", **metadata})
    return [ReaderReport(f"peft, from {folder.name}", len(pairs), len(pairs))]


def _settings(pairs: dict[str, LoraPair], base: str) -> dict:
    """peft's LoraConfig: the first module's rank and alpha, and patterns for modules that differ."""
    first = next(iter(pairs.values()))
    # A pattern without an anchor would mean every module that ends so.
    exact = {path: f"^{re.escape(path)}$" for path in pairs}
    return {
        "peft_type": "LORA",
        "base_model_name_or_path": base,
        "inference_mode": True,
        "bias": "none",
        "fan_in_fan_out": False,
        "lora_dropout": 0.0,
        "r": first.rank,
        "lora_alpha": first.alpha,
        "rank_pattern": {exact[path]: pair.rank for path, pair in pairs.items() if pair.rank != first.rank},
        "alpha_pattern": {exact[path]: pair.alpha for path, pair in pairs.items() if pair.alpha != first.alpha},
        "target_modules": sorted(pairs),
        "use_rslora": False,
        "use_dora": False,
    }
