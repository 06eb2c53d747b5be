"""Trials of death in a process of their own, and disks that are full: one that pretends, one that is."""

import builtins
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainer_core.engine import metrics

ROOT = Path(__file__).parents[2]


def pytest_collection_modifyitems(config, items):
    if "trials" not in config.getoption("-m"):
        for item in items:
            if item.get_closest_marker("trials"):
                item.add_marker(pytest.mark.skip(reason="takes many minutes: python -m pytest -m trials"))


@pytest.fixture(scope="module")
def trials(base, pictures, tmp_path_factory):
    """Runs trials as `trials.main` takes them, on the random base and the pictures; gives their outcomes."""
    if not hasattr(os, "fork") or not Path("/proc/self/task").is_dir():
        pytest.skip("trials fork, and look into /proc")

    def run(asked):
        work = tmp_path_factory.mktemp("trials")
        asked = [{**one, "settings": {"dataset.path": str(pictures), **one.get("settings", {})}} for one in asked]
        words = [sys.executable, Path(__file__).with_name("trials.py"), work, base, json.dumps(asked)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        done = subprocess.run(words, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


class Pretending:
    """The disk of this process refuses what is written to it after `fill`: files keep half of it, as they would."""

    refuses_lines = True

    def __init__(self, monkeypatch, folder):
        self.folder, self.full, self._fsync = folder, False, os.fsync
        monkeypatch.setattr(os, "fsync", self._synced)
        monkeypatch.setattr(metrics, "open", self._opened, raising=False)

    def fill(self):
        self.full = True

    def free(self):
        self.full = False

    def _synced(self, handle):
        if self.full:
            os.ftruncate(handle, os.fstat(handle).st_size // 2)
            raise no_space()
        self._fsync(handle)

    def _opened(self, path, mode="r", **more):
        file = builtins.open(path, mode, **more)
        return Refusing(file) if self.full else file


class Refusing:
    """A file that takes half of what is written to it."""

    def __init__(self, file):
        self._file, self.tell, self.truncate = file, file.tell, file.truncate

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def write(self, data):
        self._file.write(data[: len(data) // 2])
        raise no_space()


def no_space():
    return OSError(errno.ENOSPC, "No space left on device")


class Mounted:
    """A small disk of its own, in memory."""

    refuses_lines = False
    """A few more find place in the last page of their file."""

    def __init__(self, folder, megabytes=8):
        self.folder, self._filler = folder, folder / "filler"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder], capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"a disk cannot be mounted here: {done.stderr.strip()}")

    def fill(self):
        """To the last byte: small files find no place either."""
        with open(self._filler, "wb", buffering=0) as file:
            for size in (2**16, 1):
                try:
                    while True:
                        file.write(b"x" * size)
                except OSError as error:
                    assert error.errno == errno.ENOSPC

    def free(self):
        self._filler.unlink()

    def unmount(self):
        subprocess.run(["umount", "-l", self.folder], check=True)


@pytest.fixture(params=["pretending", pytest.param("mounted", marks=pytest.mark.trials)])
def disk(request, monkeypatch, tmp_path):
    """A disk with `fill` and `free`, and the folder where it is."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if request.param == "pretending":
        yield Pretending(monkeypatch, folder)
        return
    disk = Mounted(folder)
    yield disk
    disk.unmount()
