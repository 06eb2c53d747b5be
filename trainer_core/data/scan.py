"""Scanning: from a folder, or from pictures in memory, to items, with every problem reported at once."""

import contextlib
import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from . import caption_features, captions, masks
from .config import DatasetConfig
from .disk_cache import folder_of
from .items import Item, Picture, shown
from .layout import Found, Listing, list_folder
from .masks import Mask
from .pictures import Checked, check_picture, from_array
from .prefetch import prefetch
from .scan_index import ScanIndex, scan_index
from .walk import File, stem_of

Watch = Callable[[int, int], None]
"""Called with (done, total)."""
FEW = 3
"""So many pictures without a caption are told one by one."""


@dataclass(frozen=True)
class Scan:
    """What is in a dataset: usable items sorted by key, and what was found wrong or worth knowing."""

    items: list[Item]
    problems: list[str] = field(default_factory=list)
    """Each names its file; training must not start while there are any."""
    notes: list[str] = field(default_factory=list)
    stopped: bool = False
    """Whether `should_stop` ended the scan early; the items are then not complete."""

    @property
    def fingerprint(self) -> str:
        """Hash over keys, pictures, captions, repeats and masks: equal for a copy of the dataset elsewhere."""
        digest = hashlib.sha256(b"[")
        for number, item in enumerate(self.items):
            said = [item.key, item.digest, item.caption, item.repeats, *filter(None, [item.mask_digest])]
            digest.update((", " if number else "").encode() + json.dumps(said).encode())
        digest.update(b"]")
        return digest.hexdigest()


def scan_folder(
    config: DatasetConfig, watch: Watch | None = None, should_stop: Callable[[], bool] | None = None
) -> Scan:
    """Every item in `config.path`; each picture is decoded once, so that a damaged one is found now.

    With a cache on the disk this is remembered there: a file that has not changed since is not opened again.

    Args:
        watch: told how many pictures are checked.
        should_stop: asked before each picture.
    """
    if not config.path.strip():
        return Scan([], ["path: is empty; give the folder of the pictures."])
    try:
        root = Path(config.path).expanduser().resolve()
        if not root.is_dir():
            what = "is a file; give the folder that holds the pictures" if root.exists() else "there is no such folder"
            return Scan([], [f"{shown(config.path)}: {what}."])
    except (OSError, ValueError, RuntimeError) as error:
        return Scan([], [f"{shown(config.path)}: is no usable path ({error})."])
    with scan_index(folder_of(config)) as index:
        return _scan_root(root, config, index, watch, should_stop)


def _scan_root(root: Path, config: DatasetConfig, index: ScanIndex, watch, should_stop) -> Scan:
    listing = list_folder(root, config, index)
    masks.assign(listing, root, config)
    if not listing.found and not listing.problems:
        listing.problems.append(
            f"{shown(config.path)}: has no pictures (.jpg, .jpeg, .png, .webp, .bmp, .avif), here or in its subfolders."
        )
    return _check(listing, config, index, watch, should_stop)


def scan_memory(
    pictures: Iterable,
    texts: Sequence[str] | None,
    config: DatasetConfig,
    watch: Watch | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Scan:
    """Items of pictures that other programs made, keyed by their position ("00000", "00001", …).

    Args:
        pictures: PIL pictures, arrays or tensors as `pictures.from_array` takes them.
        texts: one caption a picture, or None where `missing_captions` says what to do.
    """
    pictures = list(pictures)
    texts = [""] * len(pictures) if texts is None else list(texts)
    if len(texts) != len(pictures):
        return Scan([], [f"captions: {len(texts)} for {len(pictures)} pictures; give one for each."])
    found, problems = [], []
    for index, (picture, text) in enumerate(zip(pictures, texts, strict=True)):
        name = f"picture {index:05d}"
        try:
            kept = _loaded(picture) if isinstance(picture, Image.Image) else from_array(picture)
            caption = captions.tidy(text)
            wrong = captions.complaint(caption)
            if wrong:
                raise ValueError(wrong)
            found.append(Found(f"{index:05d}", kept, caption))
        except ValueError as error:
            problems.append(f"{name}: {error}")
    if config.mask == "folder":
        problems.append("mask: 'folder' finds masks by the names of files, which wired pictures have not; use 'alpha'.")
    if not pictures:
        problems.append("pictures: there are none; wire at least one picture to the dataset.")
    return _check(Listing(found, problems), config, ScanIndex(None), watch, should_stop)


def _check(
    listing: Listing,
    config: DatasetConfig,
    index: ScanIndex,
    watch: Watch | None,
    should_stop: Callable[[], bool] | None,
) -> Scan:
    """Items from what was listed, in that order; pictures that the index does not know are decoded in threads."""
    items, animated, uncaptioned, unmasked, stopped = [], [], [], [], False
    problems = listing.problems
    with (
        contextlib.closing(_looked_at(listing.found, index)) as looked_at,
        contextlib.closing(_masks_of(listing.found, config)) as masks_of,
    ):
        for done, (found, picture, mask) in enumerate(zip(listing.found, looked_at, masks_of, strict=True), 1):
            outcome = remedied(picture, config) if isinstance(picture, str) else _item(found, picture, mask, config)
            if isinstance(outcome, str):
                problems.append(f"{_name(found)}: {outcome}")
            elif outcome is None:
                uncaptioned.append(found)
            elif mask is None and config.missing_masks == "error":
                unmasked.append(_name(found))
            else:
                items.append(outcome)
                animated += [shown(outcome.key)] if picture.frames > 1 else []
            if watch:
                watch(done, len(listing.found))
            if should_stop and should_stop():
                stopped = done < len(listing.found)
                break
    problems += _missing_captions(uncaptioned, len(listing.found)) + masks.missing(unmasked, config)
    notes = [*listing.notes, *(f"{name}: is animated; its first frame is used." for name in animated), *_twins(items)]
    if config.skip_bad and items:
        notes, problems = [*(f"left out: {problem}" for problem in problems), *notes], []
    return Scan(items, problems, notes, stopped)


def remedied(wrong: str, config: DatasetConfig) -> str:
    """What is wrong with a picture's file, with the setting that leaves such files out where that is not set."""
    return wrong if config.skip_bad else f"{wrong.removesuffix('.')}, or set skip_bad to leave it out."


def _looked_at(listed: list[Found], index: ScanIndex) -> Iterator[Checked | str]:
    """What there is to know of each picture, or what is wrong with it."""
    unknown = (found.picture for found in listed if found.known is None)
    with contextlib.closing(prefetch(_checked, unknown, min(8, os.cpu_count() or 1))) as checked:
        for found in listed:
            if found.known is not None:
                yield found.known
                continue
            outcome = next(checked)
            if isinstance(found.picture, File) and isinstance(outcome, Checked):
                index.keep(found.picture, outcome)
            yield outcome


def _checked(picture: File | Picture) -> Checked | str:
    try:
        return check_picture(picture.path if isinstance(picture, File) else picture)
    except ValueError as error:
        return str(error)


def _masks_of(listed: list[Found], config: DatasetConfig) -> Iterator[Mask | str | None]:
    """The mask of each picture, what is wrong with it, or None where it is missing."""

    def read(found: Found) -> Mask | str | None:
        try:
            return masks.read(_source(found), found.mask, config)
        except ValueError as error:
            return str(error)

    # Without masks there is nothing to read, and no thread to wait for.
    return prefetch(read, listed, 0 if config.mask == "off" else min(8, os.cpu_count() or 1))


def _item(found: Found, picture: Checked, mask: Mask | str | None, config: DatasetConfig) -> Item | str | None:
    """The item, or the problem with its caption or mask; None if it has no caption and needs one."""
    caption = captions.fill_missing(found.caption, stem_of(found.key), config)
    if caption is None:
        return None
    if config.caption_weights == "remove":
        caption = caption_features.without_weights(caption)
    wrong = captions.complaint_about(caption, config)
    wrong = wrong or (mask if isinstance(mask, str) else mask and mask.misfit(picture.width, picture.height))
    if wrong:
        return wrong
    return Item(
        found.key,
        _source(found),
        caption,
        picture.width,
        picture.height,
        found.repeats * config.repeats,
        picture.digest,
        mask=found.mask,
        mask_digest=mask.digest if mask else "",
    )


def _source(found: Found) -> Picture:
    return found.picture.path if isinstance(found.picture, File) else found.picture


def _loaded(picture: Image.Image) -> Image.Image:
    """The picture with its pixels in memory: Pillow reads a file when first asked, which is not safe in threads."""
    try:
        picture.load()
    except Exception as error:  # readers of broken files raise nearly anything
        raise ValueError(f"is damaged or cut off ({shown(error)}); load it again or leave it out.") from None
    return picture


def _missing_captions(uncaptioned: list[Found], pictures: int) -> list[str]:
    """One problem for each picture without a caption; one for all where there are many."""
    if len(uncaptioned) <= FEW:
        return [f"{_name(found)}: has no caption; {_how_to_caption(found)}." for found in uncaptioned]
    names = ", ".join(_name(found) for found in uncaptioned[:FEW])
    return [
        f"{len(uncaptioned)} of {pictures} pictures have no caption: {names} and {len(uncaptioned) - FEW} more; "
        f"{_how_to_caption(uncaptioned[0])}."
    ]


def _name(found: Found) -> str:
    return shown(found.key) if isinstance(found.picture, File) else f"picture {found.key}"


def _how_to_caption(found: Found) -> str:
    where = f"write it to {shown(stem_of(found.key))}.txt, " if isinstance(found.picture, File) else "give one, "
    return f"{where}or say what to do by missing_captions (empty, trigger, name)"


def _twins(items: list[Item]) -> list[str]:
    """Notes about pictures that are there more than once."""
    seen, again = set(), set()
    for item in items:
        (again if item.digest in seen else seen).add(item.digest)
    same = defaultdict(list)
    for item in items:
        if item.digest in again:
            same[item.digest].append(shown(item.key))
    return [f"{' and '.join(keys)} are the same picture; it counts {len(keys)} times." for keys in same.values()]
