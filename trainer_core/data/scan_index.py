"""The scan index: what earlier scans found out about files that have not changed since."""

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from .pictures import Checked
from .walk import File

NAME = "scan.sqlite"
FORMAT = 1
"""Counts up whenever scanning finds out more, or otherwise, about the same file: what is known is then forgotten."""
SETTLED = 2.0
"""Seconds since a file's last change before it is kept: within them it may change again without a new time."""
PAGES_MOST = 500_000
"""Of 4 KiB, so 2 GB or some ten million files; beyond it everything is forgotten: most of them will be long gone."""
AT_ONCE = 1000


Facts = Checked | str
"""What there is to know: of a picture, what checking it found; of a text file, its caption."""


class ScanIndex:
    """Facts by file, true as long as the file's stamp is the same.

    Nothing depends on it but time: where its file cannot be read or written, it knows nothing and keeps nothing. Used
    by one thread.
    """

    def __init__(self, path: Path | None):
        self._path, self._waiting = path, []
        self._connection: sqlite3.Connection | None = None
        if path is not None:
            with contextlib.suppress(OSError), self._forgiving():
                path.parent.mkdir(parents=True, exist_ok=True)
                self._connection = sqlite3.connect(path, timeout=1)
                _prepare(self._connection)

    def known(self, files: Sequence[File]) -> dict[str, Facts]:
        """What was kept about files of one folder, by key; without those that have changed since or are new."""
        rows = {}
        if self._connection is not None and files:
            with self._forgiving():
                asked = self._connection.execute(
                    "SELECT name, size, modified, changed, width, height, digest, frames, caption FROM files "
                    "WHERE folder = ?",
                    (os.path.dirname(files[0].path),),
                )
                rows = {name: (stamp, facts) for name, stamp, facts in map(_row, asked)}
        found = {}
        for file in files:
            stamp, facts = rows.get(os.path.basename(file.path), (None, None))
            if stamp == file.stamp:
                found[file.key] = facts
        return found

    def keep(self, file: File, facts: Facts) -> None:
        if self._connection is None or time.time() - max(file.stamp.modified, file.stamp.changed) / 1e9 < SETTLED:
            return
        told = (None, None, None, None, facts) if isinstance(facts, str) else (*facts, None)
        self._waiting.append((*os.path.split(file.path), *file.stamp, *told))
        if len(self._waiting) == AT_ONCE:
            self._write()

    def close(self) -> None:
        self._write()
        if self._connection is not None:
            self._connection.close()

    def _write(self) -> None:
        if self._connection is not None and self._waiting:
            with self._forgiving(), self._connection:
                self._connection.executemany(f"INSERT OR REPLACE INTO files VALUES (?{', ?' * 9})", self._waiting)
        self._waiting.clear()

    @contextlib.contextmanager
    def _forgiving(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError:  # locked for long, a full disk, a folder that may only be read
            self._leave()
        except (sqlite3.DatabaseError, UnicodeEncodeError):  # damaged: the next scan begins another
            self._leave()
            _delete(self._path)

    def _leave(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


@contextlib.contextmanager
def scan_index(folder: Path | None) -> Iterator[ScanIndex]:
    """The index in a cache's folder, which is made if need be; None = one that knows nothing."""
    index = ScanIndex(None if folder is None else folder / NAME)
    try:
        yield index
    finally:
        index.close()


def forget(folder: Path) -> None:
    """Deletes the index in a cache's folder."""
    _delete(folder / NAME)


def _prepare(connection: sqlite3.Connection) -> None:
    # It can be lost, so the disk need not confirm each write.
    connection.execute("PRAGMA synchronous = OFF")
    (kept,) = connection.execute("PRAGMA user_version").fetchone()
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    if kept == FORMAT and pages <= PAGES_MOST:
        return
    with connection:
        connection.execute("DROP TABLE IF EXISTS files")
        connection.execute(
            "CREATE TABLE files (folder TEXT, name TEXT, size INT, modified INT, changed INT, width INT, height INT, "
            "digest TEXT, frames INT, caption TEXT, PRIMARY KEY (folder, name)) WITHOUT ROWID"
        )
        connection.execute(f"PRAGMA user_version = {FORMAT}")


def _row(row: tuple) -> tuple[str, tuple, Facts]:
    name, size, modified, changed, *picture, caption = row
    return name, (size, modified, changed), Checked(*picture) if caption is None else caption


def _delete(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
