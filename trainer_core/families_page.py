"""The tables in docs/families.md, made from the families' code: `python -m trainer_core.families_page`."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import torch

from .adapters.lora_config import LoRAConfig
from .families.latent import LatentFamily
from .families.registry import FAMILIES
from .families.unet import UNetFamily
from .lora_file.dialects import lora_to_tensors
from .lora_file.known_targets import standard_target
from .lora_file.lora import empty_pairs
from .lora_file.readers import reader_reports

PAGE = Path(__file__).parent.parent / "docs" / "families.md"
MEASURED = Path(__file__).parent.parent / "benchmarks" / "families.json"
"""What `benchmarks/families.py` has measured."""

BEGIN, END = "<!-- generated: begin -->\n", "<!-- generated: end -->\n"
TABLE = (
    "family",
    "sources",
    "in the graph",
    "text encoders",
    "of which learn",
    "objective",
    "default targets",
    "keys of its LoRA files",
    "loaded in full by",
)
COSTS = (
    "512×512, batch 1, rank 4",
    "numbers that train",
    "denoiser, fp32",
    "denoiser, bf16",
    "forward and backward, fp32",
    "the same with checkpointing",
    "forward and backward, bf16",
    "the same with checkpointing",
    "time with checkpointing, bf16",
    "time on a GPU",
)
SIDE = 512


def for_page(page: str) -> str:
    """
    Args:
        page: its text.

    Returns:
        The text with its tables made anew.
    """
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + tables() + END + rest.partition(END)[2]


def tables() -> str:
    text = f"| {' | '.join(TABLE)} |\n|{'---|' * len(TABLE)}\n"
    for name, family in FAMILIES.items():
        cells = [
            f"**{family.title}** (`{name}`)",
            _sources(family),
            "a MODEL" if family.comfyui else "a TRAINING_MODEL",
            family.captions,
            ", ".join(f"`{key}`" for key in learning(family)) or "none",
            _objective(family),
            f"`{', '.join(LoRAConfig().targets)}`",
            f"`{family.default_dialect}`: `{_example(family)}`",
            ", ".join(loaded_by(family)),
        ]
        text += f"| {' | '.join(cells)} |\n"
    text += "\n| preset of `adapter.targets` | modules |\n|---|---|\n"
    text += "".join(f"| {named} | `{pattern}` |\n" for named, pattern in _presets())
    return text + _measured()


def learning(family: LatentFamily) -> list[str]:
    """The text encoders that can learn, by the names that keys have for them."""
    return list(family.texts) if family.text_targets else []


def _measured() -> str:
    """What was measured of each family's step; what was not stays blank."""
    held = json.loads(MEASURED.read_text(encoding="utf-8"))
    text = f"\n| {' | '.join(COSTS)} |\n|{'---|' * len(COSTS)}\n"
    for name, family in FAMILIES.items():
        found = held["families"].get(name, {}).get(str(SIDE), {})
        counts = next((f"{entry['trained']:,}" for entry in found.values() if "trained" in entry), "")
        sizes = [_size(found, setting, "weights") for setting in ("fp32", "bf16")]
        sizes += [_size(found, setting, "passing") for setting in ("fp32", "fp32+", "bf16", "bf16+")]
        longer = found.get("checkpointing takes", {}).get("ratio")
        text += f"| {' | '.join([family.title, counts, *sizes, f'× {longer:.2f}' if longer else '', ''])} |\n"
    return f"{text}\nOf one step, on {held['on']} (`benchmarks/families.py`). Blank: not measured.\n"


def _size(found: dict, setting: str, what: str) -> str:
    """In GB; weights are the same with checkpointing."""
    entry = found.get(setting) or (found.get(f"{setting}+") if what == "weights" else None)
    return f"{entry[what]:.2f} GB" if entry else ""


def _presets() -> Iterator[tuple[str, str]]:
    """Those that all families share, and those that one has otherwise."""
    for preset, usual in UNetFamily.targets.items():
        yield f"`{preset}`", usual.replace("|", "\\|")
    for family in FAMILIES.values():
        for preset, pattern in family.targets.items():
            if pattern != UNetFamily.targets.get(preset):
                yield f"`{preset}` of {family.title}", pattern.replace("|", "\\|")


def loaded_by(family: LatentFamily) -> list[str]:
    """The programs that load every module of a LoRA on the default targets, in the family's own dialect."""
    return [report.reader for report in reader_reports(_default_file(family), _target(family)) if report.complete]


def _target(family: LatentFamily):
    return standard_target(family.in_files)


def _default_file(family: LatentFamily) -> dict[str, torch.Tensor]:
    """The tensors of such a file, of rank 1."""
    target, (preset,) = _target(family), LoRAConfig().targets
    shapes = target.modules[family.component]
    chosen = {path: shape for path, shape in shapes.items() if re.fullmatch(family.targets[preset], path)}
    return lora_to_tensors({family.component: empty_pairs(chosen)}, family.default_dialect, target)


def _example(family: LatentFamily) -> str:
    before, mark, _ = re.split(r"(_transformer_|[._]attn)", next(iter(_default_file(family))), maxsplit=1)
    return f"{before}{mark[0]}…"


def _sources(family: LatentFamily) -> str:
    file = ", single file" if type(family)._read_file is not LatentFamily._read_file else ""
    return f"diffusers folder (`{family.pipeline}`){file}"


def _objective(family: LatentFamily) -> str:
    told = family.schedule
    if "beta_start" not in told:
        moved = (
            "moved by the picture's size"
            if told.get("use_dynamic_shifting")
            else f"shifted by {told.get('shift', 1):g}"
        )
        return f"rectified flow, noise levels {moved}, logit-normal timesteps"
    ends = " or ".join(str(version["beta_end"]) for version in family.schedules or (told,))
    schedule = f"{told['num_train_timesteps']:,} timesteps, β {told['beta_start']} to {ends}"
    return f"epsilon or v, as its scheduler says; usually {told['prediction_type']}, {schedule}"


if __name__ == "__main__":
    PAGE.write_text(for_page(PAGE.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
