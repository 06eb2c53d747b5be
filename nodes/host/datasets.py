"""The datasets that a workflow may name: folders of pictures under roots that are allowed on this machine."""

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import folder_paths

from ...trainer_core.assets import EXAMPLE_DATASET
from ...trainer_core.data.layout import TABLES
from ...trainer_core.data.pictures import ENDINGS
from ...trainer_core.errors import BadInput

BUILT_IN_DATASET = "scion-example (built in)"
DATASETS_MOST = 1000
"""So many folders are listed; from more nobody can choose."""
LOOKED_AT_MOST = 200
"""So many entries of a folder are looked at to find a picture among them."""
LOCAL_SETTINGS = "scion.json"
"""In the host's user directory, where its web interface cannot write: {"datasets": ["/folders/that/are/allowed"]}."""


def dataset_names() -> list[str]:
    """What the dataset node offers: folders of pictures under the allowed roots, and the built-in example."""
    return [*_datasets(), BUILT_IN_DATASET]


def dataset_folder(name: str) -> Path:
    """
    Raises:
        BadInput: it is none of the names that are offered.
    """
    if name == BUILT_IN_DATASET:
        return EXAMPLE_DATASET
    found = _datasets().get(name)
    if found is None:
        _allowed_locally()  # if that file cannot be read, this is what to say
        roots = ", ".join(str(root) for root in _dataset_roots())
        raise BadInput(
            f"folder: {name!r} is no dataset on this machine. Put the folder into one of {roots}; other places can be "
            f"allowed by a 'datasets' entry in extra_model_paths.yaml or in {_local_settings()}"
        )
    return found


def fingerprint(folder: Path) -> str:
    """Changes when a file of the dataset is added, removed or written; cheap, because it is asked at every queue."""
    said = []
    for place, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            path = os.path.join(place, name)
            try:
                status = os.stat(path)
            except OSError:  # a dangling link: the scan will say so
                continue
            said.append([os.path.relpath(path, folder), status.st_size, status.st_mtime_ns])
    return json.dumps(said)


def _datasets() -> dict[str, Path]:
    """Folders by name; the first root wins, as with the host's models."""
    found: dict[str, Path] = {}
    for root in _dataset_roots():
        for name, path in _folders_in(root):
            if len(found) == DATASETS_MOST:
                return found
            found.setdefault(name, path)
    return found


def _dataset_roots() -> list[Path]:
    roots = [folder_paths.get_input_directory()]
    if "datasets" in folder_paths.folder_names_and_paths:
        roots += folder_paths.get_folder_paths("datasets")
    try:
        roots += _allowed_locally()
    except BadInput as error:
        # The host asks for the names while it loads the nodes; raised here, none of them would be there.
        logging.warning("Scion: %s", error)
    return [Path(root) for root in roots]


def _local_settings() -> Path:
    return Path(folder_paths.get_user_directory()) / LOCAL_SETTINGS


def _allowed_locally() -> list[str]:
    try:
        folders = json.loads(_local_settings().read_text(encoding="utf-8"))["datasets"]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f'{_local_settings()}: expected {{"datasets": ["/a/folder"]}} ({error})') from None
    # A single path instead of a list would be taken apart into letters, of which "/" allows everything.
    if not isinstance(folders, list) or not all(isinstance(folder, str) and folder.strip() for folder in folders):
        raise BadInput(f'{_local_settings()}: expected {{"datasets": ["/a/folder"]}}, got {folders!r:.200}')
    return folders


def _folders_in(root: Path) -> Iterator[tuple[str, Path]]:
    """Folders with pictures, at the root and one level below: ("dog", …), ("people/alice", …)."""
    for folder in _subfolders(root):
        inner = [sub for sub in _subfolders(folder) if _has_pictures(sub)]
        if inner or _has_pictures(folder):
            yield folder.name, folder
        for sub in inner:
            yield f"{folder.name}/{sub.name}", sub


def _subfolders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(entry.path) for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError:
        return []


def _has_pictures(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            for _, entry in zip(range(LOOKED_AT_MOST), entries, strict=False):
                if entry.name.lower().endswith(ENDINGS) or entry.name in TABLES:
                    return True
    except OSError:
        return False
    return False
