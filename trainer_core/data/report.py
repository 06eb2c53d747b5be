"""What a scan found, as lines of text for a terminal, a node or a log."""

from .dataset import Dataset
from .scan import Scan


def report_lines(scan: Scan, dataset: Dataset | None = None) -> list[str]:
    """Counts, every problem and every note.

    Args:
        scan: what was scanned.
        dataset: made from the scan, to tell its buckets; None where problems kept it from being made.
    """
    captioned = sum(bool(item.caption) for item in scan.items)
    showings = sum(item.repeats for item in scan.items)
    lines = [f"{_count(len(scan.items), 'picture')}, {captioned} with a caption, {showings} showings an epoch"]
    if scan.stopped:
        lines[0] += " (stopped before the end)"
    if dataset is not None:
        lines += _bucket_lines(dataset)
    notes = [*scan.notes, *(dataset.notes if dataset else [])]
    for name, found in (("problem", scan.problems), ("note", notes)):
        if found:
            lines += ["", _count(len(found), name), *(f"  {entry}" for entry in found)]
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
