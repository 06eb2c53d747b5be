"""The moments of a run's writing, each by its name, at any of which the process can be made to kill itself."""

import builtins
import os
import shutil
import signal
from pathlib import Path

from trainer_core.engine import metrics


class Moments:
    """Counts what this process writes; at the moment with the number `last` it dies as by SIGKILL.

    The order of writing is the same in every run of one recipe, so a number of one run means the same in another.
    """

    def __init__(self, last: int | None = None):
        self.last, self.seen = last, []
        """What was seen: (what happens, path)."""
        self._fsync, self._replace, self._rmtree = os.fsync, os.replace, shutil.rmtree
        os.fsync, os.replace, shutil.rmtree = self._half_written, self._named, self._deleted
        metrics.open = self._opened

    def named(self) -> list[str]:
        """The moments by name: a temporary file is called as what it became."""
        became = {src: dst for what, src, dst in self._triples() if dst}
        return [f"{what} {_label(Path(dst or became.get(path, path)))}" for what, path, dst in self._triples()]

    def _triples(self):
        return [(what, str(path), str(to) if to else "") for what, path, to in self.seen]

    def _is_due(self, what: str, path, to=None) -> bool:
        self.seen.append((what, path, to))
        return self.last == len(self.seen) - 1

    def _half_written(self, handle: int) -> None:
        if self._is_due("half written:", os.readlink(f"/proc/self/fd/{handle}")):
            os.ftruncate(handle, os.fstat(handle).st_size // 2)
            die()
        self._fsync(handle)

    def _named(self, source, target) -> None:
        if self._is_due("written, not named:", source, target):
            die()
        self._replace(source, target)
        if self._is_due("just named:", source, target):
            die()

    def _deleted(self, path, *given, **more) -> None:
        if Path(path).is_dir() and self._is_due("half deleted:", path):
            next(entry for entry in sorted(Path(path).iterdir()) if entry.is_file()).unlink()
            die()
        self._rmtree(path, *given, **more)

    def _opened(self, path, mode="r", **more):
        file = builtins.open(path, mode, **more)
        if "a" in mode and self._is_due("half appended:", path):
            return _Half(file)
        return file


class _Half:
    """A file whose writer dies in the middle of writing."""

    def __init__(self, file):
        self._file = file

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def tell(self) -> int:
        return self._file.tell()

    def write(self, data) -> None:
        self._file.write(data[: len(data) // 2])
        die()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _label(path: Path) -> str:
    if path.parent.name.startswith(".partial-"):
        return {
            "adapter": "checkpoint's weights",
            "optimizer": "checkpoint's optimiser",
            "state": "checkpoint's state",
        }.get(path.stem, "checkpoint's LoRA")
    if path.name.startswith(("step-", ".partial-")) and not path.suffix:
        return "checkpoint"
    if path.parent.name in ("previews", "samples"):
        return path.parent.name
    if path.suffix == ".safetensors":
        return "encoded item" if len(path.stem) == 64 else "LoRA"
    return path.name
