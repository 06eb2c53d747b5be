"""The hashes that LoRA tools know a file by."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from .safe_io import read_header, serialise

_CHUNK = 2**20


def sha256_of_file(path: str | Path) -> str:
    """SHA-256 of the whole file, in hex: Civitai's "SHA256"; its first ten digits are "AutoV2"."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_data(path: str | Path) -> str:
    """SHA-256 of everything behind the header, in hex: the same whatever metadata the file carries.

    This is `sshs_model_hash` ("AutoV3" is its beginning) and, with 0x before it, `modelspec.hash_sha256`.
    """
    start = read_header(path).data_start
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        file.seek(start)
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def hash_metadata(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> dict[str, str]:
    """The three hash entries for a file of these tensors and this metadata.

    `sshs_model_hash`: SHA-256 of the tensor data. `sshs_legacy_hash`: eight digits of the SHA-256 of 64 KiB at 1 MiB
    into the file as it would be with the `ss_` metadata alone (the way that sd-scripts computes it, so that later edits
    of other metadata leave it). `modelspec.hash_sha256`: the first, with 0x.
    """
    training = {key: value for key, value in metadata.items() if key.startswith("ss_")}
    data, legacy = _digests(serialise(tensors, training))
    return {"sshs_model_hash": data, "sshs_legacy_hash": legacy, "modelspec.hash_sha256": f"0x{data}"}


def _digests(pieces: Iterable[bytes | memoryview], window: tuple[int, int] = (0x100000, 0x110000)) -> tuple[str, str]:
    """SHA-256 of all pieces but the first (the header), and the legacy hash of the bytes within `window`."""
    data, legacy, position = hashlib.sha256(), hashlib.sha256(), 0
    for number, piece in enumerate(pieces):
        if number:
            data.update(piece)
        begin, end = (min(max(edge - position, 0), len(piece)) for edge in window)
        legacy.update(piece[begin:end])
        position += len(piece)
    return data.hexdigest(), legacy.hexdigest()[:8]
