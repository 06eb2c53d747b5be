"""The datasets that a workflow may name: folders of pictures under roots that are allowed on this machine."""

import hashlib
import itertools
import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

import folder_paths

from ...trainer_core.assets import EXAMPLE_DATASET
from ...trainer_core.data.layout import TABLES
from ...trainer_core.data.pictures import ENDINGS
from ...trainer_core.data.walk import CAPTION_ENDINGS
from ...trainer_core.errors import BadInput

BUILT_IN_DATASET = "scion-example (built in)"
DATASETS_MOST = 1000
"""So many folders are listed; from more nobody can choose. Others can still be named."""
LOOKED_AT_MOST = 2000
"""So many entries of a folder, and of what is in it, are looked at to find a picture among them."""
DEPTH = 3
"""Levels below a root at which pictures are looked for: `my-data/train/10_dog` has them at the third."""
LISTED_FOR = 0.5
"""Seconds for which a listing holds: the host asks for it several times at every queue."""
LOCAL_SETTINGS = "scion.json"
"""In the host's user directory, where its web interface cannot write: {"datasets": ["/folders/that/are/allowed"]}."""

_listing: tuple[float, list[str]] = (float("-inf"), [])


def dataset_names() -> list[str]:
    """What the dataset node offers: folders of pictures under the allowed roots, and the built-in example."""
    global _listing
    if time.monotonic() - _listing[0] > LISTED_FOR:
        _listing = time.monotonic(), _names()
    return [*_listing[1], BUILT_IN_DATASET]


def dataset_folder(name: str, what: str = "folder") -> Path:
    """The folder of that name in the first root that has it; it need not be listed.

    Args:
        what: the widget that holds the name, for the message.

    Raises:
        BadInput: there is none, or it is no name of a folder below a root.
    """
    if name == BUILT_IN_DATASET:
        return EXAMPLE_DATASET
    parts = name.split("/")
    inside = len(parts) <= 2 and not any(part.startswith(".") or not _is_name(part) for part in parts)
    for root in dataset_roots():
        if inside and os.path.isdir(root.joinpath(*parts)):
            return root.joinpath(*parts)
    _allowed_locally()  # if that file cannot be read, this is what to say
    roots = ", ".join(str(root) for root in dataset_roots())
    raise BadInput(
        f"{what}: {name!r} is no dataset on this machine. Put the folder into one of {roots}; other places can be "
        f"allowed by a 'datasets' entry in extra_model_paths.yaml or in {local_settings()}"
    )


def name_of(folder: Path) -> str:
    """The name under which a workflow has a folder; the folder's own where it lies elsewhere by now."""
    if folder == EXAMPLE_DATASET:
        return BUILT_IN_DATASET
    for root in dataset_roots():
        if folder.is_relative_to(root) and 0 < len(inside := folder.relative_to(root).parts) <= 2:
            return "/".join(inside)
    return folder.name


def folder_in_input(name: str) -> Path:
    """The host's input folder of that name, for new files; it need not be there.

    Raises:
        BadInput: it is no name of a folder below the input folder, or leads out of it.
    """
    root = Path(folder_paths.get_input_directory())
    parts = name.split("/")
    folder = root.joinpath(*parts)
    if len(parts) > 2 or any(part.startswith(".") or not _is_name(part) or len(part) > 120 for part in parts):
        raise BadInput(f"{name!r:.140} cannot be a dataset's name; use letters, digits, spaces, - and _")
    if not folder.resolve().is_relative_to(root.resolve()):
        raise BadInput(f"{name!r:.140} is a link that leads out of {root}")
    return folder


def fingerprint(folder: Path) -> str:
    """Changes when a picture or caption is added, removed or written; cheap, because it is asked at every queue.

    A hash, because the host writes it, as part of the graph, into every picture that the graph saves.
    """
    digest = hashlib.sha256()
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.startswith(".") or not (name.lower().endswith((*ENDINGS, *CAPTION_ENDINGS)) or name in TABLES):
                continue
            path = os.path.join(place, name)
            try:
                status = os.stat(path)
            except OSError:  # a dangling link: the scan will say so
                continue
            said = [os.path.relpath(path, folder), status.st_size, status.st_mtime_ns]
            digest.update(json.dumps(said).encode())
    return digest.hexdigest()


def _is_name(part: str) -> bool:
    return bool(part) and Path(part).name == part and not set(part) & set("\\:\0")


def _names() -> list[str]:
    found: dict[str, None] = {}
    for root in dataset_roots():
        for name in _names_in(root):
            if len(found) == DATASETS_MOST:
                return list(found)
            found.setdefault(name)
    return list(found)


def _names_in(root: Path) -> Iterator[str]:
    """Folders with pictures, at the root and one level below: "dog", "people/alice"."""
    for folder in _subfolders(root):
        if _has_pictures(folder, DEPTH):
            yield folder.name
            yield from (f"{folder.name}/{sub.name}" for sub in _subfolders(folder) if _has_pictures(sub, DEPTH - 1))


def _subfolders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            few = itertools.islice(entries, 10 * LOOKED_AT_MOST)
            return sorted(Path(entry.path) for entry in few if entry.is_dir() and not entry.name.startswith("."))
    except OSError:
        return []


def _has_pictures(folder: Path, depth: int) -> bool:
    """Whether there is a picture in a folder or in what is in it, as far as a bounded look can tell."""
    waiting, left = [(folder, depth)], LOOKED_AT_MOST
    while waiting:
        place, levels = waiting.pop(0)
        try:
            with os.scandir(place) as entries:
                for entry in itertools.islice(entries, left):
                    left -= 1
                    if entry.name.lower().endswith(ENDINGS) or entry.name in TABLES:
                        return True
                    if levels > 1 and not entry.name.startswith(".") and entry.is_dir():
                        waiting.append((Path(entry.path), levels - 1))
        except OSError:
            continue
    return False


# ---- roots


def dataset_roots() -> list[Path]:
    """The folders whose subfolders are datasets; what the local settings allow only as far as they can be read."""
    roots = [folder_paths.get_input_directory()]
    if "datasets" in folder_paths.folder_names_and_paths:
        roots += folder_paths.get_folder_paths("datasets")
    try:
        roots += _allowed_locally()
    except BadInput as error:
        # The host asks for the names while it loads the nodes; raised here, none of them would be there.
        logging.warning("Scion: %s", error)
    return [Path(root) for root in roots]


def local_settings() -> Path:
    """The file that allows more of them."""
    return Path(folder_paths.get_user_directory()) / LOCAL_SETTINGS


def _allowed_locally() -> list[str]:
    try:
        folders = json.loads(local_settings().read_text(encoding="utf-8"))["datasets"]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f'{local_settings()}: expected {{"datasets": ["/a/folder"]}} ({error})') from None
    # A single path instead of a list would be taken apart into letters, of which "/" allows everything.
    if not isinstance(folders, list) or not all(isinstance(f, str) and Path(f).is_absolute() for f in folders):
        raise BadInput(f'{local_settings()}: expected {{"datasets": ["/a/folder"]}}, got {folders!r:.200}')
    return folders
