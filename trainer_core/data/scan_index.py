"""The scan index: what earlier scans found out about files that have not changed since."""

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .walk import File, Stamp

NAME = "scan.sqlite"
FORMAT = 1
"""Counts up whenever scanning finds out more, or otherwise, about the same file: what is known is then forgotten."""
SETTLED = 2.0
"""Seconds since a file's last change before it is kept: within them it may change again without a new time."""
PAGES_MOST = 500_000
"""Of 4 KiB, so 2 GB or some ten million files; beyond it everything is forgotten: most of them will be long gone."""
AT_ONCE = 1000


class ScanIndex:
    """Facts (plain JSON) by file, true as long as the file's stamp is the same.

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

    def known(self, file: File) -> Any:
        """What was kept about a file; None if it has changed since, or was never seen."""
        if self._connection is None:
            return None
        with self._forgiving():
            row = self._connection.execute(
                "SELECT size, modified, changed, found FROM files WHERE path = ?", (file.path,)
            ).fetchone()
            if row and Stamp(*row[:3]) == file.stamp:
                with contextlib.suppress(ValueError):
                    return json.loads(row[3])
        return None

    def keep(self, file: File, found: Any) -> None:
        if self._connection is None or time.time() - max(file.stamp.modified, file.stamp.changed) / 1e9 < SETTLED:
            return
        self._waiting.append((file.path, *file.stamp, json.dumps(found)))
        if len(self._waiting) == AT_ONCE:
            self._write()

    def close(self) -> None:
        self._write()
        if self._connection is not None:
            self._connection.close()

    def _write(self) -> None:
        if self._connection is not None and self._waiting:
            with self._forgiving(), self._connection:
                self._connection.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", self._waiting)
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
            "CREATE TABLE files (path TEXT PRIMARY KEY, size INT, modified INT, changed INT, found TEXT) WITHOUT ROWID"
        )
        connection.execute(f"PRAGMA user_version = {FORMAT}")


def _delete(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
