"""Files of tensors (safetensors): equal content gives equal bytes, and reading trusts nothing it has not checked."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import BadInput
from ..files import opened, write_atomically

HEADER_LIMIT = 100_000_000
"""Bytes of safetensors header that are believed; the public library has the same bound."""

DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
    "I16": torch.int16,
    "U16": torch.uint16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "F32": torch.float32,
    "C64": torch.complex64,
    "F64": torch.float64,
    "I64": torch.int64,
    "U64": torch.uint64,
}
"""The format's dtypes, in the order of the public library: there a file's tensors are sorted by the last one first."""
_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class TensorEntry:
    """One line of a safetensors header; `begin` and `end` count bytes from the start of the data."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """What a safetensors file says it holds, checked against the file's size."""

    tensors: dict[str, TensorEntry]
    metadata: dict[str, str]
    data_start: int
    """Bytes before the first tensor: the length field and the header."""
    file_size: int


def write_tensors(
    path: str | Path,
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str] | None = None,
    check: Callable[[Path], Any] | None = None,
) -> None:
    """Write a safetensors file; equal tensors and metadata give equal bytes, whatever the order of the mappings.

    Args:
        path: where the file shall be.
        tensors: by name, on any device.
        metadata: text to text.
        check: called with the finished file under its temporary name; if it raises, `path` stays as it was.

    Raises:
        ScionError: as for `files.write_bytes`.
        TypeError, ValueError: tensors or metadata that the format has no place for.
    """
    pieces = serialise(tensors, metadata)
    write_atomically(Path(path), lambda file: file.writelines(pieces), check)


def serialise(
    tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None
) -> Iterator[bytes | memoryview]:
    """The bytes of a safetensors file: first the header, then one piece per tensor, so that no second copy is held."""
    rank = {dtype: position for position, dtype in enumerate(DTYPES.values())}
    unknown = [f"{name!r} ({tensor.dtype})" for name, tensor in tensors.items() if tensor.dtype not in rank]
    if unknown or "__metadata__" in tensors:
        raise ValueError(f"a safetensors file cannot hold these: {unknown or '__metadata__'}")
    order = sorted(tensors, key=lambda name: (-rank[tensors[name].dtype], name))
    header: dict[str, Any] = {}
    if metadata:
        wrong = [key for key, value in metadata.items() if not isinstance(key, str) or not isinstance(value, str)]
        if wrong:
            raise TypeError(f"metadata must be text to text; these are not: {wrong}")
        header["__metadata__"] = dict(sorted(metadata.items()))
    position = 0
    for name in order:
        tensor = tensors[name]
        end = position + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    # Padding with spaces keeps the data aligned to eight bytes, as the format's readers expect.
    text += b" " * (-len(text) % 8)
    return _pieces(len(text).to_bytes(8, "little") + text, [tensors[name] for name in order])


def _pieces(head: bytes, tensors: list[torch.Tensor]) -> Iterator[bytes | memoryview]:
    yield head
    for tensor in tensors:
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        yield memoryview(flat.view(torch.uint8).numpy()) if flat.numel() else b""


def read_tensors(path: str | Path, max_bytes: int | None = None) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """All tensors (on the CPU, in memory of their own, in the file's order of data) and the metadata.

    Nothing stays mapped to the file, so that it can be replaced afterwards on every system.

    Raises:
        BadInput: no readable safetensors file, or one above `max_bytes`.
    """
    path = Path(path)
    header = read_header(path)
    if max_bytes is not None and header.file_size > max_bytes:
        raise BadInput(
            f"{path}: {header.file_size:,} bytes is too large here (at most {max_bytes:,}). Is it a whole model rather "
            "than a LoRA?"
        )
    tensors = {}
    with opened(path) as file:
        for name, entry in sorted(header.tensors.items(), key=lambda item: item[1].begin):
            tensor = torch.empty(entry.shape, dtype=entry.dtype)
            if tensor.numel():
                file.seek(header.data_start + entry.begin)
                if file.readinto(memoryview(tensor.view(-1).view(torch.uint8).numpy())) != entry.end - entry.begin:
                    raise BadInput(f"{path}: became shorter while it was read. Copy or download it again.")
            tensors[name] = tensor
    return tensors, header.metadata


def read_header(path: str | Path) -> Header:
    """Names, dtypes, shapes and metadata, without reading tensors.

    Raises:
        BadInput: the file is missing, empty, cut off, of another kind (said which), or its header does not fit it.
    """
    path = Path(path)
    with opened(path) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        start = file.read(4096)
        if not start:
            raise BadInput(f"{path}: the file is empty (0 bytes). Copy or download it again.")
        kind = _other_kind(start)
        length = int.from_bytes(start[:8], "little")
        if len(start) < 8 or start[8:9] != b"{" or (kind and length > HEADER_LIMIT):
            raise BadInput(f"{path}: not a safetensors file" + (f"; it looks like {kind}" if kind else "") + ".")
        if length > HEADER_LIMIT:
            raise BadInput(
                f"{path}: its header claims {length:,} bytes (at most {HEADER_LIMIT:,}); the file is damaged."
            )
        if 8 + length > size:
            raise BadInput(
                f"{path}: cut off within its header ({size:,} bytes, the header alone takes {8 + length:,}). "
                "Copy or download it again."
            )
        file.seek(8)
        text = file.read(length)
    return _parse_header(path, text, size)


def _other_kind(start: bytes) -> str | None:
    """What a file that is no safetensors looks like, from its first bytes."""
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page (a download that needed a login?)"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer: the real file was never downloaded (git lfs pull)"
    if start.startswith(b"PK\x03\x04"):
        return "a zip archive or a PyTorch .pt/.ckpt file; convert it to safetensors first"
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "a Python pickle (.pt, .ckpt, .bin), which is not read because it can run code; convert it first"
    if start.startswith(b"GGUF"):
        return "a GGUF file, which is not read here"
    if start.startswith((b"\x89PNG", b"\xff\xd8\xff", b"RIFF")):
        return "a picture"
    if not any(byte < 9 or 13 < byte < 32 for byte in start):
        return "text"
    return None


def _parse_header(path: Path, text: bytes, size: int) -> Header:
    try:
        content = json.loads(text.decode(), object_pairs_hook=_without_duplicates)
        if not isinstance(content, dict):
            raise ValueError("no JSON object")
        metadata = content.pop("__metadata__", None) or {}
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError("metadata that is not text to text")
        tensors = {name: _entry(name, value) for name, value in content.items()}
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: its safetensors header is damaged ({error}). Copy or download it again.") from None
    data_start, reached = 8 + len(text), 0
    for name, entry in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != reached:
            what = "overlaps the one before it" if entry.begin < reached else "leaves a gap before it"
            raise BadInput(f"{path}: its safetensors header is damaged (tensor {name!r} {what}).")
        reached = entry.end
    if data_start + reached > size:
        raise BadInput(
            f"{path}: cut off: its header describes {data_start + reached:,} bytes, the file has {size:,}. "
            "Copy or download it again."
        )
    if data_start + reached < size:
        raise BadInput(f"{path}: {size - data_start - reached:,} bytes follow the last tensor; the file is damaged.")
    return Header(tensors, metadata, data_start, size)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _entry(name: str, value: Any) -> TensorEntry:
    if not isinstance(value, dict) or not {"dtype", "shape", "data_offsets"} <= value.keys():
        raise ValueError(f"tensor {name!r} without dtype, shape or offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"tensor {name!r} has the unknown dtype {dtype!r}")
    if not _naturals(shape) or not _naturals(offsets) or len(shape) > 32 or len(offsets) != 2:
        raise ValueError(f"tensor {name!r} has the shape {shape} at {offsets}")
    count = 1
    for extent in shape:
        count *= extent
    begin, end = offsets
    if end - begin != count * DTYPES[dtype].itemsize:
        raise ValueError(f"tensor {name!r} of shape {shape} does not fit its {end - begin} bytes")
    return TensorEntry(DTYPES[dtype], tuple(shape), begin, end)


def _naturals(values: Any) -> bool:
    # The bound keeps an empty tensor of absurd extents from reaching torch.
    return isinstance(values, list) and all(type(number) is int and 0 <= number < 2**48 for number in values)
