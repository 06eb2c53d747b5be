"""Files are whole or absent, and what is not JSON is refused with its place."""

import pytest

from trainer_core import files
from trainer_core.errors import BadInput, ScionError


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, failing):
    files.write_text(tmp_path / "file", "old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, failing, fail)
    with pytest.raises(ScionError, match="No space left"):
        files.write_text(tmp_path / "file", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path):
    (tmp_path / ".scion-0123456789abcdef.part").write_bytes(b"half a file")
    (tmp_path / "mine.part").write_bytes(b"")
    assert files.remove_partial(tmp_path) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["mine.part"]


def test_json_is_read_back_and_what_is_not_json_is_refused_with_its_place(tmp_path):
    path = tmp_path / "state.json"
    files.write_json(path, {"step": 5, "name": "Zoë"})
    assert files.read_json(path) == {"step": 5, "name": "Zoë"}
    path.write_bytes(b"\xef\xbb\xbf[1]")
    assert files.read_json(path) == [1]
    for content, message in ((b"", "empty"), (b'{\n"a": }', "line 2, column 6"), (b"\xff\xfe", "not JSON")):
        path.write_bytes(content)
        with pytest.raises(BadInput, match=message):
            files.read_json(path)
    with pytest.raises(ValueError):
        files.write_json(path, float("nan"))
    assert path.read_bytes() == b"\xff\xfe"
