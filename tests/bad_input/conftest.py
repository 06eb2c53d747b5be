"""Commands that are given something bad: what they say, how they end, and that nothing was written or changed."""

import json
import shutil
import signal
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainer_core import cli


def contents_of(*folders):
    """Every path below the folders with what it is: a link's goal, a file's bytes and time."""
    found = {}
    for folder in folders:
        for path in sorted(Path(folder).rglob("*")):
            if path.is_symlink():
                found[path] = path.readlink()
            else:
                found[path] = (path.read_bytes(), path.stat().st_mtime_ns) if path.is_file() else None
    return found


@pytest.fixture(scope="session")
def contents():
    return contents_of


@pytest.fixture
def scion(scion, tmp_path, monkeypatch):
    """As everywhere, but in a folder of its own, so that what it leaves there can be told from what a test wrote."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return scion


@pytest.fixture
def refused(scion, contents, tmp_path, base, pictures):
    """Asserts that a command ends with bad input, says all of `said`, and leaves every folder as it was."""

    def go(words, said, code=2):
        before = contents(tmp_path, base, pictures)
        got, out, errors = scion(*words)
        assert got == code, (out, errors)
        for part in [said] if isinstance(said, str) else said:
            assert part in errors, errors
        assert errors.startswith("scion: ") and "Traceback" not in errors
        assert contents(tmp_path, base, pictures) == before

    return go


@pytest.fixture
def words(base):
    """A short training of a dataset with changes: what `scion` is called with."""

    def make(dataset, out="mine", base=base, **changes):
        settings = {"run.steps": 1, "adapter.rank": 2, "preview.steps": 1, "run.device": "cpu", "preview.count": 1}
        said = ["train", "--base", base, "--dataset", dataset, "--out", out, "--quiet"]
        for name, value in {**settings, "output.dtype": "fp32", **changes}.items():
            said += ["--set", f"{name}={value}"]
        return said

    return make


class Bad:
    """A dataset's folder that a case spoils."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()

    def write(self, name, content=b""):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def draw(self, name, size=(64, 64), caption="a thing", **saving):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
        noise = np.random.default_rng(len(path.name)).integers(0, 60, (size[1], size[0]))
        pixels = np.stack([x * 3 % 256, y * 3 % 256, noise], -1).astype(np.uint8)
        Image.fromarray(pixels).save(path, **saving)
        if caption is not None:
            path.with_suffix(".txt").write_text(caption, encoding="utf-8")
        return path


@pytest.fixture
def bad(tmp_path):
    return Bad(tmp_path / "bad")


@pytest.fixture
def copied(base, tmp_path):
    """A base of the test's own, to be spoilt."""
    return Path(shutil.copytree(base, tmp_path / "copied"))


@pytest.fixture(scope="session")
def trained(tmp_path_factory, base, pictures):
    """The folder of a finished run of two steps with both checkpoints; `words` trains it on; nobody writes in it."""
    folder = tmp_path_factory.mktemp("trained") / "mine"
    settings = {"run.steps": 2, "adapter.rank": 2, "preview.steps": 1, "run.device": "cpu", "preview.count": 1}
    said = ["train", "--base", base, "--dataset", pictures, "--out", folder, "--quiet"]
    for name, value in {
        **settings,
        "output.dtype": "fp32",
        "run.checkpoint_every": 1,
        "run.keep_checkpoints": 9,
    }.items():
        said += ["--set", f"{name}={value}"]
    handler = signal.getsignal(signal.SIGINT)
    assert cli.main([str(word) for word in said]) == 0
    signal.signal(signal.SIGINT, handler)
    return types.SimpleNamespace(folder=folder, lora=folder / "things.safetensors")


@pytest.fixture
def edit_json():
    def edit(path, **changes):
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return edit
