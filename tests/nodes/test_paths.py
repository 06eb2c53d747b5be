"""Where LoRAs and runs may lie: names from a workflow never lead out of the host's folders."""

import os

import pytest

MARK = "0123456789ab"
FINGERPRINT = MARK + "c" * 52


@pytest.fixture
def loras(host):
    return host.base / "models/loras"


def run_in(host, name, written_at=None):
    folder = host.base / "output/scion" / name
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    if written_at is not None:
        os.utime(folder / "run.json", (written_at, written_at))
    return folder


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mine", "mine.safetensors"),
        ("mine.safetensors", "mine.safetensors"),
        ("  mine ", "mine.safetensors"),
        ("sub/deeper/mine", "sub/deeper/mine.safetensors"),
        ("sub\\mine", "sub/mine.safetensors"),
        ("mine.v1.5", "mine.v1.5.safetensors"),
        ("mine.ckpt", "mine.ckpt.safetensors"),
        ("Größe 1, ü-_ (2)", "Größe 1, ü-_ (2).safetensors"),
    ],
)
def test_name_becomes_a_file_in_the_folder_of_loras(paths, loras, name, file):
    assert paths.lora_file(name) == loras / file
    assert list(loras.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "../mine",
        "sub/../../mine",
        "..\\mine",
        "/tmp/mine",
        "\\\\server\\mine",
        "C:\\mine",
        "C:mine",
        "a\x00b",
        "a\nb",
        "a\x1b[2J",
        "a?b",
        "a*b",
        'a"b',
        "<a>",
        "a|b",
        "sub//mine",
        "sub/",
        ".",
        ".hidden",
        "dot.",
        "sub /mine",
        "a" * 121,
        "",
        ".safetensors",
    ],
)
def test_name_that_leads_out_or_is_no_file_everywhere_is_refused(pack, paths, name):
    with pytest.raises(pack.BadInput) as refused:
        paths.lora_file(name)
    assert str(refused.value).startswith(f"name: {name!r} cannot be a file's name")


def test_link_that_leads_out_of_the_folder_is_refused(pack, paths, loras, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (loras / "out").symlink_to(tmp_path / "elsewhere")
    (loras / "file.safetensors").symlink_to(tmp_path / "elsewhere" / "x.safetensors")
    for name in ("out/mine", "file"):
        with pytest.raises(pack.BadInput, match=f"name: '{name}' leads out of .*; choose another"):
            paths.lora_file(name)


def test_folder_of_loras_may_itself_be_a_link(paths, loras, tmp_path):
    (tmp_path / "disk").mkdir()
    loras.rmdir()
    loras.symlink_to(tmp_path / "disk")
    assert paths.lora_file("sub/mine") == loras / "sub/mine.safetensors"


def test_file_is_listed_by_its_path_below_the_folder_and_the_host_looks_again(paths, host, loras):
    assert host.folders.get_filename_list("loras") == []
    (loras / "sub").mkdir()
    (loras / "sub/mine.safetensors").touch()
    listed = paths.lora_listed(loras / "sub/mine.safetensors")
    assert listed == os.path.join("sub", "mine.safetensors")
    assert host.folders.get_filename_list("loras") == [listed]


def test_new_run_is_called_after_the_lora_and_its_fingerprint(paths, host):
    assert paths.run_folder(FINGERPRINT, "hearts") == host.base / "output/scion" / f"hearts-{MARK}"
    assert not (host.base / "output/scion").exists()


def test_run_is_found_by_its_fingerprint_whatever_it_is_called(paths, host):
    folder = run_in(host, f"an older name-{MARK}")
    run_in(host, "hearts-ba9876543210")
    assert paths.run_folder(FINGERPRINT, "hearts") == folder


def test_of_several_runs_the_one_written_last_is_found(paths, host):
    run_in(host, f"hearts-{MARK}", 1000)
    newest = run_in(host, f"hearts-{MARK}-2", 3000)
    run_in(host, f"other-{MARK}", 2000)
    (host.base / "output/scion" / f"zz-{MARK}").mkdir()
    assert paths.run_folder(FINGERPRINT, "hearts") == newest


def test_folder_that_only_begins_like_a_run_is_not_taken_for_it(paths, host):
    run_in(host, f"hearts-{MARK}-copy")
    run_in(host, f"hearts-{MARK}0")
    assert paths.run_folder(FINGERPRINT, "hearts").name == f"hearts-{MARK}"


def test_run_is_known_by_its_folders_name(paths, host):
    folder = run_in(host, f"a name-{MARK}")
    assert paths.run_by_id(folder.name) == folder


@pytest.mark.parametrize(
    "run", ["..", ".", "", "a/b", "a\\b", "unknown", "empty", "a\x00", "x" * 201, "../scion/there"]
)
def test_run_that_is_none_is_not_found(paths, host, run):
    run_in(host, "there")
    run_in(host, "a/b")
    (host.base / "output/scion/empty").mkdir()
    (host.base / "output/run.json").touch()
    (host.base / "output/scion/run.json").touch()
    assert paths.run_by_id(run) is None


def test_pictures_of_a_run_are_named_as_the_page_asks_for_them(pack, host):
    folder = run_in(host, "hearts")
    shown = pack("nodes.host.pictures").shown([folder / "samples/0001.png"])
    assert shown == [{"filename": "0001.png", "subfolder": "scion/hearts/samples", "type": "output"}]


def test_pictures_are_read_as_the_host_passes_them_on(pack, picture, tmp_path):
    files = [picture(tmp_path / f"{n}.png", None, (255, 51 * n, 0), (8, 4)) for n in range(2)]
    read = pack("nodes.host.pictures").read_pictures(files)
    assert (tuple(read.shape), str(read.dtype)) == ((2, 4, 8, 3), "torch.float32")
    assert read[1, 0, 0].tolist() == pytest.approx([1.0, 0.2, 0.0])
