"""A clock that jumps by years while a run goes on, or between two: no run, cache or file is harmed by it."""

import itertools
import os
import time

import pytest
import torch

from trainer_core import files, terminal
from trainer_core.data import disk_cache
from trainer_core.data.cache import key_of
from trainer_core.data.disk_cache import DiskCache
from trainer_core.engine.events import Checkpointed, Started, Steps
from trainer_core.files import is_abandoned
from trainer_core.lora_file.safe_io import read_header

YEAR = 365 * 86400.0
KEYS = [key_of("clock", n) for n in range(4)]


@pytest.fixture
def clock(monkeypatch):
    """Sets by how many seconds the wall clock is wrong from now on: at each look by the next, and then by the last."""
    true = time.time

    def wrong_by(*offsets):
        queue = itertools.chain(offsets, itertools.repeat(offsets[-1]))
        monkeypatch.setattr(time, "time", lambda: true() + next(queue))

    return wrong_by


def test_a_run_whose_clock_jumps_ends_in_the_same_bits_with_times_in_their_order(train, clock, same, tmp_path):
    settings = {"run.steps": 4, "run.checkpoint_every": 0, "run.checkpoint_minutes": 1e-6, "dataset.cache": "disk"}
    folders = {"dataset.cache_path": str(tmp_path / "cache")}
    straight, _ = train({**settings, **folders}, "straight")
    clock(10 * YEAR, *[-20 * YEAR, 5 * YEAR] * 200)
    train({**settings, **folders}, "jumping", stop_after=2)
    clock(-30 * YEAR)
    result, heard = train({**settings, **folders}, "jumping")
    assert heard.of(Started)[0].step == 2 and [event.step for event in heard.of(Checkpointed)] == [3, 4]
    assert same(straight, result)
    said = read_header(result.lora).metadata
    assert 0 < float(said["ss_training_started_at"]) <= float(said["ss_training_finished_at"])
    assert all(0 < event.seconds_per_step < 60 and 0 <= event.seconds_left < 240 for event in heard.of(Steps))


def used(folder, key, ago):
    path = folder / key[:2] / f"{key}.safetensors"
    os.utime(path, (time.time() - ago,) * 2)
    return path


def tensors():
    return {"latents": torch.ones(100)}


def filled(folder):
    store = DiskCache(folder)
    for key in KEYS[:2]:
        store.put(key, tensors())
    return disk_cache.usage(folder).bytes // 2


def test_a_clock_that_jumps_while_a_run_encodes_deletes_nothing_that_another_run_uses(tmp_path, clock):
    each = filled(tmp_path)
    store = DiskCache(tmp_path, limit=2 * each)
    clock(20 * YEAR)
    store.put(KEYS[2], tensors())
    assert all((tmp_path / key[:2] / f"{key}.safetensors").exists() for key in KEYS[:3])


def test_an_entry_from_the_future_is_in_use_for_an_hour_and_not_until_then(tmp_path):
    each = filled(tmp_path)
    paths = [used(tmp_path, key, -10 * YEAR) for key in KEYS[:2]]
    assert disk_cache.prune(tmp_path, each, idle=3600.0).files == 0
    assert all(abs(path.stat().st_mtime - time.time()) < 60 for path in paths)
    assert disk_cache.prune(tmp_path, each, idle=3600.0, now=time.time() + 3700).files == 1


def test_an_entry_in_use_is_marked_after_the_clock_was_put_back(tmp_path, clock, monkeypatch):
    filled(tmp_path)
    store = DiskCache(tmp_path)
    store.get(KEYS[0])
    path = used(tmp_path, KEYS[0], 5000)
    clock(-10 * YEAR)
    monkeypatch.setattr(disk_cache, "TOUCH_SECONDS", 1e-6)
    store.get(KEYS[0])
    assert path.stat().st_mtime > time.time() + 10 * YEAR - 100


def test_an_unfinished_file_of_a_living_writer_stays_whatever_the_clock_says(tmp_path, clock, monkeypatch):
    seen = []
    replace = os.replace

    def look(source, target):
        clock(20 * YEAR)
        seen.append(is_abandoned(files.Path(source)))
        replace(source, target)

    monkeypatch.setattr(os, "replace", look)
    files.write_text(tmp_path / "file", "whole")
    assert seen == [False] and (tmp_path / "file").read_text() == "whole"


def test_an_unfinished_file_of_a_dead_writer_goes_at_once_and_a_strangers_after_an_hour(tmp_path):
    dead = os.posix_spawn("/bin/true", ["true"], {}) if hasattr(os, "posix_spawn") else 2**22 - 1
    if hasattr(os, "posix_spawn"):
        os.waitpid(dead, 0)
    own = tmp_path / f".scion-{files._machine()}-{dead:x}-00.part"
    strangers = [tmp_path / ".scion-00000000-1-00.part", tmp_path / ".scion-0123456789abcdef.part"]
    for path in (own, *strangers):
        path.write_bytes(b"half")
    assert [is_abandoned(path) for path in (own, *strangers)] == [True, False, False]
    for path in strangers:
        os.utime(path, (time.time() - 3700,) * 2)
    assert all(is_abandoned(path) for path in strangers)


def test_the_bar_moves_on_after_the_clock_was_put_back(clock, capsys, monkeypatch):
    monkeypatch.setattr(terminal, "DRAW_EVERY", 0.0)
    drawing = terminal.Terminal(quiet=False)
    event = Steps(1, [0.5], 1e-4, 9, 0, 0.1, 0.8, 2**30)
    drawing.on(event)
    clock(-YEAR)
    for step in (2, 3, 4):
        drawing.on(Steps(step, [0.5], 1e-4, 9, 0, 0.1, 0.8, 2**30))
    assert "4/9" in capsys.readouterr().err
    drawing._close()
