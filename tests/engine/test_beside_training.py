"""What happens beside the training (previews, validation, plots, saves) may fail: it is said, and changes no bit."""

import json

import pytest
import torch

from trainer_core.engine import charts, sampling
from trainer_core.engine.events import Checkpointed, Previewed, Validated, Warned
from trainer_core.engine.trainer import Trainer
from trainer_core.families.clip_vae import ClipVaeEncoder
from trainer_core.lora_file import save
from trainer_core.lora_file.safe_io import read_tensors

BUSY = {
    "run.steps": 6,
    "run.checkpoint_every": 3,
    "run.preview_every": 1,
    "run.validate_every": 1,
    "dataset.holdout": 1,
    "adapter.dropout": 0.1,
}


def failing(monkeypatch, where, name, behaviour):
    """Replaces a function by one that does `behaviour[n]` at its nth call, and what it should at all others.

    A behaviour is an error to raise, or a function of what would have been returned.
    """
    inner, calls = getattr(where, name), [0]

    def instead(*given, **more):
        calls[0] += 1
        what = behaviour.get(calls[0], lambda result: result)
        if isinstance(what, Exception):
            raise what
        return what(inner(*given, **more))

    monkeypatch.setattr(where, name, instead)


def poisoned(pictures):
    pictures = pictures.clone()
    pictures[0, 3, 5] = float("nan")
    return pictures


def refuse(constant):
    raise AssertionError(f"{constant} is no JSON")


@pytest.fixture
def all_fail(monkeypatch):
    """Each thing beside the training fails once or twice."""
    failing(monkeypatch, ClipVaeEncoder, "decode", {2: RuntimeError("the decoder broke")})
    failing(monkeypatch, sampling, "draw", {3: poisoned})
    failing(
        monkeypatch,
        Trainer,
        "validate",
        {2: ValueError("no validation today"), 3: lambda loss: float("nan"), 5: lambda loss: float("inf")},
    )
    failing(monkeypatch, charts, "save_strip", {3: OSError(28, "No space left on device")})
    failing(monkeypatch, charts, "save_loss_plot", {1: MemoryError()})
    # The first call is that of the look at the dialect before training.
    failing(monkeypatch, save, "reader_reports", {2: RuntimeError("no reader is at home")})


def test_previews_validation_plots_and_saves_that_fail_are_said_and_change_no_bit(train, same, all_fail, monkeypatch):
    result, heard = train(BUSY, "failing", warnings=True)
    assert [event.message for event in heard.of(Warned)] == [
        "step 2: the validation failed (no validation today); the run goes on",
        "step 2: the preview failed (the decoder broke); the run goes on",
        "step 3: the validation failed (the loss on held-out pictures is nan); the run goes on",
        "step 3: the LoRA beside the checkpoint failed (no reader is at home); the run goes on",
        "step 3: the preview failed (pictures hold NaN or infinity. A VAE overflows in half precision: run it in "
        "float32 (ComfyUI: --fp32-vae), or use a VAE that is made for fp16); the run goes on",
        "step 5: the validation failed (the loss on held-out pictures is inf); the run goes on",
        "step 5: the preview failed ([Errno 28] No space left on device); the run goes on",
        "step 6: the loss plot failed (out of memory); the run goes on",
    ]
    assert (result.status, result.step) == ("finished", 6)
    assert [event.step for event in heard.of(Validated)] == [1, 4, 6]
    assert [event.step for event in heard.of(Previewed)] == [1, 4, 6]
    assert [event.step for event in heard.of(Checkpointed)] == [3, 6]
    monkeypatch.undo()
    quiet, _ = train(BUSY, "quiet")
    assert same(quiet, result)
    written = [path for path in result.folder.rglob("*") if path.is_file()]
    for path in written:
        if path.suffix in (".json", ".jsonl"):
            for line in path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]:
                json.loads(line, parse_constant=refuse)
        if path.suffix == ".safetensors":
            assert all(torch.isfinite(tensor.float()).all() for tensor in read_tensors(path)[0].values()), path
    assert not (result.folder / "checkpoints/step-00000003/things.safetensors").exists()
    assert (quiet.folder / "checkpoints/step-00000003/things.safetensors").exists()


def test_a_last_preview_that_could_not_be_written_is_drawn_when_the_run_is_asked_for_again(train, monkeypatch):
    failing(monkeypatch, charts, "save_each", {1: OSError(28, "No space left on device")})
    result, heard = train(warnings=True)
    assert result.status == "finished" and not heard.of(Previewed)
    again, heard = train()
    assert [event.step for event in heard.of(Previewed)] == [3]
    assert train()[1].of(Previewed) == []
