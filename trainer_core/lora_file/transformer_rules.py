"""How programs name the modules of transformers in LoRA files, by diffusers' class of the transformer."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

from . import flux_names, hunyuan_names, sd3_names

ONE_TRAINER = "lora_transformer_{under}"
"""As OneTrainer writes them: kohya's form, with alphas."""


@dataclass(frozen=True)
class Rules:
    """Read in ComfyUI v0.33 (comfy/lora.py, model_lora_keys_unet) and in diffusers 0.42 (loaders/lora_pipeline.py)."""

    comfyui: tuple[str, ...]
    """What ComfyUI calls a module beside its original name: {path} as diffusers has it, {under} with underscores."""
    mixin: str
    """diffusers' class that loads such a file into a pipeline; empty where it has none."""
    originals: ModuleType | None = None
    """What has `original_names` and `stacks` of it; None where nobody writes or reads these."""
    official: bool = False
    """Whether ComfyUI knows original names behind "base_model.model.", as peft writes them of the original model."""

    def comfyui_names(self, path: str) -> Iterator[str]:
        """All names of a module that ComfyUI knows.

        Args:
            path: as diffusers has it.
        """
        for form in self.comfyui:
            yield form.format(path=path, under=path.replace(".", "_"))


RULES = {
    "SD3Transformer2DModel": Rules(
        ("transformer.{path}", "base_model.model.{path}", ONE_TRAINER, "lycoris_{under}"),
        "SD3LoraLoaderMixin",
        sd3_names,
    ),
    "HunyuanDiT2DModel": Rules((), "", hunyuan_names, official=True),
    "FluxTransformer2DModel": Rules(
        ("transformer.{path}", "{path}", ONE_TRAINER, "lycoris_{under}"),
        "FluxLoraLoaderMixin",
        flux_names,
    ),
}
