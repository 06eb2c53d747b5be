"""A base with a finished LoRA in it, ready to draw."""

from .adapters import lora
from .engine.run_config import PRECISIONS, pick_device, pick_precision
from .families import load
from .families.base import Model
from .lora_file.dialects import read_lora
from .lora_file.lora import Target


def load_for_sampling(
    base: str, file: str | None, strength: float = 1.0, device: str = "auto", precision: str = "auto"
) -> Model:
    """Loads a base, and puts a LoRA file into its denoiser and its text encoder, as far as it has parts for them.

    Raises:
        BadInput: the base or the file cannot be used, or the file is of another model.
    """
    place = pick_device(device)
    model = load(base, PRECISIONS[pick_precision(precision, place)])
    if file:
        parts = {model.family.component: model.denoiser, "text_encoder": model.encoder.text_encoder}
        read, _ = read_lora(file, Target.of(**parts))
        for component, pairs in read.items():
            if pairs:
                lora.apply(parts[component], pairs, strength)
    model.denoiser.to(place)
    model.encoder.to(place)
    return model
