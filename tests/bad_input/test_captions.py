"""Tables and captions: what they name, how they are written, and whom they lead to."""

import json
import os
import sys

import pytest


def csv(*rows):
    return "file_name,text\n" + "".join(f"{row}\n" for row in rows)


def jsonl(name):
    return json.dumps({"file_name": name, "text": "x"})


@pytest.mark.parametrize(
    ("table", "content", "said"),
    [
        pytest.param(
            "metadata.csv",
            csv("none.png,x"),
            ["metadata.csv: line 2: file_name 'none.png' does not exist", "correct the name"],
            id="a file that is not there",
        ),
        pytest.param(
            "metadata.csv",
            csv("a.png,x", "a.png,y"),
            ["line 3: a.png has another caption than on line 2", "keep one"],
            id="one picture with two captions",
        ),
        pytest.param(
            "metadata.csv",
            "file_name,caption\na.png,x\n",
            ["metadata.csv: has no column 'text'", "file_name,caption", "must be: file_name,text"],
            id="no text column",
        ),
        pytest.param("metadata.csv", "text\nx\n", "has no column 'file_name'", id="no file_name column"),
        pytest.param(
            "metadata.csv",
            csv("a.png,x").encode("utf-16"),
            "metadata.csv: is UTF-16 text; save it as UTF-8",
            id="UTF-16",
        ),
        pytest.param(
            "metadata.csv",
            csv("a.png,x\0y"),
            ["metadata.csv: holds NUL bytes", "save it as UTF-8"],
            id="a NUL byte",
        ),
        pytest.param("metadata.csv", csv("a.png,é").encode("latin-1"), "is not UTF-8 text (byte 0xe9", id="Latin-1"),
        pytest.param("metadata.csv", "", "metadata.csv: is empty; write a file_name and a text", id="an empty table"),
        pytest.param("metadata.csv", csv("a.png,x,y"), ["line 2: has more fields", "double quotes"], id="a bare comma"),
        pytest.param("metadata.csv", csv("a.png"), "line 2: has fewer fields than the first line", id="too few fields"),
        pytest.param("metadata.csv", csv('a.png,"x'), "metadata.csv: line 2: is not CSV", id="an open quote"),
        pytest.param("metadata.csv", csv("", "", "a.png"), "line 4: has fewer fields", id="behind blank lines"),
        pytest.param("metadata.csv", "\n\n" + csv("a.png"), "line 4: has fewer fields", id="blank lines in front"),
        pytest.param(
            "metadata.csv",
            csv('a.png,"one\n\nthree"', "none.png,x"),
            "line 5: file_name 'none.png' does not exist",
            id="behind a caption of three lines",
        ),
        pytest.param(
            "metadata.csv", csv("", 'a.png,"one', 'two",x'), "line 3: has more fields", id="a row of two lines"
        ),
        pytest.param("metadata.csv", csv("", "a.png,x", 'b.png,"y'), "line 4: is not CSV", id="a later open quote"),
        pytest.param("metadata.csv", csv("../a.png,x"), ["'../a.png' leads out of", "without '..'"], id="climbs out"),
        pytest.param("metadata.csv", csv("/etc/passwd,x"), "'/etc/passwd' leads out of the dataset's", id="absolute"),
        pytest.param("metadata.jsonl", jsonl("C:\\a.png"), "leads out of the dataset's folder", id="a Windows drive"),
        pytest.param("metadata.jsonl", jsonl("\\\\host\\a.png"), "leads out of the dataset's", id="a network share"),
        pytest.param("metadata.jsonl", jsonl(""), "is no file name", id="an empty name"),
        pytest.param("metadata.jsonl", jsonl("a\0.png"), "file_name 'a\\x00.png' is no file name", id="NUL in a name"),
        pytest.param("metadata.jsonl", "{", "metadata.jsonl: line 1: is not JSON", id="torn JSON"),
        pytest.param(
            "metadata.jsonl", '{"file_name": "a.png"}', "line 1: needs a file_name and a text", id="JSON without text"
        ),
        pytest.param("train/metadata.csv", csv(), "more than one metadata table; keep one", id="two tables"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_with_its_line(refused, words, bad, table, content, said):
    bad.draw("a.png")
    bad.write(table, content)
    if table.startswith("train"):
        bad.write("metadata.csv", csv("a.png,x"))
    refused(words(bad.folder), said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param("a thing ".encode("utf-16"), "a.txt: is UTF-16 text; save it as UTF-8", id="UTF-16"),
        pytest.param(b"a\0b", ["a.txt: holds NUL bytes", "save it as UTF-8"], id="a NUL byte"),
        pytest.param("é".encode("latin-1"), ["a.txt: is not UTF-8 text", "save it as UTF-8"], id="Latin-1"),
        pytest.param("word " * 10_000, "characters (at most 20,000); shorten it", id="10,000 words"),
        pytest.param("x" * 200_000, "a.txt: is too large for a caption (at most 20,000", id="200,000 characters"),
        pytest.param("a [trigger]", ["a.png: its caption holds [trigger]", "set trigger"], id="no trigger word"),
    ],
)
def test_a_caption_that_cannot_be_used_is_refused_by_its_files_name(refused, words, bad, content, said):
    bad.draw("a.png", caption=None)
    bad.write("a.txt", content)
    refused(words(bad.folder), said)


def test_a_table_that_is_asked_for_and_not_there_is_refused(refused, words, bad):
    bad.draw("a.png")
    refused(words(bad.folder, **{"dataset.captions": "metadata"}), "has no metadata.csv or metadata.jsonl")


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_linked_table_is_refused(refused, words, bad, tmp_path):
    bad.draw("a.png")
    (tmp_path / "metadata.csv").write_text(csv("a.png,x"))
    os.symlink(tmp_path / "metadata.csv", bad.folder / "metadata.csv")
    refused(words(bad.folder), "metadata.csv: is a link that leads out of the dataset's folder; copy the file")


def test_a_row_that_is_there_twice_counts_once_with_a_note(scion, words, bad):
    bad.draw("a.png", caption=None)
    bad.write("metadata.csv", csv("a.png,x", "a.png,x"))
    code, out, errors = scion(*words(bad.folder))
    assert code == 0, errors
    assert "line 3: a.png is listed on line 2 already; it counts once" in out
