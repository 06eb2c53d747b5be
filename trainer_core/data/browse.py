"""A dataset looked at page by page, as an editor does: its pictures in order, each with caption, size and problem."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import BadInput
from ..files import write_text
from . import captions
from .buckets import Bucket, buckets_for, nearest_bucket
from .config import DatasetConfig
from .layout import Found, list_folder, tables_of
from .pictures import ENDINGS, Checked, check_picture
from .prefetch import prefetch
from .scan_index import scan_index
from .walk import CAPTION_ENDINGS, is_inside

PIXEL_STEP = 8
"""Of all bases so far: sides of buckets are multiples of this."""
THREADS = 2
"""Pictures that are opened at a time: training may go on beside it."""


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
    items: list[Shown]
    problems: list[str]
    """Of files and names; those of pictures are told with them."""
    notes: list[str]


def page(folder: Path, offset: int, limit: int, resolution: int = 0, cache: Path | None = None) -> Page:
    """Some pictures of a dataset; only those are opened.

    Args:
        offset: how many pictures, in the order of their keys, come before.
        resolution: of the training, in pixels; 0 = not known.
        cache: the folder where scans keep what they found out about files; None = nowhere.

    Raises:
        BadInput: a resolution for which there are no buckets.
    """
    config = DatasetConfig(path=str(folder), resolution=resolution)
    buckets = buckets_for(config, PIXEL_STEP, resolution) if resolution else []
    with scan_index(cache) as index:
        listing = list_folder(folder.resolve(), config, index)
        wanted = listing.found[offset : offset + limit]
        checked = list(prefetch(_checked, wanted, THREADS))
        for found, picture in zip(wanted, checked, strict=True):
            if found.known is None and isinstance(picture, Checked):
                index.keep(found.picture, picture)
    items = [_shown(found, picture, buckets) for found, picture in zip(wanted, checked, strict=True)]
    return Page(len(listing.found), items, listing.problems, listing.notes)


def _checked(found: Found) -> Checked | str:
    try:
        return found.known or check_picture(found.picture.path)
    except ValueError as error:
        return str(error)


def _shown(found: Found, picture: Checked | str, buckets: Sequence[Bucket]) -> Shown:
    if isinstance(picture, str):
        return Shown(found.key, found.caption, None, None, None, picture)
    bucket = nearest_bucket(picture.width, picture.height, buckets) if buckets else None
    problem = captions.complaint(found.caption) or (None if found.caption else "has no caption.")
    return Shown(found.key, found.caption, picture.width, picture.height, bucket, problem)


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


def write_caption(folder: Path, key: str, caption: str) -> None:
    """Puts a caption into the text file of a picture: the one that is there, else a new .txt beside it.

    Raises:
        BadInput: there is no such picture, a metadata table gives the captions, or it cannot be a caption.
        ScionError: the disk refuses.
    """
    picture = picture_of(folder, key)
    tables = tables_of(folder)
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
