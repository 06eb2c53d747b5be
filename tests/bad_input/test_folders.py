"""A dataset's folder that is not there, holds nothing, or leads elsewhere; a run's folder that cannot be written."""

import os
import sys

import pytest

links = pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")


def outside(bad):
    path = bad.folder.parent / "outside.png"
    bad.draw(path, caption="secret")
    return path


@pytest.mark.parametrize(
    ("spoil", "path", "said"),
    [
        pytest.param(lambda bad: None, "nowhere", "nowhere: there is no such folder", id="missing"),
        pytest.param(lambda bad: None, "bad", ["bad: has no pictures (.jpg, .jpeg, .png", "subfolders"], id="empty"),
        pytest.param(lambda bad: bad.write("a.txt", "x"), "bad", "has no pictures", id="captions only"),
        pytest.param(lambda bad: bad.write("a.gif", "GIF89a"), "bad", "has no pictures", id="only other endings"),
        pytest.param(lambda bad: bad.draw(".hidden/a.png"), "bad", "has no pictures", id="only hidden ones"),
        pytest.param(lambda bad: bad.draw("a.png"), "bad/a.png", ["a.png: is a file", "give the folder"], id="a file"),
        pytest.param(lambda bad: None, "", "dataset.path: is empty; name the folder", id="no path"),
        pytest.param(lambda bad: None, "a\0b", "is no usable path", id="NUL in the path"),
        pytest.param(
            lambda bad: bad.draw("a.png", caption=None),
            "bad",
            ["a.png: has no caption; write it to a.txt", "missing_captions (empty, trigger, name)"],
            id="no caption",
        ),
        pytest.param(
            lambda bad: bad.draw("a.png", caption=" \n"), "bad", "a.png: has no caption", id="a blank caption"
        ),
        pytest.param(
            lambda bad: [bad.draw(f"{n}.png", caption=None) for n in range(5)],
            "bad",
            "5 of 5 pictures have no caption: 0.png, 1.png, 2.png and 2 more",
            id="no captions at all",
        ),
        pytest.param(
            lambda bad: (bad.draw("a.png"), os.symlink(outside(bad), bad.folder / "b.png")),
            "bad",
            ["b.png: is a link that leads out of the dataset's folder", "copy the file"],
            marks=links,
            id="a linked picture",
        ),
        pytest.param(
            lambda bad: (bad.draw("a.png", caption=None), os.symlink(outside(bad), bad.folder / "a.txt")),
            "bad",
            "a.txt: is a link that leads out of the dataset's folder",
            marks=links,
            id="a linked caption",
        ),
        pytest.param(
            lambda bad: (bad.draw("a.png"), os.symlink(outside(bad).parent, bad.folder / "b")),
            "bad",
            ["b: is a linked folder, which is not followed", "copy it"],
            marks=links,
            id="a linked folder",
        ),
        pytest.param(
            lambda bad: (bad.draw("a.png"), bad.write("a.caption", "another thing")),
            "bad",
            "a.caption and a.txt: two different captions for one picture; keep one",
            id="two captions for one picture",
        ),
    ],
)
def test_a_dataset_that_cannot_be_used_is_refused(refused, words, bad, tmp_path, spoil, path, said):
    spoil(bad)
    given = tmp_path / path if path and "\0" not in path else path
    refused(words(given), said)


@pytest.mark.parametrize(
    ("fill", "settings", "said"),
    [
        pytest.param(
            lambda bad: bad.draw("a.png", caption=None),
            {"dataset.missing_captions": "empty"},
            "1 picture",
            id="no captions, and that is allowed",
        ),
        pytest.param(
            lambda bad: (bad.draw("a.png"), bad.draw("a.jpg")), {}, "share the caption a.txt", id="two of one stem"
        ),
        pytest.param(lambda bad: bad.draw("🐈 cat.png"), {}, "1 picture", id="emoji and spaces in a name"),
        pytest.param(
            lambda bad: bad.draw("n" * 246 + ".png"),
            {},
            "1 picture",
            marks=pytest.mark.skipif(sys.platform == "win32", reason="paths end at 260 characters there"),
            id="a name of 250 characters",
        ),
        pytest.param(lambda bad: bad.draw("a.png", caption="word " * 3000), {}, "1 picture", id="3,000 words"),
        pytest.param(lambda bad: (bad.draw("a.png"), bad.write("b.txt", "x")), {}, "b.txt", id="a lonely caption"),
    ],
)
def test_an_odd_dataset_is_trained_on_and_not_touched(scion, contents, words, bad, tmp_path, fill, settings, said):
    fill(bad)
    before = contents(bad.folder)
    code, out, errors = scion(*words(bad.folder, **settings))
    assert code == 0, errors
    assert said in out
    assert (tmp_path / "here" / "mine" / "bad.safetensors").is_file()
    assert contents(bad.folder) == before


@pytest.mark.parametrize(
    ("out", "said"),
    [
        pytest.param("taken", "taken: cannot be written to", id="a file in its place"),
        pytest.param("taken/mine", "mine: cannot be written to", id="below a file"),
        pytest.param(
            "closed/mine",
            "cannot be written to (Permission denied); choose another folder",
            marks=pytest.mark.skipif(
                os.name == "nt" or os.geteuid() == 0, reason="nobody refuses root, nor are there such modes on Windows"
            ),
            id="no right to write",
        ),
    ],
)
def test_a_run_folder_that_cannot_be_written_is_refused(refused, words, pictures, tmp_path, out, said):
    (tmp_path / "taken").write_text("a file")
    (tmp_path / "closed").mkdir(mode=0o500)
    refused(words(pictures, out=tmp_path / out), [said, "choose another folder"])
