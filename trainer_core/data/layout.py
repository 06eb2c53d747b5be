"""The folder layouts that are understood, and how each tells which picture has which caption."""

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

from . import captions
from .config import DatasetConfig
from .items import Picture, several, shown
from .pictures import ENDINGS

CAPTION_ENDINGS = (".txt", ".caption")
TABLES = ("metadata.csv", "metadata.jsonl")
FOLDER_REPEATS_MOST = 1000
"""A folder "2024_summer" is a year and not 2024 repeats."""


@dataclass
class Found:
    """A picture and its caption, before the picture was opened."""

    key: str
    picture: Picture
    caption: str
    repeats: int = 1


@dataclass
class Listing:
    """What a folder's names and texts say; each problem names its file."""

    found: list[Found] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def list_folder(root: Path, config: DatasetConfig) -> Listing:
    """Every picture of a dataset's folder with its caption, sorted by key; no picture is opened.

    A metadata table (at the top or in `train`) decides alone which pictures belong; otherwise every picture in the
    folder and its subfolders does, with the text file of the same name as its caption.
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
        _from_files(root, listing)
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
            path = _inside(root, folder, row.file_name)
        except ValueError as error:
            listing.problems.append(f"{where}: file_name {row.file_name!r:.300} {error}")
            continue
        key = path.relative_to(root).as_posix()
        before = seen.setdefault(key, row)
        if before is row:
            listing.found.append(Found(key, path, row.text))
        elif before.text == row.text:
            listing.notes.append(f"{where}: {shown(key)} is listed on line {before.line} already; it counts once.")
        else:
            listing.problems.append(
                f"{where}: {shown(key)} has another caption than on line {before.line}; keep one of the two lines."
            )
    others, texts = [], 0
    for path in _walk(folder, root, Listing()):
        if path.suffix.lower() in ENDINGS and path.relative_to(root).as_posix() not in seen:
            others.append(shown(path.relative_to(root).as_posix()))
        texts += path.suffix.lower() in CAPTION_ENDINGS
    if others:
        listing.notes.append(f"{name} does not list {several(others)}: left out.")
    if texts:
        listing.notes.append(
            f"{name} gives the captions, so {texts} text files beside the pictures are not read "
            "(set captions to 'files' to read those instead)."
        )


def _inside(root: Path, folder: Path, name: str) -> Path:
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
        if not path.resolve().is_relative_to(root):
            raise ValueError("is a link that leads out of the dataset's folder; copy the file instead.")
    except OSError as error:
        raise ValueError(f"cannot be opened ({error.strerror or error}).") from None
    return path


def _from_files(root: Path, listing: Listing) -> None:
    texts: dict[tuple[Path, str], list[Path]] = {}
    pictures: list[Path] = []
    for path in _walk(root, root, listing):
        if path.suffix.lower() in ENDINGS:
            pictures.append(path)
        elif path.suffix.lower() in CAPTION_ENDINGS:
            texts.setdefault((path.parent, path.stem), []).append(path)
    read = {stem: _caption_of(root, paths, listing) for stem, paths in texts.items()}
    users = Counter((path.parent, path.stem) for path in pictures)
    for stem, count in users.items():
        if count > 1 and stem in texts:
            names = [shown(p.relative_to(root).as_posix()) for p in pictures if (p.parent, p.stem) == stem]
            listing.notes.append(f"{' and '.join(names)} share the caption {shown(texts[stem][0].name)}.")
    lonely = [shown(p.relative_to(root).as_posix()) for s, paths in texts.items() if s not in users for p in paths]
    if lonely:
        listing.notes.append(f"no picture belongs to {several(lonely)}: not used.")
    repeats = _folder_repeats(root, {path.parent for path in pictures}, listing)
    for path in pictures:
        caption = read.get((path.parent, path.stem), "")
        if caption is not None:
            listing.found.append(Found(path.relative_to(root).as_posix(), path, caption, repeats[path.parent]))


def _caption_of(root: Path, paths: list[Path], listing: Listing) -> str | None:
    """The caption in a picture's text files; None if it cannot be told (the problem is then in the listing)."""
    said = set()
    for path in paths:
        name = shown(path.relative_to(root).as_posix())
        try:
            said.add(captions.read_text(path))
        except ValueError as error:
            listing.problems.append(f"{name}: {error}")
            return None
    if len(said) > 1:
        names = " and ".join(shown(path.relative_to(root).as_posix()) for path in paths)
        listing.problems.append(f"{names}: two different captions for one picture; keep one.")
        return None
    return said.pop()


def _folder_repeats(root: Path, folders: set[Path], listing: Listing) -> dict[Path, int]:
    """How often the pictures of each folder are repeated: kohya's `<repeats>_<name>`, the innermost folder so named."""
    repeats, told = {}, set()
    for folder in sorted(folders):
        repeats[folder] = 1
        for part in reversed(folder.relative_to(root).parts):
            match = re.fullmatch(r"([0-9]{1,9})_(.+)", part)
            if not match:
                continue
            number = int(match[1])
            usable = 1 <= number <= FOLDER_REPEATS_MOST
            if usable:
                repeats[folder] = number
            if part not in told:
                told.add(part)
                what = f"each picture {number} times an epoch" if usable else "not taken for a number of repeats"
                listing.notes.append(
                    f"folder {shown(part)}: {what}" + ("." if usable else f" (1 to {FOLDER_REPEATS_MOST}).")
                )
            break
    return repeats


def _walk(folder: Path, root: Path, listing: Listing) -> Iterator[Path]:
    """Files below `folder` in a fixed order. Hidden ones are left out; what leads outside is a problem."""

    def failed(error: OSError) -> None:
        listing.problems.append(f"{shown(error.filename)}: cannot be read ({error.strerror or error}).")

    for at, folders, files in os.walk(folder, onerror=failed):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        for name in [name for name in folders if os.path.islink(os.path.join(at, name))]:
            folders.remove(name)
            where = shown((Path(at) / name).relative_to(root).as_posix())
            listing.problems.append(
                f"{where}: is a linked folder, which is not followed; copy it, or name it as the dataset."
            )
        for name in sorted(files):
            path = Path(at) / name
            where = path.relative_to(root).as_posix()
            if name.startswith(".") or path.suffix.lower() not in ENDINGS + CAPTION_ENDINGS:
                continue
            if not where.isascii() and not _is_text(where):
                listing.problems.append(f"{ascii(where)}: the name is no valid text; rename the file.")
            elif not path.resolve().is_relative_to(root):
                listing.problems.append(
                    f"{shown(where)}: is a link that leads out of the dataset's folder; copy the file instead."
                )
            elif path.is_file():
                yield path


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
