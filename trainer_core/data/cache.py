"""The encoded cache: tensors kept in memory or in safetensors files, under a hash of everything that made them."""

import hashlib
import json
import os
import re
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from ..errors import BadInput, ScionError
from ..lora_file.safe_io import read_tensors, write_tensors

Tensors = dict[str, torch.Tensor]

IDLE_SECONDS = 3600.0
"""While a run goes on, an entry used within this time is not deleted: another run may be using it."""
TOUCH_SECONDS = 600.0
"""How often a run marks the entries that it reads as used."""

_ENTRY = re.compile(r"[0-9a-f]{64}\.safetensors")
_PARTIAL = re.compile(r"\.scion-[0-9a-f]+\.part")


class Usage(NamedTuple):
    """Files of a cache and their size."""

    files: int
    bytes: int


def key(*parts: object) -> str:
    """The name of an entry: SHA-256, in hexadecimal, over what made it."""
    return hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()


def default_folder() -> Path:
    """Where entries lie if the user names no folder."""
    return Path.home() / ".cache" / "scion" / "encoded"


class EncodedCache:
    """Named tensors by key, in memory or in a folder. Several threads may use it, and several programs one folder."""

    def __init__(self, folder: str | Path | None = None, limit: int = 0):
        """
        Args:
            folder: where the files lie; None = in memory.
            limit: in bytes; 0 = none. A folder is pruned to it, memory is refused beyond it.
        """
        self.folder = None if folder is None else Path(folder).expanduser()
        self.limit = limit
        self.bytes = 0
        """Size of what this object has put, and of what its folder held before."""
        self._memory: dict[str, Tensors] = {}
        self._used: dict[str, float] = {}
        self._prunable = True
        self._lock = threading.Lock()
        if self.folder is not None:
            _make(self.folder)
            self.bytes = usage(self.folder).bytes

    def claim(self, keys: Iterable[str]) -> None:
        """Name entries that this run will use, so that pruning spares them."""
        with self._lock:
            self._used |= {key: self._used.get(key, 0.0) for key in keys}

    def get(self, key: str) -> Tensors | None:
        """The tensors put under `key`; None if there are none, or if their file is damaged. Not to be written to."""
        if self.folder is None:
            return self._memory.get(key)
        path = self._path(key)
        try:
            tensors, metadata = read_tensors(path)
        except BadInput:
            return None
        if metadata.get("crc32") != _checksum(tensors):
            return None
        self._mark(key, path)
        return tensors

    def put(self, key: str, tensors: Mapping[str, torch.Tensor]) -> None:
        """Keep tensors (a copy of them, on the CPU) under `key`.

        Raises:
            BadInput: the memory's limit is reached.
            ScionError: the file cannot be written.
        """
        kept = {name: own(tensor) for name, tensor in tensors.items()}
        size = sum(tensor.numel() * tensor.element_size() for tensor in kept.values())
        if self.folder is None:
            with self._lock:
                if self.limit and self.bytes + size > self.limit:
                    raise BadInput(
                        f"cache_limit_gb: {self.limit / 1e9:g} GB of memory are full after {len(self._memory):,} "
                        "entries; set cache to 'disk', or raise the limit if there is more memory."
                    )
                self._memory[key] = kept
                self.bytes += size
            return
        path = self._path(key)
        try:
            write_tensors(path, kept, {"crc32": _checksum(kept)})
        except ScionError:
            # Windows refuses to replace a file that another run is reading; that run then wrote the same.
            if self.get(key) is None:
                raise
            return
        with self._lock:
            self._used[key] = time.time()
            self.bytes += path.stat().st_size
            if self.limit and self.bytes > self.limit and self._prunable:
                self.bytes -= prune(self.folder, self.limit, keep=self._used, idle=IDLE_SECONDS).bytes
                # What is left is in use; looking again at every put would be slow and find nothing.
                self._prunable = self.bytes <= self.limit

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"

    def _mark(self, key: str, path: Path) -> None:
        """Note on the disk, now and then, that an entry is in use."""
        now = time.time()
        with self._lock:
            if now - self._used.get(key, 0.0) < TOUCH_SECONDS:
                return
            self._used[key] = now
        try:
            os.utime(path)
        except OSError:  # a read-only cache works, only its order of deletion suffers
            return


def usage(folder: str | Path) -> Usage:
    """How much a folder's entries take."""
    sizes = [status.st_size for _, status in _entries(Path(folder))]
    return Usage(len(sizes), sum(sizes))


def prune(folder: str | Path, limit: int, keep: Iterable[str] = (), idle: float = 0.0) -> Usage:
    """Delete the entries unused for longest until `limit` bytes are left, and what killed writers left behind.

    Only files named as entries are touched, whatever else lies in the folder.

    Args:
        limit: in bytes; 0 empties the cache.
        keep: keys that stay.
        idle: entries used within this many seconds stay.

    Returns:
        What was freed.
    """
    kept, newest = set(keep), time.time() - idle
    entries = sorted(_entries(Path(folder)), key=lambda entry: (entry[1].st_mtime, entry[0].name))
    total, files, freed = sum(status.st_size for _, status in entries), 0, 0
    for path, status in entries:
        if total - freed <= limit:
            break
        if path.stem in kept or (idle and status.st_mtime > newest):
            continue
        try:
            path.unlink()
        except OSError:  # in use by another program (Windows), or already gone
            continue
        files, freed = files + 1, freed + status.st_size
    for path, status in _files(Path(folder), _PARTIAL):
        if status.st_mtime < time.time() - IDLE_SECONDS:
            path.unlink(missing_ok=True)
    return Usage(files, freed)


def _entries(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    return _files(folder, _ENTRY)


def _files(folder: Path, name: re.Pattern) -> Iterator[tuple[Path, os.stat_result]]:
    for path in folder.glob("[0-9a-f][0-9a-f]/*"):
        if name.fullmatch(path.name):
            try:
                yield path, path.stat()
            except OSError:  # deleted meanwhile by another run
                continue


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"cache_path: {folder}: cannot be made ({error.strerror or error}); choose another.") from None


def own(tensor: torch.Tensor) -> torch.Tensor:
    """A copy on the CPU that is no inference tensor, wherever this is called from."""
    with torch.inference_mode(False):
        return torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())


def _checksum(tensors: Tensors) -> str:
    value = 0
    for name in sorted(tensors):
        data = tensors[name].contiguous().reshape(-1)
        value = zlib.crc32(data.view(torch.uint8).numpy() if data.numel() else b"", zlib.crc32(name.encode(), value))
    return f"{value:08x}"
