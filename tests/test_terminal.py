"""What a person sees of a run in a terminal."""

import re

import pytest
import torch

from trainer_core.engine.events import (
    Checkpointed,
    Finished,
    Made,
    Previewed,
    Scanned,
    Started,
    Steps,
    Validated,
    Warned,
    Working,
)
from trainer_core.terminal import Terminal, duration


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (12.5, "13 s"),
        (59.4, "59 s"),
        (59.5, "1:00"),
        (245, "4:05"),
        (3599.6, "1:00:00"),
        (3723, "1:02:03"),
        (360_000, "100:00:00"),
    ],
)
def test_durations_read_as_clocks(seconds, said):
    assert duration(seconds) == said


def steps(last, loss=0.5, total=100, seconds=0.25):
    return Steps(last, [loss], 1e-4, total, 0, seconds, seconds * (total - last), 2**30)


def test_without_a_terminal_there_are_sentences_and_about_ten_lines_of_steps(capsys, tmp_path):
    terminal = Terminal(quiet=True)
    terminal.on(Scanned(["5 pictures", "1 note"]))
    terminal.on(Working("encoding", 5, 5))
    terminal.on(Started(tmp_path, 0, 100, 56, 12345, "fp32", "cpu"))
    for step in range(1, 101):
        terminal.on(steps(step))
    terminal.on(Validated(100, 0.125, 100, 0.125))
    terminal.on(Validated(120, 0.25, 100, 0.125))
    terminal.on(Previewed(100, tmp_path / "a.png", ["x"], torch.zeros(1, 8, 8, 3)))
    terminal.on(Checkpointed(100, tmp_path / "step-100"))
    terminal.on(Warned("careful"))
    terminal.on(Finished("finished", 100, 100, Made(tmp_path / "x.safetensors"), ["56 of 56 modules load in ComfyUI"]))
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert lines[:3] == ["5 pictures", "1 note", "Training 100 steps: 12,345 numbers in 56 modules, fp32 on cpu"]
    progress = [line for line in lines if re.match(r"step \d+/100  ", line)]
    assert len(progress) == 10
    assert progress[4] == "step 50/100  loss 0.5000  4.00 steps/s  13 s left"
    assert "step 100: validation loss 0.1250 (the best)" in lines
    assert "step 120: validation loss 0.2500 (best 0.1250 at step 100)" in lines
    for said in (str(tmp_path / "a.png"), "Warning: careful", "Finished: step 100 of 100", "x.safetensors"):
        assert said in told.out
    assert not told.err


def test_in_a_terminal_one_bar_shows_step_loss_speed_and_time_left(capsys, tmp_path):
    terminal = Terminal(quiet=False)
    terminal.on(Working("encoding", 1, 2))
    terminal.on(Working("encoding", 2, 2))
    terminal.on(Started(tmp_path, 40, 100, 56, 12345, "bf16", "cuda"))
    terminal.on(steps(41))
    terminal.on(Warned("in between"))
    terminal.on(steps(100, loss=1.5))
    terminal.on(Finished("stopped", 100, 200, Made(), ["Go on with: scion train"]))
    told = capsys.readouterr()
    assert "Going on at step 40 of 100" in told.out and "in between" in told.out
    assert "encoding " in told.err
    assert re.search(r"training  100% \|█{24}\| 100/100, loss 1\.0000  4\.00 steps/s  0 s left", told.err)
    assert "Stopped and kept: step 100 of 200" in told.out and "LoRA" not in told.out


def test_a_run_that_finished_early_says_why(capsys):
    why = "the validation loss has not improved since step 40"
    Terminal(quiet=True).on(Finished("finished", 60, 100, Made(), [], why))
    assert capsys.readouterr().out == f"\nFinished early: step 60 of 100, {why}\n"


def test_the_loss_that_is_shown_forgets_slowly_and_skips_what_is_not_finite(capsys):
    terminal = Terminal(quiet=True)
    terminal.on(steps(1, loss=1.0, total=2))
    terminal.on(steps(2, loss=float("nan"), total=2))
    assert "step 2/2  loss 1.0000" in capsys.readouterr().out
