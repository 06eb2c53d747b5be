"""Checkpoints on the disk: which are kept, and what happens when the disk says no."""

import errno
import os

import pytest
import torch

from trainer_core.engine import checkpoints
from trainer_core.engine.checkpoints import Checkpoint
from trainer_core.errors import ScionError


def checkpoint(step):
    return Checkpoint(step, {"a.lora_A.default.weight": torch.full((2, 2), float(step))}, {"groups": []}, {})


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_checkpoint_just_written_outlives_later_ones_that_could_not_be_read(tmp_path):
    for step in (2, 3, 8, 9):
        checkpoints.save(tmp_path, checkpoint(step), keep=4)
    for torn in ("step-00000008", "step-00000009"):
        (tmp_path / torn / "state.json").write_text("{")
    heard = []
    assert checkpoints.latest(tmp_path, heard.append).step == 3 and len(heard) == 2
    written = checkpoints.save(tmp_path, checkpoint(5), keep=2)
    assert checkpoints.read(written).step == 5
    assert names(tmp_path) == ["step-00000003", "step-00000005"]


def test_steps_of_more_digits_are_later_ones(tmp_path):
    for step in (99_999_998, 99_999_999, 100_000_000):
        checkpoints.save(tmp_path, checkpoint(step), keep=2)
    assert names(tmp_path) == ["step-100000000", "step-99999999"]
    assert checkpoints.latest(tmp_path, pytest.fail).step == 100_000_000


def test_the_checkpoint_that_is_spared_outlives_the_last_ones(tmp_path):
    for step, spare in ((1, 1), (2, 2), (3, 2), (4, 2), (5, 2)):
        checkpoints.save(tmp_path, checkpoint(step), keep=2, spare=spare)
    assert names(tmp_path) == ["step-00000002", "step-00000004", "step-00000005"]
    checkpoints.save(tmp_path, checkpoint(6), keep=2)
    assert names(tmp_path) == ["step-00000005", "step-00000006"]


def test_the_moving_average_is_part_of_a_checkpoint(tmp_path):
    average = {"a.lora_A.default.weight": torch.full((2, 2), 0.5)}
    written = checkpoints.save(tmp_path, Checkpoint(1, checkpoint(1).parameters, {}, {}, averages=average), keep=1)
    assert torch.equal(checkpoints.read(written).averages["a.lora_A.default.weight"], torch.full((2, 2), 0.5))
    (written / "ema.safetensors").unlink()
    with pytest.raises(ScionError, match=r"ema\.safetensors"):
        checkpoints.read(written)


def test_folders_of_other_names_are_left_alone(tmp_path):
    (tmp_path / "step-by-step").mkdir()
    for step in (1, 2):
        checkpoints.save(tmp_path, checkpoint(step), keep=1)
    assert names(tmp_path) == ["step-00000002", "step-by-step"]
    assert checkpoints.latest(tmp_path, pytest.fail).step == 2


def refusing(monkeypatch, error, times):
    """os.replace that refuses to rename folders so many times; gives the list of its refusals."""
    refused, replace = [], os.replace

    def refuse(source, target):
        if os.path.isdir(source) and len(refused) < times:
            refused.append(target)
            raise error
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr(checkpoints, "PATIENCE", 0.2)
    return refused


def test_a_folder_that_a_virus_scanner_holds_for_a_moment_is_named_after_it(tmp_path, monkeypatch):
    refused = refusing(monkeypatch, PermissionError(errno.EACCES, "Access is denied"), 2)
    assert checkpoints.read(checkpoints.save(tmp_path, checkpoint(1), keep=1)).step == 1
    assert len(refused) == 2


@pytest.mark.parametrize(
    ("error", "remedy", "tries"),
    [
        (PermissionError(errno.EACCES, "Access is denied"), "close the program that holds the folder", (2, 99)),
        (OSError(errno.ENOSPC, "No space left on device"), "free space on the disk", (1, 1)),
        (OSError(errno.EROFS, "Read-only file system"), "choose another run folder", (1, 1)),
    ],
    ids=lambda value: getattr(value, "strerror", ""),
)
def test_what_the_disk_refuses_is_told_with_its_own_remedy_and_leaves_nothing(
    tmp_path, monkeypatch, error, remedy, tries
):
    refused = refusing(monkeypatch, error, 10**6)
    with pytest.raises(ScionError, match=remedy) as caught:
        checkpoints.save(tmp_path, checkpoint(1), keep=1)
    assert ("free space" in str(caught.value)) == (error.errno == errno.ENOSPC)
    assert tries[0] <= len(refused) <= tries[1]
    assert names(tmp_path) == []
