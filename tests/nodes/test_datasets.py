"""Which folders a workflow may name, and when the host must look at one again."""

import json
import logging
import os
import shutil

import pytest

BUILT_IN = "scion-example (built in)"


@pytest.fixture
def datasets(pack, monkeypatch):
    module = pack("nodes.host.datasets")
    monkeypatch.setattr(module, "LISTED_FOR", -1.0)  # each test has folders of its own
    return module


@pytest.fixture
def allow(host):
    """Writes scion.json."""

    def write(settings):
        path = host.base / "user/scion.json"
        path.write_text(settings if isinstance(settings, str) else json.dumps(settings), encoding="utf-8")
        return path

    return write


def test_the_built_in_example_is_offered_where_there_is_nothing_else(datasets):
    assert datasets.dataset_names() == [BUILT_IN]
    assert len(list(datasets.dataset_folder(BUILT_IN).glob("*.png"))) == 16


def test_folders_of_the_input_folder_are_offered_to_two_levels(datasets, host, picture):
    for name in ("dog/a.png", "people/alice/a.jpg", "people/bob/a.webp", "deep/er/still/a.png", "loose.png"):
        picture(host.base / "input" / name)
    (host.base / "input/empty").mkdir()
    names = datasets.dataset_names()
    assert names == ["deep", "deep/er", "dog", "people", "people/alice", "people/bob", BUILT_IN]
    assert datasets.dataset_folder("people/bob") == host.base / "input/people/bob"


def test_hidden_folders_are_not_offered(datasets, host, picture):
    picture(host.base / "input/.trash/a.png")
    picture(host.base / "input/cats/.old/a.png")
    assert datasets.dataset_names() == [BUILT_IN]


def test_table_of_captions_makes_a_dataset_where_pictures_lie_deeper(datasets, host):
    (host.base / "input/table").mkdir()
    (host.base / "input/table/metadata.csv").write_text("file_name,text\n")
    assert datasets.dataset_names() == ["table", BUILT_IN]


def test_registered_and_locally_allowed_folders_are_offered(datasets, host, allow, picture, tmp_path):
    picture(tmp_path / "registered/one/a.png")
    picture(tmp_path / "allowed/two/a.png")
    host.folders.folder_names_and_paths["datasets"] = [str(tmp_path / "registered")], set()
    allow({"datasets": [str(tmp_path / "allowed"), str(tmp_path / "missing")]})
    assert datasets.dataset_names() == ["one", "two", BUILT_IN]
    assert datasets.dataset_folder("two") == tmp_path / "allowed/two"


def test_first_root_wins_where_names_are_the_same(datasets, host, allow, picture, tmp_path):
    for root in (host.base / "input", tmp_path / "registered", tmp_path / "allowed"):
        picture(root / "same/a.png")
    host.folders.folder_names_and_paths["datasets"] = [str(tmp_path / "registered")], set()
    allow({"datasets": [str(tmp_path / "allowed")]})
    assert datasets.dataset_names() == ["same", BUILT_IN]
    assert datasets.dataset_folder("same") == host.base / "input/same"
    shutil.rmtree(host.base / "input/same")
    assert datasets.dataset_folder("same") == tmp_path / "registered/same"


@pytest.mark.parametrize("name", ["../x", "x/../x", "/x", "x/", "./x", "", ".", "X" * 300, "x\x00", "C:\\x"])
def test_name_that_is_not_offered_is_refused(pack, datasets, host, picture, name):
    picture(host.base / "input/x/a.png")
    picture(host.base / "x/a.png")
    with pytest.raises(pack.BadInput) as refused:
        datasets.dataset_folder(name)
    said = str(refused.value)
    assert said.startswith(f"folder: {name!r} is no dataset on this machine. Put the folder into one of ")
    assert str(host.base / "input") in said and str(host.base / "user/scion.json") in said


def test_absolute_path_of_an_offered_folder_is_refused(pack, datasets, host, picture):
    picture(host.base / "input/x/a.png")
    with pytest.raises(pack.BadInput, match="no dataset on this machine"):
        datasets.dataset_folder(str(host.base / "input/x"))


@pytest.mark.parametrize(
    "settings", ["{", "[]", '{"folders": []}', '{"datasets": "/"}', '{"datasets": 5}', '{"datasets": ["/a", ""]}']
)
def test_broken_local_settings_are_named_and_take_nothing_else_away(
    pack, datasets, host, allow, picture, caplog, settings
):
    picture(host.base / "input/x/a.png")
    path = allow(settings)
    with caplog.at_level(logging.WARNING):
        # The host asks for the names while it loads the nodes.
        assert datasets.dataset_names() == ["x", BUILT_IN]
    wanted = f'{path}: expected {{"datasets": ["/a/folder"]}}'
    assert wanted in caplog.text
    assert datasets.dataset_folder("x") == host.base / "input/x"
    with pytest.raises(pack.BadInput) as refused:
        datasets.dataset_folder("mine")
    assert str(refused.value).startswith(wanted)


def test_a_thousand_folders_are_offered_at_most(datasets, host):
    for number in range(1100):
        folder = host.base / "input" / f"{number:04}"
        folder.mkdir()
        (folder / "metadata.csv").touch()
    names = datasets.dataset_names()
    assert (len(names), names[999], names[1000]) == (1001, "0999", BUILT_IN)


def test_fingerprint_stays_while_no_file_changes(datasets, picture, tmp_path):
    file = picture(tmp_path / "set/deep/a.png")
    before = datasets.fingerprint(tmp_path / "set")
    file.read_bytes()
    os.utime(tmp_path / "set/deep", (1, 1))
    assert datasets.fingerprint(tmp_path / "set") == before


@pytest.mark.parametrize("change", ["size", "time", "new", "removed", "renamed"])
def test_fingerprint_changes_with(datasets, picture, tmp_path, change):
    file, other = picture(tmp_path / "set/deep/a.png"), tmp_path / "set/b.txt"
    before, now = datasets.fingerprint(tmp_path / "set"), file.stat()
    if change == "size":
        file.write_bytes(file.read_bytes() + b"\0")
        os.utime(file, ns=(now.st_atime_ns, now.st_mtime_ns))
    elif change == "time":
        os.utime(file, ns=(now.st_atime_ns, now.st_mtime_ns + 1000))
    elif change == "new":
        other.touch()
    elif change == "removed":
        file.with_suffix(".txt").unlink()
    else:
        file.rename(file.with_name("b.png"))
    assert datasets.fingerprint(tmp_path / "set") != before


def test_fingerprint_passes_over_a_link_that_leads_nowhere(datasets, picture, tmp_path):
    picture(tmp_path / "set/a.png")
    before = datasets.fingerprint(tmp_path / "set")
    (tmp_path / "set/b.png").symlink_to(tmp_path / "gone.png")
    assert datasets.fingerprint(tmp_path / "set") == before
