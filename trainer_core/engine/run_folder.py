"""A run's folder: what lies where, who may write in it, and what it says about how far the run is."""

import contextlib
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..errors import BadInput, ScionError
from ..files import read_json, remove_partial, write_json


@dataclass(frozen=True)
class Made:
    """The files that a run has made of what it trained."""

    lora: Path | None = None
    words: tuple[Path, ...] = ()
    """Of new words, one each."""
    decorator: Path | None = None

    @property
    def files(self) -> list[Path]:
        """All of them, the LoRA's first."""
        return [path for path in (self.lora, *self.words, self.decorator) if path]

    @property
    def lines(self) -> list[str]:
        """What each file is and where, for a person."""
        called = [("LoRA", self.lora), *(("New word", path) for path in self.words), ("Decorator", self.decorator)]
        return [f"{what}: {path}" for what, path in called if path]


@dataclass
class RunState:
    """run.json: what is known of the run without reading anything large."""

    fingerprint: str
    settings: dict[str, Any]
    """The settings that decide the weights, by dotted name: to say what differs."""
    status: str = "unfinished"
    """"unfinished", "stopped" or "finished"."""
    step: int = 0
    total: int = 0
    lora: str = ""
    """The LoRA file's name in the folder, once there is one."""
    words: list[str] = field(default_factory=list)
    """The file names of new words in the folder, once there are any."""
    decorator: str = ""
    """The decorator's file name in the folder, once there is one."""
    output: dict[str, Any] = field(default_factory=dict)
    """The output settings that the file was written with (`output.settings`); empty where an older Scion wrote it."""
    preview: dict[str, Any] | None = field(default_factory=dict)
    """The preview settings of the last look; None if it failed, empty where an older Scion wrote it."""
    validation: dict[str, Any] = field(default_factory=dict)
    """What its validations had shown when it last ended (`validation.Record`)."""
    early_end: int = 0
    """The steps that were asked for when the run finished before them; 0 = it did not."""
    ended_by_hand: bool = False
    """Whether it finished before them because somebody asked it to; else no validation was better."""
    patient_until: int = 0
    """Where early_stop would have ended the run, and somebody asked for more: it counts anew from there."""
    failure: str = ""
    """What ended it, in words for a person, where that was an error; empty once it goes on."""
    started_at: float = field(default_factory=time.time)
    finished_at: float = 0.0

    def made(self, folder: Path) -> Made:
        """The files that it has made, in its folder."""
        lora, decorator = (folder / name if name else None for name in (self.lora, self.decorator))
        return Made(lora, tuple(folder / name for name in self.words), decorator)

    @property
    def is_early(self) -> bool:
        """Whether it is finished before all its steps."""
        return self.status == "finished" and self.early_end > 0

    def reopen(self) -> None:
        """Makes a run that ended early one that goes on when it is asked for again."""
        if not self.ended_by_hand:
            self.patient_until = self.step
        self.status, self.early_end, self.ended_by_hand = "stopped", 0, False


class RunFolder:
    def __init__(self, path: Path):
        self.path = Path(path)
        self.recipe = self.path / "recipe.json"
        self.metrics = self.path / "metrics.jsonl"
        self.loss_plot = self.path / "loss.png"
        self.checkpoints = self.path / "checkpoints"
        self.previews = self.path / "previews"
        self.samples = self.path / "samples"
        """The pictures of the last preview, each by itself."""
        self._state = self.path / "run.json"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes out of the folder, which is made if need be.

        Raises:
            BadInput: another process is in it, or it cannot be made.
        """
        try:
            made = [path for path in (self.path, *self.path.parents) if not path.exists()]
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock", timeout=0)
            lock.acquire()
        except Timeout:
            raise BadInput(
                f"{self.path}: another process trains in this folder; wait for it, or choose another folder"
            ) from None
        except OSError as error:
            raise BadInput(
                f"{self.path}: cannot be written to ({error.strerror or error}); choose another folder"
            ) from None
        try:
            yield
        except BadInput:
            lock.release()
            self._unmake(made)
            raise
        finally:
            lock.release()

    def _unmake(self, made: list[Path]) -> None:
        """Takes away the folders that `locked` made: bad input leaves nothing behind. What holds more stays."""
        if self.path in made and [path.name for path in self.path.iterdir()] == [".lock"]:
            # On Windows the lock's file cannot be deleted while another process waits at it.
            with contextlib.suppress(OSError):
                (self.path / ".lock").unlink()
                for path in made:
                    path.rmdir()

    def remove_partial(self) -> None:
        """Takes away what killed writers left, but for checkpoints; call it only while holding the lock."""
        for folder in (self.path, self.previews, self.samples):
            remove_partial(folder)

    def state(self) -> RunState | None:
        """None where no run has begun."""
        if not self._state.exists():
            return None
        try:
            return RunState(**read_json(self._state))
        except TypeError:
            raise BadInput(f"{self._state}: was written by another version of Scion; choose another folder") from None

    def save_state(self, state: RunState) -> None:
        write_json(self._state, asdict(state))

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(path.lstat().st_size for path in self.path.rglob("*") if path.is_symlink() or path.is_file())

    def delete(self) -> int:
        """Takes the run away with all that is in its folder; how many bytes that were.

        Raises:
            BadInput: another process is in it.
            ScionError: not all of it could be deleted.
        """
        with self.locked():
            size = self.size
            # run.json goes last: what is left when this is interrupted is a run still, which can be deleted again.
            last = (self.path / ".lock", self._state)
            try:
                for path in [path for path in self.path.iterdir() if path not in last]:
                    if path.is_dir() and not path.is_symlink():
                        shutil.rmtree(path)
                    else:
                        path.unlink()
                self._state.unlink()
            except OSError as error:
                raise ScionError(
                    f"{self.path}: could not be deleted ({error}); close the program that holds it, and try again"
                ) from error
        # Who waited for the lock holds it now.
        with contextlib.suppress(OSError):
            (self.path / ".lock").unlink()
            self.path.rmdir()
        return size

    def difference(self, state: RunState, settings: dict[str, Any]) -> str:
        """In words, how another recipe's deciding settings differ from those of the run that is here."""
        names = [name for name in settings if state.settings.get(name) != settings[name]]
        changed = [f"{name} was {state.settings.get(name)!r}, is {settings[name]!r}" for name in names[:3]]
        if len(names) > 3:
            changed.append(f"{len(names) - 3} more settings")
        return "; ".join(changed) or "the dataset or the base model has changed"


def is_run_folder(path: Path) -> bool:
    return (path / "run.json").is_file()


def free_name(path: Path) -> Path:
    """The path itself, or with the first number behind it that is not taken; `run-2` is followed by `run-3`."""
    numbered = re.fullmatch(r"(.+)-\d+", path.name)
    if numbered and path.with_name(numbered[1]).exists():
        path = path.with_name(numbered[1])
    candidate, number = path, 2
    while candidate.exists():
        candidate, number = path.with_name(f"{path.name}-{number}"), number + 1
    return candidate
