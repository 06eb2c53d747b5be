"""Every layout is understood, and everything wrong with a dataset is said at once."""

import json
import os
import sys

import pytest
from PIL import Image

from trainer_core.data import pictures
from trainer_core.data.config import DatasetConfig
from trainer_core.data.scan import scan_folder, scan_memory


def test_pictures_with_text_files_become_sorted_items(kit):
    kit.draw(kit.folder / "b.png", (40, 30), caption="a  cat\n")
    kit.draw(kit.folder / "a.jpg", (20, 50))
    kit.write("a.caption", "a dog")
    kit.draw(kit.folder / "deep" / "er" / "c.webp", caption="a bird")
    kit.draw(kit.folder / ".hidden" / "d.png", caption="no")
    scan = kit.scan()
    assert (scan.problems, scan.notes) == ([], [])
    assert [(i.key, i.caption, i.size, i.repeats) for i in scan.items] == [
        ("a.jpg", "a dog", "20×50", 1),
        ("b.png", "a cat", "40×30", 1),
        ("deep/er/c.webp", "a bird", "64×64", 1),
    ]


def test_captions_may_be_chinese_and_may_have_a_byte_order_mark(kit):
    kit.draw(kit.folder / "a.png")
    kit.draw(kit.folder / "b.png")
    kit.write("a.txt", b"\xef\xbb\xbf" + "一只狗".encode())
    kit.write("b.txt", "café")
    assert [item.caption for item in kit.scan().items] == ["一只狗", "café"]


def test_diffsynths_layout_is_read(kit):
    for n in range(3):
        kit.draw(kit.folder / "train" / f"0{n}.jpg")
    table = 'file_name,text\r\n00.jpg,a dog\r\n01.jpg,"a dog, sitting"\r\n02.jpg,狗\r\n'
    kit.write("train/metadata.csv", b"\xef\xbb\xbf" + table.encode())
    scan = kit.scan()
    assert scan.problems == []
    assert [(i.key, i.caption) for i in scan.items] == [
        ("train/00.jpg", "a dog"), ("train/01.jpg", "a dog, sitting"), ("train/02.jpg", "狗")
    ]  # fmt: skip


def test_jsonl_with_subfolders_and_backslashes_is_read(kit):
    kit.draw(kit.folder / "x" / "a.png")
    kit.draw(kit.folder / "b.png")
    rows = [{"file_name": "x\\a.png", "text": "one"}, {"file_name": "b.png", "text": "two", "more": 1}]
    kit.write("metadata.jsonl", "\n".join(map(json.dumps, rows)) + "\n")
    assert [(i.key, i.caption) for i in kit.scan().items] == [("b.png", "two"), ("x/a.png", "one")]


def test_kohyas_folders_repeat_their_pictures_and_years_do_not(kit):
    kit.draw(kit.folder / "10_dog" / "a.png", caption="a")
    kit.draw(kit.folder / "3_cat" / "more" / "b.png", caption="b")
    kit.draw(kit.folder / "2024_summer" / "c.png", caption="c")
    kit.draw(kit.folder / "plain" / "d.png", caption="d")
    scan = kit.scan(repeats=2)
    assert [item.repeats for item in scan.items] == [20, 2, 6, 2]
    assert any("2024_summer: not taken" in note for note in scan.notes)
    assert any("10_dog: each picture 10 times" in note for note in scan.notes)


def test_hostile_names_in_a_table_are_refused_one_by_one(kit, tmp_path):
    outside = kit.draw(tmp_path / "secret.png")
    kit.draw(kit.folder / "a.png")
    names = [str(outside), "../secret.png", "x/../../secret.png", "..\\secret.png", "C:\\secret.png", "\\\\host\\s.png"]
    names += ["a.png\0", "", "missing.png", "/etc/passwd"]
    kit.write("metadata.jsonl", "\n".join(json.dumps({"file_name": n, "text": "x"}) for n in [*names, "a.png"]))
    scan = kit.scan()
    assert [item.key for item in scan.items] == ["a.png"]
    assert [int(p.split("line ")[1].split(":")[0]) for p in scan.problems] == list(range(1, len(names) + 1))
    assert "does not exist" in scan.problems[8]
    assert all("leads out of" in scan.problems[n] for n in (0, 1, 2, 3, 4, 5, 9))


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_that_leave_the_folder_are_refused(kit, tmp_path):
    secret = kit.draw(tmp_path / "else" / "secret.png", caption="secret").parent
    kit.draw(kit.folder / "a.png", caption="a")
    os.symlink(secret / "secret.png", kit.folder / "b.png")
    os.symlink(secret / "secret.txt", kit.folder / "b.txt")
    os.symlink(secret, kit.folder / "c")
    scan = kit.scan()
    assert [item.key for item in scan.items] == ["a.png"]
    assert sorted(p.split(":")[0] for p in scan.problems) == ["b.png", "b.txt", "c"]
    table = kit.write("metadata.csv", "file_name,text\nb.png,x\nc/secret.png,x\na.png,x\n")
    scan = kit.scan()
    assert [item.key for item in scan.items] == ["a.png"]
    assert len(scan.problems) == 2 and all("leads out of" in p for p in scan.problems)
    table.rename(tmp_path / "metadata.csv")
    os.symlink(tmp_path / "metadata.csv", table)
    scan = kit.scan()
    assert scan.items == [] and len(scan.problems) == 1 and scan.problems[0].startswith("metadata.csv: is a link")


def test_every_damaged_file_is_reported_and_the_good_one_kept(kit):
    good = kit.draw(kit.folder / "good.jpg", (200, 200), caption="good").read_bytes()
    png = kit.draw(kit.folder / "p.png", (200, 200), caption="p").read_bytes()
    damaged = {
        "cut.jpg": good[: len(good) // 2],
        "cutpng.png": png[: len(png) // 2],
        "empty.png": b"",
        "text.png": b"this is no picture",
        "head.webp": b"RIFF\x00\x00\x00\x00WEBPVP8 ",
        "gif.png": b"GIF89a" + bytes(40),
    }
    for name, content in damaged.items():
        kit.write(name, content)
        kit.write(name.rsplit(".")[0] + ".txt", "x")
    scan = kit.scan()
    assert [item.key for item in scan.items] == ["good.jpg", "p.png"]
    assert [p.split(":")[0] for p in scan.problems] == sorted(damaged)
    said = {p.split(":")[0]: p for p in scan.problems}
    assert "0 bytes" in said["empty.png"] and "is no picture" in said["text.png"] and "cut off" in said["cut.jpg"]
    assert said["text.png"].endswith("; replace or delete it, or set skip_bad to leave it out.")
    kept = kit.scan(skip_bad=True)
    assert not any("set skip_bad" in note for note in kept.notes)
    assert kept.problems == [] and len(kept.items) == 2
    assert sum(note.startswith("left out: ") for note in kept.notes) == len(damaged)


def test_skipping_never_hides_that_nothing_is_left(kit):
    kit.write("a.png", b"")
    assert len(kit.scan(skip_bad=True).problems) == 1


def test_too_many_pixels_are_refused_before_they_are_decoded(kit, monkeypatch):
    kit.draw(kit.folder / "a.png", (100, 100), caption="a")
    monkeypatch.setattr(pictures, "PIXELS_MOST", 9_999)
    monkeypatch.setattr(Image.Image, "convert", None)
    assert "100×100 = 10,000 pixels (at most 9,999)" in kit.scan().problems[0]


@pytest.mark.parametrize(("content", "said"), [
    ("一只狗".encode("utf-16"), "UTF-16"),
    ("dog".encode("utf-16-le"), "NUL"),
    ("一只狗".encode("gbk"), "not UTF-8"),
    (b"a" * 90_000, "too large"),
    (b"a" * 20_001, "20,001 characters"),
])  # fmt: skip
def test_texts_that_cannot_be_captions_are_problems_that_name_the_file(kit, content, said):
    kit.draw(kit.folder / "a.png")
    kit.write("a.txt", content)
    scan = kit.scan(missing_captions="empty")
    assert scan.items == [] and len(scan.problems) == 1
    assert scan.problems[0].startswith("a.txt: ") and said in scan.problems[0]


@pytest.mark.parametrize(("table", "said"), [
    ("file_name,caption\na.png,x\n", "no column 'text'"),
    ("", "is empty"),
    ("file_name,text\na.png,a dog, sitting\n", "line 2: has more fields"),
    ("file_name,text\na.png\n", "line 2: has fewer fields"),
    ('file_name,text\na.png,"open\n', "is not CSV"),
    ("file_name,text\na.png,x\na.png,y\n", "line 3: a.png has another caption than on line 2"),
])  # fmt: skip
def test_what_is_wrong_with_a_table_is_said_with_its_line(kit, table, said):
    kit.draw(kit.folder / "a.png")
    kit.write("metadata.csv", table)
    assert any(p.startswith("metadata.csv: ") and said in p for p in kit.scan().problems)


def test_broken_json_lines_are_named(kit):
    kit.draw(kit.folder / "a.png")
    lines = ['{"file_name": "a.png"', '{"file_name": "a.png"}', "[1]", '{"file_name": "a.png", "text": "x"}']
    kit.write("metadata.jsonl", "\n".join(lines))
    scan = kit.scan()
    assert [p.split(": ")[1] for p in scan.problems] == ["line 1", "line 2", "line 3"]
    assert len(scan.items) == 1


def test_two_tables_are_a_problem_and_unlisted_pictures_a_note(kit):
    kit.draw(kit.folder / "a.png", caption="beside")
    kit.draw(kit.folder / "b.png")
    kit.write("metadata.csv", "file_name,text\na.png,listed\na.png,listed\n")
    scan = kit.scan()
    assert [item.caption for item in scan.items] == ["listed"]
    notes = " ".join(scan.notes)
    assert "listed on line 2 already" in notes and "does not list b.png" in notes and "1 text files" in notes
    assert [i.caption for i in kit.scan(captions="files", missing_captions="empty").items] == ["beside", ""]
    kit.write("train/metadata.jsonl", "")
    assert "keep one" in kit.scan().problems[0]


def test_pictures_that_share_a_text_or_are_equal_are_noted(kit):
    kit.draw(kit.folder / "a.png", caption="a")
    kit.draw(kit.folder / "a.bmp")
    kit.draw(kit.folder / "z.png", caption="z")
    kit.write("alone.txt", "x")
    scan = kit.scan()
    assert [item.caption for item in scan.items] == ["a", "a", "z"]
    notes = "\n".join(scan.notes)
    assert "a.bmp and a.png share the caption a.txt" in notes
    assert "a.png and z.png are the same picture" in notes and "alone.txt" in notes


def test_two_different_text_files_for_one_picture_are_a_problem(kit):
    kit.draw(kit.folder / "a.png", caption="one")
    kit.write("a.caption", "two")
    assert "two different captions" in kit.scan().problems[0]


def test_an_animated_picture_gives_its_first_frame_and_a_note(kit):
    frames = [kit.flat(colour) for colour in ((250, 0, 0), (0, 250, 0))]
    frames[0].save(kit.folder / "a.png", save_all=True, append_images=frames[1:])
    scan = kit.scan(missing_captions="empty")
    assert "a.png: is animated" in scan.notes[0]
    assert pictures.open_picture(scan.items[0]).getpixel((1, 1)) == (250, 0, 0)


@pytest.mark.parametrize(("settings", "caption"), [
    ({"missing_captions": "empty", "trigger": "sks"}, ""),
    ({"missing_captions": "trigger", "trigger": "sks"}, "sks"),
    ({"missing_captions": "name"}, "my red dog"),
    ({}, None),
])  # fmt: skip
def test_a_missing_or_blank_caption_is_treated_as_asked(kit, settings, caption):
    kit.draw(kit.folder / "my_red_dog.png", caption=" \n")
    scan = kit.scan(**settings)
    assert [item.caption for item in scan.items] == ([] if caption is None else [caption])
    assert ["my_red_dog.txt" in problem for problem in scan.problems] == ([True] if caption is None else [])


@pytest.mark.parametrize(("path", "said"), [("", "is empty"), ("/no/such", "no such folder"), ("a\0b", "no usable")])
def test_a_path_that_is_no_folder_is_a_problem(path, said):
    assert said in scan_folder(DatasetConfig(path=path)).problems[0]


def test_an_empty_folder_is_a_problem(kit):
    assert "has no pictures" in kit.scan().problems[0]


def test_control_characters_in_names_do_not_reach_the_terminal(kit):
    try:
        kit.write("a\x1b[31m.png", b"")
    except OSError:
        pytest.skip("such names do not exist here")
    assert "\x1b" not in kit.scan().problems[0]


def test_progress_is_told_and_a_stop_is_heeded(kit):
    for n in range(6):
        kit.draw(kit.folder / f"{n}.png", colour=(n, 0, 0), caption="x")
    told = []
    config = DatasetConfig(path=str(kit.folder))
    scan = scan_folder(config, watch=lambda done, total: told.append((done, total)), should_stop=lambda: len(told) == 2)
    assert told == [(1, 6), (2, 6)] and scan.stopped and len(scan.items) == 2
    assert not scan_folder(config).stopped


def test_the_fingerprint_follows_content_and_not_place(kit, tmp_path):
    kit.draw(kit.folder / "a.png", caption="a")
    before = kit.scan().fingerprint
    moved = tmp_path / "moved"
    kit.folder.rename(moved)
    kit.folder = moved
    assert kit.scan().fingerprint == before
    kit.write("a.txt", "b")
    assert kit.scan().fingerprint != before


def test_memory_needs_a_caption_for_each_picture(kit):
    assert "1 for 2 pictures" in scan_memory([kit.flat("red")] * 2, ["a"], DatasetConfig()).problems[0]
    assert "has no caption" in scan_memory([kit.flat("red")], None, DatasetConfig()).problems[0]
    assert scan_memory([], None, DatasetConfig()).problems


def test_many_pictures_without_captions_are_one_problem(kit):
    for number in range(5):
        kit.draw(kit.folder / f"{number}.png")
    assert kit.scan().problems == [
        "5 of 5 pictures have no caption: 0.png, 1.png, 2.png and 2 more; write it to 0.txt, or say what to do by "
        "missing_captions (empty, trigger, name)."
    ]
