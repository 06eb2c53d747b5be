"""Where a base model comes from: the built-in one, a diffusers folder, a checkpoint file, or a cached hub id."""

import re
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from ..assets import SCION_TINY
from ..errors import BadInput

BUILT_IN = {"scion-tiny": SCION_TINY}
WEIGHTS = (".safetensors", ".bin")
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


PARTS = ("unet", "transformer", "vae", "text_encoder*", "tokenizer*", "scheduler")
"""Folders of a diffusers model that training needs; the rest (safety checkers, whole checkpoints) is not fetched."""


def resolve(base: str, download: bool = False) -> Source:
    """Finds a base; asks no network unless `download` allows it.

    Args:
        base: "scion-tiny", the path of a diffusers folder or checkpoint file, or a hub id.
        download: whether a hub id that is not in the local cache may be fetched.

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
    if is_hub_id(base):
        cached = _cached_snapshot(base)
        if download:
            cached = _fetched(base, cached)
        if cached is not None:
            return Source(base, cached)
        raise BadInput(
            f"base: {base!r} is neither a path here nor a model in the local Hugging Face cache; nothing is downloaded "
            f"by itself. Fetch it once with `hf download {base}` (in ComfyUI: tick download), or give the path of a "
            "folder or checkpoint"
        )
    raise BadInput(
        f"base: nothing at {base!r}; give {', '.join(BUILT_IN)}, the path of a diffusers folder or of a checkpoint "
        "file, or a hub id (owner/name) that is in the local cache"
    )


def is_hub_id(text: str) -> bool:
    """Whether this is written as `owner/name`; no part begins with a dot, so that it cannot lead out of a folder."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", text) is not None


def _cached_snapshot(repo: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        # Asked for everything, the hub's library would miss what was never wanted (see `wanted_files`).
        folder = Path(snapshot_download(repo, local_files_only=True, allow_patterns=["model_index.json"]))
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    return folder if (folder / "model_index.json").is_file() else None


def _fetched(repo: str, cached: Path | None) -> Path:
    """A model from the hub in the local cache: of each part one form of the weights, safetensors where there are any.

    Args:
        cached: what of it is here already; used as it is where the hub cannot be reached.

    Raises:
        BadInput: it cannot be fetched.
    """
    from huggingface_hub import HfApi, snapshot_download

    try:
        names = HfApi().list_repo_files(repo)
        return Path(snapshot_download(repo, allow_patterns=wanted_files(names)))
    except Exception as error:  # no network, no such model, no right to it: the hub's own words say which
        if cached is not None:
            return cached
        raise BadInput(f"base: {repo!r} could not be fetched from Hugging Face ({error})") from None


def wanted_files(names: list[str]) -> list[str]:
    """Which of a repository's files to fetch.

    Raises:
        BadInput: it is no diffusers model.
    """
    if "model_index.json" not in names:
        raise BadInput("it has no model_index.json, so it is no diffusers model")
    own = [n for n in names if n.count("/") == 1 and any(fnmatch(n.split("/")[0], part) for part in PARTS)]
    wanted = ["model_index.json", *(n for n in own if not n.endswith(WEIGHTS))]
    for folder in dict.fromkeys(name.split("/")[0] for name in own):
        weights = [name for name in own if name.startswith(f"{folder}/") and name.endswith(WEIGHTS)]
        for ending in WEIGHTS:
            # A part's variants (fp16, ema) have a dot more in their names.
            plain = [name for name in weights if name.endswith(ending) and name.count(".") == 1]
            chosen = plain or [name for name in weights if ".fp16" in name and name.endswith(ending)]
            if chosen:
                wanted += chosen
                break
    return wanted
