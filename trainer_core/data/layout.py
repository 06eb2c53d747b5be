"""The folder layouts that are understood, and how each tells which picture has which caption."""

import os
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

from . import captions
from .config import DatasetConfig
from .items import Picture, several, shown
from .pictures import Checked
from .scan_index import Facts, ScanIndex
from .walk import File, is_inside, stamp_of, stem_of, walk

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
    known: Checked | None = None
    """What an earlier scan found out about the picture, which has not changed since."""
    mask: str | None = None
    """The path of its mask, where masks lie in a folder."""


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
    tables = [] if config.captions == "files" else tables_of(root)
    away = [table for table in tables if not table.resolve().is_relative_to(root)]
    if away:
        name = away[0].relative_to(root).as_posix()
        listing.problems.append(f"{name}: is a link that leads out of the dataset's folder; copy the file instead.")
    elif len(tables) > 1:
        names = " and ".join(t.relative_to(root).as_posix() for t in tables)
        listing.problems.append(f"{names}: more than one metadata table; keep one.")
    elif tables:
        _from_table(root, tables[0], listing, index)
    elif config.captions == "metadata":
        listing.problems.append(
            f"{root}: has no metadata.csv or metadata.jsonl, here or in train; write one, or set captions to 'auto'."
        )
    else:
        _from_files(root, listing, index)
    listing.found.sort(key=lambda found: found.key)
    return listing


def tables_of(root: Path) -> list[Path]:
    """The metadata tables of a dataset, which decide alone which pictures belong and what their captions are."""
    return [path for folder in (root, root / "train") for name in TABLES if (path := folder / name).is_file()]


def _from_table(root: Path, table: Path, listing: Listing, index: ScanIndex) -> None:
    name, lines = table.relative_to(root).as_posix(), {}
    rows, wrong = captions.read_table(table)
    listing.problems += [f"{name}: {problem}" for problem in wrong]
    pictures, texts, known = _around(root, table.parent, index)
    for row in rows:
        where = f"{name}: line {row.line}"
        try:
            # Nearly all of them were met on the walk; only for the others is the system asked, file by file.
            file = pictures.get(_key(root, table.parent, row.file_name)) or _inside(root, table.parent, row.file_name)
        except ValueError as error:
            listing.problems.append(f"{where}: file_name {row.file_name!r:.300} {error}")
            continue
        before = lines.setdefault(file.key, row)
        if before is row:
            listing.found.append(Found(file.key, file, row.text, known=known.get(file.key)))
        elif before.text == row.text:
            listing.notes.append(f"{where}: {shown(file.key)} is listed on line {before.line} already; it counts once.")
        else:
            listing.problems.append(
                f"{where}: {shown(file.key)} has another caption than on line {before.line}; keep one of the two lines."
            )
    others = [shown(key) for key in pictures if key not in lines]
    if others:
        listing.notes.append(f"{name} does not list {several(others)}: left out.")
    if texts:
        listing.notes.append(
            f"{name} gives the captions, so {texts} text files beside the pictures are not read "
            "(set captions to 'files' to read those instead)."
        )


def _around(root: Path, folder: Path, index: ScanIndex) -> tuple[dict[str, File], int, dict[str, Checked]]:
    """The pictures that a table may mean, by key; how many text files there are; what is known of the pictures."""
    pictures, known, texts = {}, {}, 0
    for _, files in walk(str(root), str(folder), []):
        here = [file for file in files if file.is_picture]
        pictures |= {file.key: file for file in here}
        known |= {key: facts for key, facts in index.known(here).items() if isinstance(facts, Checked)}
        texts += len(files) - len(here)
    return pictures, texts, known


def _key(root: Path, folder: Path, name: str) -> str:
    """The key of a table's entry, if it is written plainly."""
    return name if folder == root else f"{folder.name}/{name}"


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
        known, pictures, texts = index.known(files), [], defaultdict(list)
        for file in files:
            if file.is_picture:
                pictures.append((stem_of(file.key), file))
            else:
                texts[stem_of(file.key)].append(file)
        captions_of = {stem: _caption_of(same, known, listing, index) for stem, same in texts.items()}
        users = Counter(stem for stem, _ in pictures)
        for stem, count in users.items():
            if count > 1 and stem in texts:
                names = [shown(file.key) for other, file in pictures if other == stem]
                shared.append(f"{' and '.join(names)} share the caption {shown(os.path.basename(texts[stem][0].key))}.")
        lonely += [shown(file.key) for stem, same in texts.items() if stem not in users for file in same]
        repeats = _folder_repeats(folder, repeated) if pictures else 1
        for stem, file in pictures:
            caption, facts = captions_of.get(stem, ""), known.get(file.key)
            if caption is not None:
                facts = facts if isinstance(facts, Checked) else None
                listing.found.append(Found(file.key, file, caption, repeats, facts))
    listing.notes += shared
    if lonely:
        listing.notes.append(f"no picture belongs to {several(lonely)}: not used.")
    listing.notes += repeated.values()


def _caption_of(files: list[File], known: dict[str, Facts], listing: Listing, index: ScanIndex) -> str | None:
    """The caption in a picture's text files; None if it cannot be told (the problem is then in the listing)."""
    said = set()
    for file in files:
        caption = known.get(file.key)
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
