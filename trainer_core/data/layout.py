"""The folder layouts that are understood, and how each tells which picture has which caption."""

import os
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

from . import captions
from .config import DatasetConfig
from .items import Picture, several, shown
from .scan_index import ScanIndex
from .walk import File, is_inside, stamp_of, walk

TABLES = ("metadata.csv", "metadata.jsonl")
FOLDER_REPEATS_MOST = 1000
"""A folder "2024_summer" is a year and not 2024 repeats."""


@dataclass(slots=True)
class Found:
    """A picture and its caption, before the picture was opened."""

    key: str
    picture: File | Picture
    caption: str
    repeats: int = 1


@dataclass
class Listing:
    """What a folder's names and texts say; each problem names its file."""

    found: list[Found] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def list_folder(root: Path, config: DatasetConfig, index: ScanIndex) -> Listing:
    """Every picture of a dataset's folder with its caption, sorted by key; no picture is opened.

    A metadata table (at the top or in `train`) decides alone which pictures belong; otherwise every picture in the
    folder and its subfolders does, with the text file of the same name as its caption.

    Args:
        root: without links in it.
        index: knows the captions of text files that have not changed since they were read.
    """
    listing = Listing()
    tables = [] if config.captions == "files" else [t for f in (root, root / "train") for t in _tables_in(f)]
    away = [table for table in tables if not table.resolve().is_relative_to(root)]
    if away:
        name = away[0].relative_to(root).as_posix()
        listing.problems.append(f"{name}: is a link that leads out of the dataset's folder; copy the file instead.")
    elif len(tables) > 1:
        names = " and ".join(t.relative_to(root).as_posix() for t in tables)
        listing.problems.append(f"{names}: more than one metadata table; keep one.")
    elif tables:
        _from_table(root, tables[0], listing)
    elif config.captions == "metadata":
        listing.problems.append(
            f"{root}: has no metadata.csv or metadata.jsonl, here or in train; write one, or set captions to 'auto'."
        )
    else:
        _from_files(root, listing, index)
    listing.found.sort(key=lambda found: found.key)
    return listing


def _tables_in(folder: Path) -> list[Path]:
    return [folder / name for name in TABLES if (folder / name).is_file()]


def _from_table(root: Path, table: Path, listing: Listing) -> None:
    folder, name = table.parent, table.relative_to(root).as_posix()
    rows, wrong = captions.read_table(table)
    listing.problems += [f"{name}: {problem}" for problem in wrong]
    seen: dict[str, captions.Row] = {}
    for row in rows:
        where = f"{name}: line {row.line}"
        try:
            file = _inside(root, folder, row.file_name)
        except ValueError as error:
            listing.problems.append(f"{where}: file_name {row.file_name!r:.300} {error}")
            continue
        key = file.key
        before = seen.setdefault(key, row)
        if before is row:
            listing.found.append(Found(key, file, row.text))
        elif before.text == row.text:
            listing.notes.append(f"{where}: {shown(key)} is listed on line {before.line} already; it counts once.")
        else:
            listing.problems.append(
                f"{where}: {shown(key)} has another caption than on line {before.line}; keep one of the two lines."
            )
    others, texts = [], 0
    for _, files in walk(str(root), str(folder), []):
        others += [shown(file.key) for file in files if file.is_picture and file.key not in seen]
        texts += sum(not file.is_picture for file in files)
    if others:
        listing.notes.append(f"{name} does not list {several(others)}: left out.")
    if texts:
        listing.notes.append(
            f"{name} gives the captions, so {texts} text files beside the pictures are not read "
            "(set captions to 'files' to read those instead)."
        )


def _inside(root: Path, folder: Path, name: str) -> File:
    """The file that a table means, never outside the dataset.

    Raises:
        ValueError: in words for a person, to be put behind the name.
    """
    if not name or "\0" in name:
        raise ValueError("is no file name.")
    # Tables travel between systems: a name that is absolute or climbs on any of them is refused on all.
    windows, posix = PureWindowsPath(name), PurePosixPath(name)
    if windows.anchor or posix.is_absolute() or ".." in windows.parts:
        raise ValueError("leads out of the dataset's folder; write it relative to the table, without '..'.")
    path = folder.joinpath(*windows.parts) if "\\" in name else folder / posix
    try:
        if not path.is_file():
            raise ValueError("does not exist; correct the name, or delete the line.")
        if not is_inside(str(path), str(root)):
            raise ValueError("is a link that leads out of the dataset's folder; copy the file instead.")
        return File(path.relative_to(root).as_posix(), str(path), stamp_of(path.stat()))
    except OSError as error:
        raise ValueError(f"cannot be opened ({error.strerror or error}).") from None


def _from_files(root: Path, listing: Listing, index: ScanIndex) -> None:
    shared, lonely, repeated = [], [], {}
    for folder, files in walk(str(root), str(root), listing.problems):
        texts: dict[str, list[File]] = defaultdict(list)
        for file in files:
            if not file.is_picture:
                texts[file.stem].append(file)
        captions_of = {stem: _caption_of(same, listing, index) for stem, same in texts.items()}
        pictures = [file for file in files if file.is_picture]
        users = Counter(file.stem for file in pictures)
        for stem, count in users.items():
            if count > 1 and stem in texts:
                names = [shown(file.key) for file in pictures if file.stem == stem]
                shared.append(f"{' and '.join(names)} share the caption {shown(os.path.basename(texts[stem][0].key))}.")
        lonely += [shown(file.key) for stem, same in texts.items() if stem not in users for file in same]
        repeats = _folder_repeats(folder, repeated) if pictures else 1
        for file in pictures:
            caption = captions_of.get(file.stem, "")
            if caption is not None:
                listing.found.append(Found(file.key, file, caption, repeats))
    listing.notes += shared
    if lonely:
        listing.notes.append(f"no picture belongs to {several(lonely)}: not used.")
    listing.notes += repeated.values()


def _caption_of(files: list[File], listing: Listing, index: ScanIndex) -> str | None:
    """The caption in a picture's text files; None if it cannot be told (the problem is then in the listing)."""
    said = set()
    for file in files:
        caption = index.known(file)
        if not isinstance(caption, str):
            try:
                caption = captions.read_text(Path(file.path))
            except ValueError as error:
                listing.problems.append(f"{shown(file.key)}: {error}")
                return None
            index.keep(file, caption)
        said.add(caption)
    if len(said) > 1:
        names = " and ".join(shown(file.key) for file in files)
        listing.problems.append(f"{names}: two different captions for one picture; keep one.")
        return None
    return said.pop()


def _folder_repeats(folder: str, notes: dict[str, str]) -> int:
    """How often the pictures of a folder are repeated: kohya's `<repeats>_<name>`, the innermost folder so named.

    Args:
        folder: its key.
        notes: by name of a folder, what is to be said of it.
    """
    for part in reversed(folder.split("/")):
        match = re.fullmatch(r"([0-9]{1,9})_(.+)", part)
        if match:
            number = int(match[1])
            usable = 1 <= number <= FOLDER_REPEATS_MOST
            what = (
                f"each picture {number} times an epoch."
                if usable
                else f"not taken for a number of repeats (1 to {FOLDER_REPEATS_MOST})."
            )
            notes.setdefault(part, f"folder {shown(part)}: {what}")
            return number if usable else 1
    return 1
