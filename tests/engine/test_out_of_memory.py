"""What a run does when the system really refuses it memory: it keeps the last whole step, and says what saves how much.

Each run is a child of this process that may hold a few megabytes more than it does at a chosen moment.
"""

import ctypes
import multiprocessing
import re
import sys
import traceback
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from trainer_core import cli
from trainer_core.engine import checkpoints, memory_advice, sampling
from trainer_core.engine.trainer import Trainer
from trainer_core.families.clip_vae import ClipVaeEncoder
from trainer_core.recipe import write

resource = pytest.importorskip("resource", reason="the system limits no process's memory")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts all of a process's memory on Linux")

MB = 2**20
LIBC = ctypes.CDLL(None)
LIBC.malloc.restype, LIBC.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
M_MMAP_THRESHOLD = -3
"""glibc's number for mallopt: blocks of this size and more go back to the system as soon as they are free."""


def held() -> int:
    """Bytes that count for RLIMIT_DATA."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData"))
    return int(line.split()[1]) * 1024


_, MOST = resource.getrlimit(resource.RLIMIT_DATA)


def limit(size: int) -> None:
    """This process may hold so many bytes."""
    resource.setrlimit(resource.RLIMIT_DATA, (size, MOST))


def leave(room: int) -> None:
    """From now on this process may hold so many bytes more than it does.

    What it inherited free from the tests before it, it first takes for good.
    """
    now = held()
    then = now + room  # afterwards nothing is left to compute it with
    limit(now)
    for size in (16 * MB, MB, 64 * 1024, 4096):
        while LIBC.malloc(size):
            pass
    limit(then)


def before(owner, name: str, room: int, when=lambda *given: True, again: bool = False) -> None:
    """Little room is left when `name` is called and `when` says so; with `again`, until it is over."""
    usual = getattr(owner, name)

    def called(*given, **more):
        short = when(*given)
        if short:
            leave(room)
        try:
            return usual(*given, **more)
        finally:
            if short and again:
                limit(MOST)

    setattr(owner, name, called)


def child(recipe: Path, folder: Path, arrange, told) -> None:
    LIBC.mallopt(M_MMAP_THRESHOLD, 4096)
    arrange()
    try:
        code = cli.main(["train", str(recipe), "--out", str(folder), "--quiet"])
    except BaseException:  # the test shows what was printed
        traceback.print_exc()
        code = -1
    told.put(code)


@pytest.fixture
def cramped(make_recipe, tmp_path, capfd):
    """Trains a recipe in a child that `arrange` cramps: its exit code, and what it said."""

    def go(changes, arrange=lambda: None, folder="run"):
        # A thread that begins in a forked process would compute in several, which torch refuses there.
        write(make_recipe({**changes, "dataset.workers": 0}), tmp_path / "recipe.json")
        context = multiprocessing.get_context("fork")
        told = context.SimpleQueue()
        process = context.Process(target=child, args=(tmp_path / "recipe.json", tmp_path / folder, arrange, told))
        process.start()
        process.join(300)
        code = told.get() if not told.empty() else process.exitcode
        return code, "".join(capfd.readouterr())

    return go


LARGE = {"dataset.resolution": 160, "dataset.buckets": False, "run.batch_size": 5, "run.steps": 2}


def lora_of(folder: Path) -> dict:
    (path,) = folder.glob("*.safetensors")
    return load_file(path)


def same(a: Path, b: Path) -> bool:
    """Whether the LoRA files of two run folders hold the same bits."""
    a, b = lora_of(a), lora_of(b)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_a_step_without_memory_is_the_only_one_lost_and_the_message_says_what_saves_how_much(cramped, tmp_path):
    def arrange():
        before(Trainer, "_losses", 32 * MB, lambda trainer, micro: trainer.step == 1)

    code, said = cramped(LARGE, arrange)
    assert code == 1, said
    figures = re.search(
        r"scion: step 2: out of memory: this step takes about (\d+) MB\. Set .*?: saves about (\d+) MB, ", said
    )
    assert figures, said
    needed, saved = map(int, figures.groups())
    assert 32 < needed < 300 and needed / 10 < saved < needed
    assert "Kept: step 1. Go on with: scion train" in said
    assert checkpoints.latest(tmp_path / "run" / "checkpoints", pytest.fail).step == 1
    for folder in ("run", "never"):
        code, said = cramped(LARGE, folder=folder)
        assert code == 0, said
    assert same(tmp_path / "run", tmp_path / "never")


def test_an_optimiser_without_memory_for_its_state_loses_nothing_because_nothing_was_done(cramped, tmp_path):
    """The widest rank on all modules makes the state larger than the room; what is begun of it is no step."""
    changes = {"adapter.rank": 64, "adapter.targets": ["all"], "run.steps": 2, "run.batch_size": 1}

    def real(optimizer, *closure) -> bool:  # not the one that is tried before the run
        return optimizer.param_groups[0]["params"][0].numel() > 32

    def arrange():
        before(torch.optim.AdamW, "step", MB, real)
        memory_advice.TrainerMemory = None  # the rehearsal takes its time, and is told of above

    code, said = cramped(changes, arrange)
    assert code == 1, said
    assert "scion: step 1: out of memory. Set run.gradient_checkpointing=true" in said and "Kept" not in said
    assert checkpoints.latest(tmp_path / "run" / "checkpoints", pytest.fail) is None
    assert cramped(changes)[0] == 0
    assert len(lora_of(tmp_path / "run")) > 0


def test_a_picture_that_cannot_be_encoded_leaves_a_run_that_can_begin_again(cramped, tmp_path):
    changes = {"dataset.resolution": 512, "run.batch_size": 1, "run.steps": 1}
    code, said = cramped(changes, lambda: before(ClipVaeEncoder, "encode_pictures", 24 * MB))
    assert code == 1, said
    figures = r"out of memory: encoding a picture takes about (\d+) MB\. Set dataset.resolution=384 .* about (\d+) MB, "
    needed, saved = map(int, re.search(figures, said).groups())
    assert 24 < needed < 300 and needed / 10 < saved < needed
    assert not list(tmp_path.glob("run/checkpoints/*")) and not list(tmp_path.glob("run/*.safetensors"))


def test_a_preview_without_memory_is_said_and_changes_nothing(cramped, tmp_path):
    changes = {"run.preview_every": 1, "preview.width": 512, "preview.height": 512, "run.steps": 2}
    code, said = cramped(changes, lambda: before(sampling, "draw", 24 * MB, again=True))
    assert code == 0, said
    assert said.count("the preview failed (out of memory; draw fewer preview.prompts") == 2
    assert cramped({"run.steps": 2}, folder="never")[0] == 0
    assert same(tmp_path / "run", tmp_path / "never")
