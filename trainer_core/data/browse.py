"""A dataset looked at page by page, as an editor does: its pictures in order, each with caption, size and problem."""

import functools
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ..errors import BadInput
from ..files import write_text
from . import captions
from .buckets import Bucket, buckets_for, nearest_bucket
from .catalogue import Catalogue, catalogue_of, outdate_all
from .config import DatasetConfig
from .layout import Found, tables_of
from .pictures import ENDINGS, Checked
from .scan import remedied
from .walk import CAPTION_ENDINGS, is_inside

PIXEL_STEP = 8
"""Of all bases so far: sides of buckets are multiples of this."""
ONLY = ("", "problems", "uncaptioned")
UNCAPTIONED = "has no caption."
SAID_MOST = 50
"""Problems of files, and notes, that are told one by one."""


@dataclass(frozen=True)
class Wanted:
    """Which pictures of a dataset a page shows."""

    offset: int = 0
    """How many of those that fit, in the order of their keys, come before."""
    limit: int = 100
    only: str = ""
    """Of ONLY: every picture, those that cannot be used as far as they were opened, or those without a caption."""
    search: str = ""
    """What the caption or the key holds, in any case."""
    ahead: float = 0.0
    """Seconds to spend on opening pictures that nobody has looked at yet."""


@dataclass(frozen=True)
class Shown:
    """One picture."""

    key: str
    caption: str
    width: int | None
    height: int | None
    """None where it cannot be read."""
    bucket: Bucket | None
    """None where the resolution is not known."""
    problem: str | None


@dataclass(frozen=True)
class Page:
    count: int
    """Pictures of the whole dataset."""
    matching: int
    """Pictures that fit what is wanted."""
    checked: int
    """Pictures that were opened so far; `unusable` and `buckets` count among them."""
    unusable: int
    """Pictures that are damaged, or whose caption is none."""
    uncaptioned: int
    buckets: list[tuple[Bucket, int]]
    """Each with its pictures, the largest number first; empty where the resolution is not known."""
    table: str | None
    """The metadata table that gives the captions, below the folder; None where text files do."""
    items: list[Shown]
    problems: list[str]
    """Of settings, files and names; those of pictures are told with them."""
    notes: list[str]


def page(config: DatasetConfig, wanted: Wanted, cache: Path | None = None) -> Page:
    """Some pictures of a dataset; besides those, only as many are opened as `wanted.ahead` leaves time for.

    Args:
        config: the folder, where captions come from, and what buckets follow from.
        cache: the folder where scans keep what they found out about files; None = nowhere.

    """
    buckets, wrong = _buckets_of(config)
    folder = Path(config.path)
    catalogue = catalogue_of(folder, config.captions, cache)
    listing = catalogue.listing()
    if wanted.ahead:
        catalogue.look_ahead(wanted.ahead)
    fitting = [found for found in listing.found if _fits(found, wanted, catalogue)]
    here = fitting[wanted.offset : wanted.offset + wanted.limit]
    catalogue.check(here)
    known = [(found, catalogue.known(found)) for found in listing.found]
    opened = [picture for _, picture in known if isinstance(picture, Checked)]
    table = None if config.captions == "files" else next(iter(tables_of(folder)), None)
    return Page(
        count=len(listing.found),
        matching=len(fitting),
        checked=sum(picture is not None for _, picture in known),
        unusable=sum(_unusable(found, picture) is not None for found, picture in known),
        uncaptioned=sum(not found.caption for found in listing.found),
        buckets=Counter(_bucket(one.width, one.height, buckets) for one in opened).most_common() if buckets else [],
        table=table and table.relative_to(folder).as_posix(),
        items=[_shown(found, catalogue, buckets, config) for found in here],
        problems=_some(wrong + listing.problems),
        notes=_some(listing.notes),
    )


def _buckets_of(config: DatasetConfig) -> tuple[tuple[Bucket, ...], list[str]]:
    """None where the settings give none, which may be half typed in; then what is wrong with them."""
    if not (config.resolution or config.width or config.height):
        return (), []
    problems = config.problems()
    try:
        return ((), problems) if problems else (tuple(buckets_for(config, PIXEL_STEP, 0)), [])
    except BadInput as error:
        return (), error.problems


def _fits(found: Found, wanted: Wanted, catalogue: Catalogue) -> bool:
    if wanted.only == "uncaptioned" and found.caption:
        return False
    if wanted.only == "problems" and _unusable(found, catalogue.known(found)) is None:
        return False
    search = wanted.search.casefold()
    return not search or search in found.caption.casefold() or search in found.key.casefold()


def _unusable(found: Found, picture: Checked | str | None) -> str | None:
    return picture if isinstance(picture, str) else captions.complaint(found.caption)


@functools.lru_cache(50_000)
def _bucket(width: int, height: int, buckets: tuple[Bucket, ...]) -> Bucket:
    return nearest_bucket(width, height, buckets)


def _shown(found: Found, catalogue: Catalogue, buckets: tuple[Bucket, ...], config: DatasetConfig) -> Shown:
    picture = catalogue.known(found)
    wrong = remedied(picture, config) if isinstance(picture, str) else _unusable(found, picture)
    problem = wrong or (None if found.caption else UNCAPTIONED)
    if not isinstance(picture, Checked):
        return Shown(found.key, found.caption, None, None, None, problem)
    bucket = _bucket(picture.width, picture.height, buckets) if buckets else None
    return Shown(found.key, found.caption, picture.width, picture.height, bucket, problem)


def _some(lines: list[str]) -> list[str]:
    more = len(lines) - SAID_MOST
    return lines if more <= 0 else [*lines[:SAID_MOST], f"… and {more:,} more."]


def picture_of(folder: Path, key: str) -> Path:
    """The file of a picture by its key.

    Raises:
        BadInput: the dataset has no such picture.
    """
    parts = key.split("/")
    path = folder.joinpath(*parts)
    inside = not any(part in ("", ".", "..") or part.startswith(".") or set(part) & set("\\\0") for part in parts)
    if not inside or not key.lower().endswith(ENDINGS) or not path.is_file():
        raise BadInput(f"{key!r:.200} is no picture of this dataset")
    if not is_inside(str(path), os.path.realpath(folder)):
        raise BadInput(f"{key!r:.200} is a link that leads out of the dataset's folder")
    return path


def write_caption(folder: Path, key: str, caption: str, source: str = "auto") -> None:
    """Puts a caption into the text file of a picture: the one that is there, else a new .txt beside it.

    Args:
        source: where captions are read from; with "files", text files count also where there is a metadata table.

    Raises:
        BadInput: there is no such picture, a metadata table gives the captions, or it cannot be a caption.
        ScionError: the disk refuses.
    """
    picture = picture_of(folder, key)
    tables = [] if source == "files" else tables_of(folder)
    if tables:
        raise BadInput(f"{tables[0].name} gives the captions of this dataset; change it there, or delete it")
    wrong = captions.complaint(caption)
    if wrong:
        raise BadInput(wrong)
    there = [path for path in map(picture.with_suffix, CAPTION_ENDINGS) if path.is_file()]
    for path in there or [picture.with_suffix(CAPTION_ENDINGS[0])]:
        if path.is_symlink() and not is_inside(str(path), os.path.realpath(folder)):
            raise BadInput(f"{path.name} is a link that leads out of the dataset's folder; copy the file instead")
        write_text(path, captions.tidy(caption) + "\n")
    outdate_all()
