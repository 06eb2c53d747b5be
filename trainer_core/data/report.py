"""What a scan found, as lines of text for a terminal, a node or a log."""

from collections import Counter

from .captions import caption_for
from .dataset import Dataset
from .folders import IN_MEMORY, names_of
from .items import shown
from .scan import Scan

CAPTIONS_SHOWN = 3
"""So many captions are shown as training has them."""
LONGEST = 200
"""Letters of a caption that are shown."""


def report_lines(scan: Scan, dataset: Dataset | None = None, sizes: bool = True) -> list[str]:
    """Counts, every problem and every note.

    Args:
        scan: what was scanned.
        dataset: made from the scan, to tell its folders, buckets and captions; None where problems kept it from being
            made.
        sizes: whether the dataset has the sizes that training will have.
    """
    captioned = sum(bool(item.caption) for item in scan.items)
    prior = [item for item in scan.items if dataset and dataset.is_prior(item)]
    showings = sum(item.repeats for item in scan.items) - sum(item.repeats for item in prior)
    lines = [f"{_count(len(scan.items), 'picture')}, {captioned} with a caption, {showings} showings an epoch"]
    if prior:
        lines[0] += f" and as many of {_count(len(prior), 'regularisation picture')}"
    if scan.stopped:
        lines[0] += " (stopped before the end)"
    if dataset is not None:
        lines += _folder_lines(dataset) + (_bucket_lines(dataset) if sizes else []) + _caption_lines(dataset)
    notes = [*scan.notes, *(dataset.notes if dataset and sizes else [])]
    for name, found in (("problem", scan.problems), ("note", notes)):
        if found:
            lines += ["", _count(len(found), name), *(f"  {entry}" for entry in found)]
    return lines


def folder_titles(dataset: Dataset) -> list[str]:
    """What each folder holds and counts, one line each."""
    parts = dataset.config.parts()
    items = [*dataset.items, *dataset.holdout]
    pictures, masked = Counter(item.folder for item in items), Counter(i.folder for i in items if i.mask_digest)
    titles = []
    for number, (name, part) in enumerate(zip(names_of(parts), parts, strict=True)):
        said = [_count(pictures[number], "picture")]
        said.append("for regularisation" if part.regularisation else f"repeats {part.repeats}")
        said.append(f"weight {part.weight * (part.prior_weight if part.regularisation else 1):g}")
        if part.mask != "off":
            said.append(f"{masked[number]} with a mask")
        titles.append(f"{shown(name or part.path or IN_MEMORY)}: {', '.join(said)}")
    return titles


def _folder_lines(dataset: Dataset) -> list[str]:
    """The folders, where there are several or one that is not as usual."""
    parts = dataset.config.parts()
    if len(parts) == 1 and parts[0].weight == 1 and parts[0].mask == "off":
        return []
    return ["", *(f"folder {title}" for title in folder_titles(dataset))]


def _caption_lines(dataset: Dataset) -> list[str]:
    """A few captions of the first epoch, evenly chosen."""
    count = min(CAPTIONS_SHOWN, len(dataset.items))
    lines = ["", "captions as training has them first"]
    for item in (dataset.items[n * len(dataset.items) // count] for n in range(count)):
        text = caption_for(item, dataset.config_of(item), dataset.seed, 0, 0)
        lines.append(f"  {shown(item.key)}: {shown(text[:LONGEST]) + ('…' if len(text) > LONGEST else '') or '(none)'}")
    return lines


def _bucket_lines(dataset: Dataset) -> list[str]:
    lines = ["", "bucket (width×height)   pictures   showings an epoch"]
    for bucket, (pictures, showings) in dataset.bucket_counts.items():
        lines.append(f"  {str(bucket):<20}{pictures:>10}{showings:>20}")
    if dataset.holdout:
        lines.append(f"  held out for validation: {', '.join(item.key for item in dataset.holdout)}")
    return lines


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
