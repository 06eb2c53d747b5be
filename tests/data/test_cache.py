"""The cache gives back what was put, or nothing."""

import os
import time

import pytest
import torch

from trainer_core.data import cache
from trainer_core.data.cache import MemoryCache
from trainer_core.data.disk_cache import DiskCache, prune, usage
from trainer_core.errors import BadInput

KEYS = [cache.key_of("test", n) for n in range(6)]


def tensors(n=0, size=100):
    return {"latents": torch.full((size,), float(n)), "mask": torch.tensor([True, False])}


@pytest.mark.parametrize("on_disk", [True, False])
def test_what_was_put_comes_back(tmp_path, on_disk):
    store = DiskCache(tmp_path / "cache") if on_disk else MemoryCache()
    assert store.get(KEYS[0]) is None
    sources = {"a": torch.randn(2, 3), "b": torch.randn(3).bfloat16(), "empty": torch.zeros(0, 4), "n": torch.tensor(5)}
    store.put(KEYS[0], sources)
    found = store.get(KEYS[0])
    assert found.keys() == sources.keys() and all(torch.equal(found[k], sources[k]) for k in sources)


def test_a_later_change_of_the_source_does_not_reach_the_cache():
    store, source = MemoryCache(), torch.zeros(3)
    store.put(KEYS[0], {"a": source})
    source += 1
    assert store.get(KEYS[0])["a"].sum() == 0


def test_inference_tensors_come_back_as_plain_ones():
    store = MemoryCache()
    with torch.inference_mode():
        store.put(KEYS[0], {"a": torch.ones(2)})
    assert not store.get(KEYS[0])["a"].is_inference()


def file_of(folder, key):
    return folder / key[:2] / f"{key}.safetensors"


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "text"])
def test_a_damaged_file_counts_as_missing_and_is_written_anew(tmp_path, damage):
    DiskCache(tmp_path).put(KEYS[0], tensors(3))
    path = file_of(tmp_path, KEYS[0])
    whole = path.read_bytes()
    flipped = whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:]
    path.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "flipped": flipped, "text": b"hello"}[damage])
    store = DiskCache(tmp_path)
    assert store.get(KEYS[0]) is None
    store.put(KEYS[0], tensors(3))
    assert path.read_bytes() == whole and torch.equal(store.get(KEYS[0])["latents"], tensors(3)["latents"])


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    store = DiskCache(tmp_path)
    store.put(KEYS[0], tensors(1))
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        store.put(KEYS[0], tensors(2))
    assert store.get(KEYS[0])["latents"][0] == 1
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == [f"{KEYS[0]}.safetensors"]


def aged(folder, key, seconds):
    then = time.time() - seconds
    os.utime(file_of(folder, key), (then, then))


def test_pruning_frees_the_longest_unused_first_and_touches_nothing_else(tmp_path):
    store = DiskCache(tmp_path)
    for n, key in enumerate(KEYS):
        store.put(key, tensors(n))
        aged(tmp_path, key, 10_000 - n)
    mine = [tmp_path / "my_lora.safetensors", tmp_path / KEYS[0][:2] / "notes.safetensors"]
    for path in mine:
        path.write_text("mine")
    abandoned = tmp_path / KEYS[1][:2] / ".scion-0123456789abcdef.part"
    abandoned.write_text("x")
    os.utime(abandoned, (0, 0))
    files, size = usage(tmp_path)
    each = size // files
    freed = prune(tmp_path, limit=3 * each, keep=lambda key: key == KEYS[1])
    assert files == 6 and freed == (3, 3 * each)
    left = [n for n, key in enumerate(KEYS) if file_of(tmp_path, key).exists()]
    assert left == [1, 4, 5] and all(path.exists() for path in mine) and not abandoned.exists()
    assert prune(tmp_path, 0).files == 3 and usage(tmp_path) == (0, 0)


def test_a_full_cache_deletes_what_others_left_and_never_what_this_run_uses(tmp_path):
    old = DiskCache(tmp_path)
    for n in range(3):
        old.put(KEYS[n], tensors(n))
        aged(tmp_path, KEYS[n], 100_000 - n)
    each = usage(tmp_path).bytes // 3
    store = DiskCache(tmp_path, limit=3 * each)
    store.claim(KEYS[0])
    store.put(KEYS[3], tensors(3))
    assert [file_of(tmp_path, key).exists() for key in KEYS] == [True, False, True, True, False, False]
    store.put(KEYS[4], tensors(4))
    store.put(KEYS[5], tensors(5))
    assert [file_of(tmp_path, key).exists() for key in KEYS] == [True, False, False, True, True, True]


def test_reading_an_entry_marks_it_as_used(tmp_path):
    DiskCache(tmp_path).put(KEYS[0], tensors())
    aged(tmp_path, KEYS[0], 50_000)
    DiskCache(tmp_path).get(KEYS[0])
    assert time.time() - file_of(tmp_path, KEYS[0]).stat().st_mtime < 100


def test_full_memory_is_refused_with_the_way_out():
    store = MemoryCache(limit=1000)
    store.put(KEYS[0], tensors())
    store.put(KEYS[1], tensors())
    with pytest.raises(BadInput, match=r"cache_limit_gb.*'disk'"):
        store.put(KEYS[2], tensors())
