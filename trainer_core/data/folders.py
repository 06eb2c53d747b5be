"""Several folders as one dataset: scanned one after another, each with its own settings, their items told apart."""

import dataclasses
import os
from collections import defaultdict
from collections.abc import Callable, Sequence

from .config import PER_FOLDER, DatasetConfig, FolderConfig
from .items import Item, shown
from .scan import Scan, Watch, scan_folder

IN_MEMORY = "pictures"
"""What a folder is called that is none: pictures that other programs made."""


def names_of(parts: Sequence[DatasetConfig]) -> list[str]:
    """What the folders are called, in keys and messages: by their own names, made unique; empty for a single one.

    Not by their paths: a copy of the dataset elsewhere is the same dataset.
    """
    if len(parts) == 1:
        return [""]
    names: list[str] = []
    for part in parts:
        name = os.path.basename(os.path.abspath(os.path.expanduser(part.path))) if part.path else IN_MEMORY
        free, number = name, 2
        while free in names:
            free, number = f"{name}-{number}", number + 1
        names.append(free)
    return names


def explicit(config: DatasetConfig) -> list[FolderConfig]:
    """A dataset's folders, each with every setting that it can have of its own: the same in another dataset."""
    return [
        FolderConfig(path=part.path, **{name: getattr(part, name) for name in PER_FOLDER}) for part in config.parts()
    ]


def scan_dataset(
    config: DatasetConfig, watch: Watch | None = None, should_stop: Callable[[], bool] | None = None
) -> Scan:
    """Every item in all folders of a dataset; the problems of all are told together.

    Args:
        watch: told, for each folder, how many pictures are checked.
        should_stop: asked before each picture.
    """
    unnamed = [number for number, folder in enumerate(config.folders) if not folder.path.strip()]
    if unnamed:
        return Scan([], [f"folders[{number}].path: is empty; give the folder of the pictures." for number in unnamed])
    scans = []
    for part in config.parts():
        scans.append(scan_folder(part, watch, should_stop))
        if scans[-1].stopped:
            break
    return join(config, scans)


def join(config: DatasetConfig, scans: Sequence[Scan]) -> Scan:
    """One scan of the scans of a dataset's folders, which are as `config.parts` has them.

    An item's key gets its folder's name in front; a single folder's items keep theirs.
    """
    if len(scans) == 1 and len(config.parts()) == 1:
        return scans[0]
    names = names_of(config.parts())
    items, problems, notes = [], [], []
    for number, (name, scan) in enumerate(zip(names, scans, strict=False)):
        items += [dataclasses.replace(item, key=f"{name}/{item.key}", folder=number) for item in scan.items]
        problems += [f"in {shown(name)}: {problem}" for problem in scan.problems]
        notes += [f"in {shown(name)}: {note}" for note in scan.notes]
    notes += _shared(items)
    return Scan(sorted(items, key=lambda item: item.key), problems, notes, any(scan.stopped for scan in scans))


def _shared(items: list[Item]) -> list[str]:
    """Notes about pictures that are in more than one folder."""
    same: dict[str, dict[int, str]] = defaultdict(dict)
    for item in items:
        same[item.digest].setdefault(item.folder, shown(item.key))
    return [
        f"{' and '.join(keys.values())} are the same picture; it counts in {len(keys)} folders."
        for keys in same.values()
        if len(keys) > 1
    ]
