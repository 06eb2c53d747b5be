"""Which family a single file of weights is of, judged by its keys and shapes alone."""

from collections.abc import Mapping
from pathlib import Path

from ..errors import BadInput

TEXTS = {
    "cond_stage_model.transformer.": "Stable Diffusion 1",
    "cond_stage_model.model.": "Stable Diffusion 2",
    "conditioner.embedders.1.": "Stable Diffusion XL",
    "conditioner.embedders.0.model.": "Stable Diffusion XL refiner",
}
"""What a checkpoint calls its text encoders; each family its own."""
DENOISERS = {"joint_blocks.": "Stable Diffusion 3", "double_blocks.": "Flux", "mlp_t5.": "HunyuanDiT"}
WIDTHS = {
    768: "Stable Diffusion 1",
    1024: "Stable Diffusion 2",
    1280: "Stable Diffusion XL refiner",
    2048: "Stable Diffusion XL",
}
"""Of the text that a UNet's attention takes, for checkpoints without a text encoder."""
UNET = "model.diffusion_model."
TRAINED = {
    "Stable Diffusion 1": "sd15",
    "Stable Diffusion XL": "sdxl",
    "Stable Diffusion 3": "sd3",
    "HunyuanDiT": "hunyuan_dit",
    "Flux": "flux",
}
"""The families that are read from a single file, by their titles."""


def family_of_file(shapes: Mapping[str, tuple[int, ...]], path: Path) -> str:
    """The name of the family.

    Args:
        shapes: of the file's tensors, by key.

    Raises:
        BadInput: it is of none that is trained, of several, or of none that is known; says what was found.
    """
    found = _titles(shapes)
    if len(found) > 1:
        raise BadInput(
            f"base: {path} has weights of {' and of '.join(sorted(found))} in it, so it cannot be told what it is; "
            "choose a file of one model"
        )
    if not found:
        raise BadInput(f"base: {path} is of no family that is known here: {_told(shapes)}")
    (title,) = found
    if title not in TRAINED:
        raise BadInput(
            f"base: {path} is a {title} checkpoint; of single files this version trains {', '.join(TRAINED)}"
        )
    return TRAINED[title]


def _titles(shapes: Mapping[str, tuple[int, ...]]) -> set[str]:
    def holds(mark: str) -> bool:
        return any(key.startswith((mark, f"model.{mark}")) or f"diffusion_model.{mark}" in key for key in shapes)

    found = {title for mark, title in DENOISERS.items() if holds(mark)}
    found |= {title for prefix, title in TEXTS.items() if any(key.startswith(prefix) for key in shapes)}
    if found:
        return found
    widths = {shape[-1] for key, shape in shapes.items() if key.startswith(UNET) and key.endswith("attn2.to_k.weight")}
    return {WIDTHS[width] for width in widths if width in WIDTHS}


def _told(shapes: Mapping[str, tuple[int, ...]]) -> str:
    if any(".lora_" in key for key in shapes):
        return "it is a LoRA; give the checkpoint that it was made for as the base, and the LoRA as adapter.start_from"
    beginnings = list(dict.fromkeys(key.split(".")[0] for key in shapes))
    more = ", …" if len(beginnings) > 4 else ""
    return (
        f"{len(shapes)} tensors, whose names begin with {', '.join(beginnings[:4])}{more}" if shapes else "it is empty"
    )
