"""Where a base model comes from: the built-in one, a diffusers folder, a checkpoint file, or a cached hub id."""

import re
from dataclasses import dataclass
from pathlib import Path

from ..assets import SCION_TINY
from ..errors import BadInput

BUILT_IN = {"scion-tiny": SCION_TINY}
CHECKPOINTS = (".safetensors", ".ckpt", ".pt", ".bin")


@dataclass(frozen=True)
class Source:
    """A base that is on this machine."""

    base: str
    """As the user wrote it."""
    path: Path

    @property
    def is_file(self) -> bool:
        return self.path.is_file()

    @property
    def name(self) -> str:
        """Short name for files and metadata."""
        return self.base if self.base in BUILT_IN else (self.path.stem if self.is_file else Path(self.base).name)


def resolve(base: str) -> Source:
    """Finds a base without asking any network.

    Args:
        base: "scion-tiny", the path of a diffusers folder or checkpoint file, or a hub id that is in the local cache.

    Raises:
        BadInput: with what was looked for and what to do.
    """
    if base in BUILT_IN:
        return Source(base, BUILT_IN[base])
    path = Path(base).expanduser()
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            raise BadInput(
                f"base: the folder {path} has no model_index.json, so it is no diffusers model; "
                "give the folder that holds unet/, vae/, text_encoder/ and model_index.json"
            )
        return Source(base, path)
    if path.is_file():
        if path.suffix.lower() not in CHECKPOINTS:
            raise BadInput(f"base: {path} is no checkpoint; expected a file ending in {', '.join(CHECKPOINTS)}")
        return Source(base, path)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", base):
        cached = _cached_snapshot(base)
        if cached is not None:
            return Source(base, cached)
        raise BadInput(
            f"base: {base!r} is neither a path here nor a model in the local Hugging Face cache; nothing is downloaded "
            f"by itself. Fetch it once with `hf download {base}`, or give the path of a folder or checkpoint"
        )
    raise BadInput(
        f"base: nothing at {base!r}; give {', '.join(BUILT_IN)}, the path of a diffusers folder or of a checkpoint "
        "file, or a hub id (owner/name) that is in the local cache"
    )


def _cached_snapshot(repo: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(repo, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    return folder if (folder / "model_index.json").is_file() else None
