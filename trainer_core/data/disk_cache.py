"""The encoded cache on the disk: safetensors files, which many runs may share and any of them may delete."""

import contextlib
import os
import re
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from ..errors import BadInput, ScionError
from ..files import is_abandoned
from ..lora_file.safe_io import read_tensors, write_tensors
from .cache import Tensors, own
from .config import DatasetConfig

IDLE_SECONDS = 3600.0
"""While a run goes on, an entry used within this time is not deleted: another run may be using it."""
TOUCH_SECONDS = 600.0
"""How often a run marks the entries that it reads as used."""

READ_MOST = 2000
"""So many entries are read, and so checked, when a run starts; of more only the damaged ones that training comes upon
are found, because reading a hundred thousand takes longer than a start should."""

_ENTRY = re.compile(r"[0-9a-f]{64}\.safetensors")
_PARTIAL = re.compile(r"\.scion-[0-9a-f-]+\.part")
_OURS = re.compile(f"{_ENTRY.pattern}|{_PARTIAL.pattern}")
_ABSENT, _UNMARKED = -2, -1


class Usage(NamedTuple):
    """Files of a cache and their size."""

    files: int
    bytes: int


def folder_of(config: DatasetConfig) -> Path | None:
    """Where a dataset's entries lie; None if they are not kept on the disk."""
    if config.cache != "disk":
        return None
    return Path(config.cache_path).expanduser() if config.cache_path else default_folder()


def default_folder() -> Path:
    """Where entries lie if the user names no folder."""
    return Path.home() / ".cache" / "scion" / "encoded"


class DiskCache:
    """Entries in a folder, each in a file that is whole or not there; several programs may use one folder.

    Of the entries that a run uses it knows eight bytes of the key and when it last marked them: a hundred bytes each.
    """

    def __init__(self, folder: str | Path, limit: int = 0):
        """
        Args:
            limit: in bytes, to which the folder is pruned; 0 = none.

        Raises:
            BadInput: the folder cannot be made.
        """
        self.folder, self.limit = Path(folder), limit
        self._bytes: int | None = None
        """Size of the folder's entries, once it is known."""
        self._marked: dict[int, int] = {}
        """When this run's entries were last marked as used, in whole TOUCH_SECONDS of its life."""
        self._begun, self._begun_at = time.monotonic(), time.time()
        self._prunable = True
        self._lock = threading.Lock()
        _make(self.folder)

    def claim(self, key: str) -> bool:
        short = _short(key)
        if short in self._marked:
            return False
        self._marked[short] = _ABSENT
        return True

    def look(self) -> int:
        here: list[str] = []
        with self._lock:
            self._bytes, now = 0, self._now()
            for name, path, status in _files(self.folder, _OURS):
                if _PARTIAL.fullmatch(name):
                    _remove_abandoned(path)
                    continue
                key = name[:64]
                self._bytes += status.st_size
                # A file without content is what a power failure leaves of one that was not yet on the disk.
                if self._marked.get(_short(key)) == _ABSENT and status.st_size:
                    self._marked[_short(key)] = now
                    if time.time() - status.st_mtime > TOUCH_SECONDS:
                        _touch(path)
                    if len(here) <= READ_MOST:
                        here.append(key)
        for key in here if len(here) <= READ_MOST else []:
            self.get(key)
        return sum(when == _ABSENT for when in self._marked.values())

    def has(self, key: str) -> bool:
        return self._marked.get(_short(key), _ABSENT) != _ABSENT

    def get(self, key: str) -> Tensors | None:
        path = self._path(key)
        try:
            tensors, metadata = read_tensors(path)
        except BadInput:
            return self._without(key, path)
        if metadata.get("crc32") != _checksum(tensors):
            return self._without(key, path)
        with self._lock:
            now, short = self._now(), _short(key)
            due = self._marked.get(short, _UNMARKED) < now
            self._marked[short] = now
        if due:
            _touch(path)
        return tensors

    def put(self, key: str, tensors: Mapping[str, torch.Tensor]) -> None:
        kept, path = {name: own(tensor) for name, tensor in tensors.items()}, self._path(key)
        try:
            write_tensors(path, kept, {"crc32": _checksum(kept)})
        except ScionError as error:
            # Windows refuses to replace a file that another run is reading; that run then wrote the same.
            if self.get(key) is not None:
                return
            reason = getattr(error.__cause__, "strerror", None) or error
            raise ScionError(
                f"dataset.cache_path: {self.folder}: cannot be written to ({reason}); what is encoded so far stays "
                "there. Free space, set dataset.cache to 'memory', or choose another dataset.cache_path; then start "
                "again"
            ) from error
        with self._lock:
            self._marked[_short(key)] = self._now()
            if self._bytes is None:
                self._bytes = usage(self.folder).bytes
            else:
                self._bytes += path.stat().st_size
            if self.limit and self._bytes > self.limit and self._prunable:
                # By the clock of the beginning: one that jumped meanwhile makes no entry of another run look unused.
                now = self._begun_at + time.monotonic() - self._begun
                self._bytes -= prune(self.folder, self.limit, self._is_used, IDLE_SECONDS, now).bytes
                # What is left is in use; looking again at every put would be slow and find nothing.
                self._prunable = self._bytes <= self.limit

    def _is_used(self, key: str) -> bool:
        return _short(key) in self._marked

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"

    def _now(self) -> int:
        # Not the clock's time, which may jump.
        return int((time.monotonic() - self._begun) / TOUCH_SECONDS)

    def _without(self, key: str, path: Path) -> None:
        """The next start, which does not read what is there, must find a damaged entry gone."""
        with self._lock:
            if _short(key) in self._marked:
                self._marked[_short(key)] = _ABSENT
        try:
            path.unlink(missing_ok=True)
        except OSError:  # a folder that may only be read: nothing can be encoded into it either
            return


def usage(folder: str | Path) -> Usage:
    """How much a folder's entries take."""
    sizes = [status.st_size for _, _, status in _entries(Path(folder))]
    return Usage(len(sizes), sum(sizes))


def prune(
    folder: str | Path,
    limit: int,
    keep: Callable[[str], bool] = lambda key: False,
    idle: float = 0.0,
    now: float | None = None,
) -> Usage:
    """Delete the entries unused for longest until `limit` bytes are left, and what killed writers left behind.

    Only files named as entries are touched, whatever else lies in the folder.

    Args:
        limit: in bytes; 0 empties the cache.
        keep: whether the entry of a key stays.
        idle: entries used within this many seconds stay.
        now: seconds since 1970, where the caller knows better than a clock that may have jumped.

    Returns:
        What was freed.
    """
    now = time.time() if now is None else now
    entries = sorted(_entries(Path(folder)), key=lambda entry: (entry[2].st_mtime, entry[0]))
    total, files, freed = sum(status.st_size for _, _, status in entries), 0, 0
    for name, path, status in entries:
        if total - freed <= limit:
            break
        if keep(name) or (idle and _is_recent(path, status.st_mtime, now, idle)):
            continue
        try:
            os.unlink(path)
        except OSError:  # in use by another program (Windows), or already gone
            continue
        files, freed = files + 1, freed + status.st_size
    for _, path, _ in _files(Path(folder), _PARTIAL):
        _remove_abandoned(path)
    return Usage(files, freed)


def _is_recent(path: str, used: float, now: float, idle: float) -> bool:
    """Whether an entry was used within `idle` seconds. One from the future, whose clock was wrong, counts as used now:
    else it would stay until that day."""
    latest = max(now, time.time())
    if used > latest + TOUCH_SECONDS:
        with contextlib.suppress(OSError):
            os.utime(path, (latest, latest))
    return used > now - idle


def _remove_abandoned(path: str) -> None:
    """Takes away an unfinished file whose writer was killed."""
    if is_abandoned(Path(path)):
        with contextlib.suppress(OSError):  # a folder that may only be read works, too
            os.unlink(path)


def _entries(folder: Path) -> Iterator[tuple[str, str, os.stat_result]]:
    """Key, path and status of each."""
    for name, path, status in _files(folder, _ENTRY):
        yield name[:64], path, status


def _files(folder: Path, pattern: re.Pattern) -> Iterator[tuple[str, str, os.stat_result]]:
    for number in range(256):
        try:
            with os.scandir(folder / f"{number:02x}") as found:
                entries = [entry for entry in found if pattern.fullmatch(entry.name)]
        except OSError:  # no such folder
            continue
        for entry in entries:
            try:
                yield entry.name, entry.path, entry.stat()
            except OSError:  # deleted meanwhile by another run
                continue


def _short(key: str) -> int:
    """Of a million keys two agree in these 64 bits once in forty million caches."""
    return int(key[:16], 16)


def _touch(path: str | Path) -> None:
    try:
        os.utime(path)
    except OSError:  # a read-only cache works, only its order of deletion suffers
        return


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(
            f"dataset.cache_path: {folder}: cannot be made ({error.strerror or error}); choose another."
        ) from None


def _checksum(tensors: Tensors) -> str:
    value = 0
    for name in sorted(tensors):
        data = tensors[name].contiguous().reshape(-1)
        value = zlib.crc32(data.view(torch.uint8).numpy() if data.numel() else b"", zlib.crc32(name.encode(), value))
    return f"{value:08x}"
