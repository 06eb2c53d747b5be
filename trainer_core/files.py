"""Files that are whole or absent: atomic writing of bytes, text and JSON, and reading JSON; nothing heavy."""

import json
import os
import platform
import secrets
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from .errors import BadInput, ScionError

PARTIAL = ".scion-*.part"
"""What an unfinished write is called."""
ABANDONED_AFTER = 3600.0
"""Seconds without a change after which an unfinished write of another machine is taken for a dead one's."""


def write_bytes(path: str | Path, data: bytes) -> None:
    """Put `data` under `path`, whole or not at all.

    Raises:
        ScionError: the disk is full, the folder is not writable, another program holds the file.
    """
    write_atomically(Path(path), lambda file: file.write(data))


def write_text(path: str | Path, text: str) -> None:
    """`write_bytes` of UTF-8, line ends as they are."""
    write_bytes(path, text.encode())


def write_json(path: str | Path, value: Any) -> None:
    """`write_bytes` of indented JSON. NaN and infinity are no JSON and raise ValueError before anything is written."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_atomically(path: Path, write: Callable[[BinaryIO], Any], check: Callable[[Path], Any] | None = None) -> None:
    """Put what `write` writes under `path`, whole or not at all.

    Args:
        check: called with the finished file under its temporary name; if it raises, `path` stays as it was.

    Raises:
        ScionError: as for `write_bytes`.
    """
    # Not tempfile: its files are readable by their owner only, and would stay so after the rename.
    partial = path.with_name(PARTIAL.replace("*", f"{_machine()}-{os.getpid():x}-{secrets.token_hex(8)}"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(partial, "xb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            if check:
                check(partial)
            os.replace(partial, path)
        except BaseException:  # an interrupt too leaves no half file behind
            partial.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ScionError(
            f"{path}: cannot be written ({error.strerror or error}). Free space, choose another folder, or close the "
            "program that holds the file."
        ) from error


def remove_partial(folder: str | Path) -> int:
    """Delete what killed writers left behind in `folder`; call it only while holding the folder's lock.

    Returns:
        How many files were deleted.
    """
    found = list(Path(folder).glob(PARTIAL))
    for path in found:
        path.unlink(missing_ok=True)
    return len(found)


def is_abandoned(path: Path) -> bool:
    """Whether an unfinished write has lost its writer, in a folder that several programs write in without a lock.

    The name tells the writer: one of this machine lives or does not, whatever the clock says. Of others only the age
    tells, which a clock that jumped can make wrong.
    """
    import psutil

    machine, _, process = path.name.removeprefix(".scion-").rpartition("-")[0].partition("-")
    if machine == _machine() and process:
        return not psutil.pid_exists(int(process, 16))
    try:
        return path.stat().st_mtime < time.time() - ABANDONED_AFTER
    except OSError:  # finished meanwhile
        return False


def _machine() -> str:
    return f"{zlib.crc32(platform.node().encode()):08x}"


def read_json(path: str | Path, max_bytes: int = 256 * 2**20) -> Any:
    """The value in a JSON file (UTF-8, with or without a byte order mark).

    Raises:
        BadInput: missing, empty, larger than `max_bytes`, or not JSON (with line and column).
    """
    path = Path(path)
    with opened(path) as file:
        data = file.read(max_bytes + 1)
    if not data.strip():
        raise BadInput(f"{path}: the file is empty.")
    if len(data) > max_bytes:
        raise BadInput(f"{path}: larger than {max_bytes:,} bytes, which is too large for JSON here.")
    try:
        return json.loads(data.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise BadInput(f"{path}: not JSON: {error.msg} at line {error.lineno}, column {error.colno}.") from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: not JSON: {error}.") from None


def opened(path: Path) -> BinaryIO:
    """The file, open for reading bytes.

    Raises:
        BadInput: it is a folder, missing or not readable.
    """
    if path.is_dir():
        raise BadInput(f"{path}: is a folder; a file was expected.")
    try:
        return open(path, "rb")
    except FileNotFoundError:
        raise BadInput(f"{path}: there is no such file.") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror or error}).") from None
