"""MODEL, CLIP and VAE of the host for what LoadTrainingModel offers, where the host has the architecture."""

import json
from pathlib import Path

import comfy.diffusers_load
import comfy.sd
import folder_paths

from ...trainer_core.errors import BadInput
from ...trainer_core.families import registry
from ...trainer_core.families.sources import BUILT_IN, Source
from . import builtin
from .weights import ATTACHMENT, FAMILIES, Attached


def host_models(source: Source) -> tuple | None:
    """MODEL, CLIP and VAE; None where the host does not know the architecture, or not as a diffusers folder."""
    if not source.is_file and _family_of(source.path) not in (None, *FAMILIES.values()):
        return None  # the host would take six billion numbers in before it saw that it does not know them
    models = builtin.scion_tiny() if source.base in BUILT_IN else _loaded(source.path)
    if models is None:
        return None
    model, clip, vae = models
    # By these a run in the graph can be repeated on the command line, and pictures have the base's own size.
    told = Attached(source.base, source.name, _resolution(source.path))
    for patcher in (model, getattr(clip, "patcher", None), getattr(vae, "patcher", None)):
        if patcher is not None:
            patcher.set_attachments(ATTACHMENT, told)
    return models


def _loaded(path: Path) -> tuple | None:
    embeddings = folder_paths.get_folder_paths("embeddings")
    # Of folders the host reads those of UNets alone, and no weights in several files.
    if path.is_dir() and (not (path / "unet").is_dir() or any((path / "unet").glob("*.index*.json"))):
        return None
    try:
        if path.is_dir():
            return comfy.diffusers_load.load_diffusers(str(path), embedding_directory=embeddings)
        model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(str(path), embedding_directory=embeddings)
        return model, clip, vae
    except Exception as error:  # the host's readers raise nearly anything
        if "model type" in str(error):  # how the host says that it does not recognise the weights
            return None
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadInput(f"base: {path} cannot be loaded ({reason:.200}); is it a whole checkpoint?") from error


def _family_of(folder: Path) -> str | None:
    """Our name of a folder's family; None where it is none of ours."""
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    return registry.PIPELINES.get(index.get("_class_name")) if isinstance(index, dict) else None


def _resolution(path: Path) -> int | None:
    """The side that a folder's model was made for, in pixels; a single file does not tell."""
    config = path / "unet" / "config.json"
    if not config.is_file():
        return None
    side = json.loads(config.read_text(encoding="utf-8")).get("sample_size")
    return side * 8 if isinstance(side, int) else None
