"""A LoRA onto the host's MODEL and CLIP by the host's own loader, which otherwise only logs what it leaves out."""

import logging

import comfy.lora
import comfy.lora_convert
import comfy.sd

from ...trainer_core.errors import BadInput
from ..edges import has_lora
from .api import ExecutionBlocker
from .words import with_words

log = logging.getLogger("scion")


def apply(model, clip, lora, strength_model: float, strength_clip: float) -> tuple:
    """MODEL and CLIP with the LoRA, and the new words that it was trained with in the CLIP; an output whose input is
    missing is blocked.

    Raises:
        BadInput: no key of the LoRA belongs to a layer of the model or the text encoder.
    """
    words = getattr(lora, "words", ())
    if has_lora(lora):
        _refuse_foreign(model, clip, lora)
    if clip is None and (words or _of_text(lora)):
        held = "new words" if words else "a part for the text encoder"
        log.warning("Scion: the LoRA has %s, which needs clip wired to Apply LoRA (Scion)", held)
    patched, patched_clip = comfy.sd.load_lora_for_models(model, clip, dict(lora), strength_model, strength_clip)
    if words and clip is not None:
        patched_clip = with_words(patched_clip, words)
    return patched, patched_clip if clip is not None else ExecutionBlocker("clip: not wired to Apply LoRA (Scion)")


def _of_text(tensors) -> bool:
    return any(key.startswith(("lora_te", "text_encoder")) for key in tensors)


def _refuse_foreign(model, clip, lora) -> None:
    names = comfy.lora.model_lora_keys_unet(model.model, {})
    if clip is not None:
        names = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, names)
    tensors = comfy.lora_convert.convert_lora(dict(lora))
    loaded = comfy.lora.load_lora(tensors, names, log_missing=False)
    if not loaded:
        alone = clip is None and _of_text(tensors)
        why = "it has a part for the text encoder alone: wire clip" if alone else "it is of another model"
        raise BadInput(f"lora: none of its {len(tensors)} keys ({next(iter(tensors), '')}, …) fits this model: {why}")
