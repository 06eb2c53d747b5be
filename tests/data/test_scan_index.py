"""What a scan found out is remembered beside a cache on the disk, and only as long as it is true."""

import os
import sqlite3
import time

import pytest

from trainer_core.data import captions, scan, scan_index


@pytest.fixture
def opened(monkeypatch):
    """The names of the pictures and texts that scanning opens."""
    names = []
    check, read = scan.check_picture, captions.read_text
    monkeypatch.setattr(scan, "check_picture", lambda path: names.append(os.path.basename(path)) or check(path))
    monkeypatch.setattr(captions, "read_text", lambda path: names.append(path.name) or read(path))
    return names


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.setattr(scan_index, "SETTLED", 0.0)
    return {"cache": "disk", "cache_path": str(tmp_path / "cache")}


def test_a_second_scan_opens_only_what_has_changed_and_finds_the_same(kit, settings, opened):
    first = kit.five().scan(**settings)
    assert len(opened) == 10
    opened.clear()
    assert kit.scan(**settings) == first and opened == []
    kit.write("1.txt", "another caption")
    kit.draw(kit.folder / "2.png", colour=(0, 0, 0))
    kit.draw(kit.folder / "new.png", caption="new")
    again = kit.scan(**settings)
    assert sorted(opened) == ["1.txt", "2.png", "new.png", "new.txt"]
    assert again == kit.scan(cache="memory") and again.fingerprint != first.fingerprint


def test_a_file_with_its_old_time_and_size_put_back_is_opened_again(kit, settings, opened):
    kit.draw(kit.folder / "a.bmp", colour=(9, 9, 9), caption="a")
    before = (kit.folder / "a.bmp").stat()
    first = kit.scan(**settings)
    time.sleep(0.02)
    kit.draw(kit.folder / "a.bmp", colour=(90, 90, 90), caption="a")
    os.utime(kit.folder / "a.bmp", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (kit.folder / "a.bmp").stat().st_size == before.st_size
    assert kit.scan(**settings).items[0].digest != first.items[0].digest


def test_what_was_written_just_now_is_not_remembered(kit, tmp_path, opened):
    # It could be written once more within the same tick of the file system's clock.
    settings = {"cache": "disk", "cache_path": str(tmp_path / "cache")}
    kit.five().scan(**settings)
    kit.scan(**settings)
    assert len(opened) == 20


def test_damaged_pictures_are_named_at_every_scan(kit, settings):
    kit.five()
    (kit.folder / "0.png").write_bytes(b"no picture")
    problems = kit.scan(**settings).problems
    assert len(problems) == 1 and kit.scan(**settings).problems == problems


def test_settings_apply_to_what_is_remembered(kit, settings):
    kit.five()
    (kit.folder / "0.txt").unlink()
    assert kit.scan(**settings).problems
    named = kit.scan(**settings, missing_captions="name", repeats=3)
    assert (named.items[0].caption, named.items[0].repeats) == ("0", 3)


def test_without_a_cache_on_the_disk_nothing_is_written(kit, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for cache in ("memory", "off"):
        kit.five().scan(cache=cache, cache_path=str(tmp_path / "cache"))
    assert not (tmp_path / "cache").exists() and not (tmp_path / "home").exists()


@pytest.mark.parametrize("damage", ["text", "cut", "locked", "folder", "lies"])
def test_a_damaged_index_costs_time_and_nothing_else(kit, settings, tmp_path, damage, opened):
    first, path = kit.five().scan(**settings), tmp_path / "cache" / scan_index.NAME
    opened.clear()
    holder = None
    if damage == "text":
        path.write_text("this is no database, whatever its name says")
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:4100])
    elif damage == "folder":
        path.unlink()
        path.mkdir()
    elif damage == "lies":
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE files SET size = size + 1, caption = 7, width = 'wide'")
    else:
        holder = sqlite3.connect(path)
        holder.execute("BEGIN EXCLUSIVE")
    assert kit.scan(**settings) == first and len(opened) == 10
    if holder:
        holder.close()
    if damage in ("text", "cut"):
        kit.scan(**settings)
        opened.clear()
        assert kit.scan(**settings) == first and opened == []


def test_an_index_of_another_version_or_of_many_gone_files_begins_anew(kit, settings, opened, monkeypatch):
    kit.five().scan(**settings)
    for name, value in (("FORMAT", scan_index.FORMAT + 1), ("PAGES_MOST", 0)):
        opened.clear()
        monkeypatch.setattr(scan_index, name, value)
        kit.scan(**settings)
        assert len(opened) == 10
