"""Walking a dataset's folder: its pictures and texts, folder by folder in a fixed order."""

import os
from collections.abc import Iterator
from typing import NamedTuple

from .items import shown
from .pictures import ENDINGS

CAPTION_ENDINGS = (".txt", ".caption")


class Stamp(NamedTuple):
    """What changes when a file is written. The time of the last change of its inode cannot be set back by copying."""

    size: int
    modified: int
    changed: int
    """Both in nanoseconds since 1970. (On Windows the second is the time of creation.)"""


class File(NamedTuple):
    """A file of a dataset, not opened yet."""

    key: str
    """Its path below the dataset's folder, with forward slashes."""
    path: str
    stamp: Stamp

    @property
    def is_picture(self) -> bool:
        return self.key.lower().endswith(ENDINGS)


def walk(root: str, folder: str, problems: list[str]) -> Iterator[tuple[str, list[File]]]:
    """Each folder from `folder` down, by its key ("" is the root), with its pictures and texts.

    Hidden files and folders are left out. What cannot be read, or leads out of the root, is named in `problems`.

    Args:
        root: the dataset's folder, without links in it.
        folder: the root, or a folder in it.
    """
    waiting = [folder]
    while waiting:
        at = waiting.pop()
        try:
            with os.scandir(at) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            problems.append(f"{shown(at)}: cannot be read ({error.strerror or error}).")
            continue
        prefix = at[len(root) :].strip(os.sep).replace(os.sep, "/")
        prefix = f"{prefix}/" if prefix else ""
        inner, files = [], []
        for entry in entries:
            if _is_folder(entry):
                if not entry.name.startswith((".", "__MACOSX")):
                    inner += _followed(entry, prefix, problems)
            elif not entry.name.startswith(".") and entry.name.lower().endswith(ENDINGS + CAPTION_ENDINGS):
                files += _usable(entry, prefix, root, problems)
        waiting += reversed(inner)
        yield prefix.rstrip("/"), files


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in circles
        return False


def _followed(entry: os.DirEntry, prefix: str, problems: list[str]) -> list[str]:
    if not entry.is_symlink():
        return [entry.path]
    problems.append(
        f"{shown(prefix + entry.name)}: is a linked folder, which is not followed; copy it, or name it as the dataset."
    )
    return []


def _usable(entry: os.DirEntry, prefix: str, root: str, problems: list[str]) -> list[File]:
    key = prefix + entry.name
    if not key.isascii() and not _is_text(key):
        problems.append(f"{ascii(key)}: the name is no valid text; rename the file.")
        return []
    # Asking the system for the real path of every file would take longer than everything else.
    if entry.is_symlink() and not is_inside(entry.path, root):
        problems.append(f"{shown(key)}: is a link that leads out of the dataset's folder; copy the file instead.")
        return []
    try:
        return [File(key, entry.path, stamp_of(entry.stat()))] if entry.is_file() else []
    except OSError as error:
        problems.append(f"{shown(key)}: cannot be read ({error.strerror or error}).")
        return []


def stem_of(key: str) -> str:
    """The name of a file, without folders and ending."""
    return os.path.splitext(key)[0].rpartition("/")[2]


def stamp_of(status: os.stat_result) -> Stamp:
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def is_inside(path: str, root: str) -> bool:
    """Whether a file truly lies in a folder, wherever links lead."""
    real = os.path.realpath(path)
    return real == root or real.startswith(root.rstrip(os.sep) + os.sep)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
