"""Saving a LoRA so that it is known to load: written aside, read back, tried on every reader, and only then named."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from ..errors import BadInput, ScionError
from .dialects import DIALECTS, lora_from_tensors, lora_to_tensors
from .hashes import hash_metadata
from .kinds import kind_in
from .lora import LoRA, ReaderReport, Target, empty_pairs
from .readers import reader_reports
from .safe_io import read_tensors, write_tensors

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def save_lora(
    path: str | Path,
    lora: LoRA,
    dialect: str,
    dtype: torch.dtype | str,
    metadata: Mapping[str, str],
    target: Target,
) -> list[ReaderReport]:
    """Write a LoRA file; its metadata gets the hashes of its tensors.

    Args:
        path: the file, replaced as a whole if it exists.
        lora: what to write.
        dialect: one of DIALECTS.
        dtype: of the matrices: float32, float16 or bfloat16.
        metadata: text to text, see `metadata.build`.
        target: the model that the LoRA was trained on.

    Returns:
        What each reader loads of the file, the readers that the dialect is for in full.

    Raises:
        BadInput: the dialect cannot name a module or say the kind, or the settings are unknown.
        ScionError: numbers are not finite in `dtype`; the file does not read back as written; a reader that the
            dialect is for would leave modules out; the disk is full. Under `path` nothing has changed then.
    """
    if isinstance(dtype, str):
        if dtype not in DTYPES:
            raise BadInput(f"dtype: {dtype!r} is not one of {', '.join(DTYPES)}.")
        dtype = DTYPES[dtype]
    if not any(lora.values()):
        raise ScionError(f"{path}: there is nothing to save, the LoRA has no modules.")
    tensors = lora_to_tensors(lora, dialect, target, dtype)
    broken = [key for key, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise ScionError(
            f"{path}: not saved: {len(broken)} of {len(tensors)} tensors hold NaN or infinite numbers in "
            f"{str(dtype).removeprefix('torch.')} (first: {broken[0]}). Save as float32 if they are finite there; "
            "otherwise lower the learning rate and continue from the last checkpoint."
        )
    metadata = {**metadata, **hash_metadata(tensors, metadata)}
    reports: list[ReaderReport] = []

    def check(written: Path) -> None:
        reports.extend(_checked(written, tensors, metadata, dialect, target, path))

    write_tensors(path, tensors, metadata, check)
    return reports


def check_dialect(dialect: str, component: str, paths: Iterable[str], target: Target) -> None:
    """That a LoRA on these modules can be saved: better before the training than after it.

    Args:
        dialect: one of DIALECTS.
        component: what the file calls the model that `paths` are in.

    Raises:
        BadInput: the dialect has no names for them, or a reader that it is for would leave some out.
    """
    pairs = empty_pairs({path: target.modules[component][path] for path in paths})
    failed = _left_out(lora_to_tensors({component: pairs}, dialect, target), dialect, "lora", target)[1]
    if failed:
        told = "; ".join(report.line() for report in failed)
        raise BadInput(
            f"output.dialect: {dialect!r}, but of the modules to train {told}. "
            "Choose another dialect, or leave the modules that do not load out of adapter.targets"
        )


def _left_out(
    tensors: Mapping[str, torch.Tensor], dialect: str, kind: str, target: Target
) -> tuple[list[ReaderReport], list[ReaderReport]]:
    """The readers' reports, and of them those of readers that the dialect is for and that leave something out."""
    reports, required = reader_reports(tensors, target), DIALECTS[dialect].required(kind, target)
    return reports, [report for report in reports if report.reader in required and not report.complete]


def _checked(
    written: Path,
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str],
    dialect: str,
    target: Target,
    path: str | Path,
) -> list[ReaderReport]:
    """The readers' reports on the file as it lies on the disk.

    Raises:
        ScionError: the file differs from what was to be written, or a reader that it is for leaves modules out.
    """
    read, read_metadata = read_tensors(written)
    same = read.keys() == tensors.keys() and all(torch.equal(read[key], tensors[key]) for key in read)
    if not same or read_metadata != dict(metadata):
        raise ScionError(f"{path}: not saved: it does not read back as it was written. Check the disk.")
    kind = kind_in(lora_from_tensors(read, target, read_metadata, str(path)))
    reports, failed = _left_out(read, dialect, kind, target)
    if failed:
        raise ScionError(
            f"{path}: not saved: {'; '.join(report.line() for report in failed)}. Choose another dialect, or leave the "
            "modules that do not load out of the targets."
        )
    return reports
