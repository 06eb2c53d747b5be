"""MODEL, CLIP and VAE of the host for what LoadTrainingModel offers, where the host has the architecture."""

from pathlib import Path

import comfy.diffusers_load
import comfy.sd
import folder_paths

from ...trainer_core.families.sources import BUILT_IN
from . import builtin


def host_models(base: str, path: Path) -> tuple | None:
    """MODEL, CLIP and VAE; None where the host does not know the architecture.

    Args:
        base: as the recipe has it.
        path: of the checkpoint file or diffusers folder.
    """
    if base in BUILT_IN:
        return builtin.scion_tiny()
    embeddings = folder_paths.get_folder_paths("embeddings")
    if path.is_file():
        model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(str(path), embedding_directory=embeddings)
        return model, clip, vae
    try:
        return comfy.diffusers_load.load_diffusers(str(path), embedding_directory=embeddings)
    except RuntimeError as error:
        if "model type" not in str(error):  # how the host says that it does not recognise the weights
            raise
        return None
