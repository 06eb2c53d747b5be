"""Several folders as one dataset: each with its own settings, told apart by name, a single one as it always was."""

import pytest
import torch

from trainer_core.data.config import DatasetConfig, FolderConfig
from trainer_core.data.dataset import Dataset
from trainer_core.data.folders import explicit, names_of, scan_dataset
from trainer_core.data.report import report_lines
from trainer_core.data.sheet import TITLE, contact_sheet
from trainer_core.options import problems_of


@pytest.fixture
def two(kit, tmp_path):
    """A dataset of two folders, the second with settings of its own; changes are the dataset's settings."""
    kit.draw(kit.folder / "a.png", caption="one, red")
    kit.draw(kit.folder / "b.png", (64, 64), (0, 90, 200), "two, blue")
    kit.draw(tmp_path / "cats" / "a.png", (64, 64), (0, 200, 20), "a cat")

    def config(own=(), **settings):
        own = {"repeats": 3, "weight": 0.5, "trigger": "miu", "flip": True, **dict(own)}
        folder = FolderConfig(path=str(tmp_path / "cats"), **own)
        return DatasetConfig(path=str(kit.folder), trigger="zorb", folders=[folder], **settings)

    return config


def dataset_of(config, encoder=None, seed=7):
    scan = scan_dataset(config)
    assert not scan.problems
    dataset = Dataset(scan.items, config, seed, 16, 64)
    if encoder:
        dataset.encode(encoder)
    return dataset


def entries_of(dataset, epoch=0, batch_size=2):
    order = dataset.order(batch_size)
    plans = [order.batch(epoch * order.batches_per_epoch + n) for n in range(order.batches_per_epoch)]
    return [entry for plan in plans for entry in plan.entries]


def test_each_folder_has_its_own_repeats_captions_flips_and_weight(two, kit):
    dataset = dataset_of(two(), kit.Encoder())
    assert [item.key for item in dataset.items] == ["cats/a.png", "dataset/a.png", "dataset/b.png"]
    keys = [entry.key for entry in entries_of(dataset)]
    assert sorted(keys) == ["cats/a.png"] * 3 + ["dataset/a.png", "dataset/b.png"]
    flips, order = set(), dataset.order(2)
    for index in range(20 * order.batches_per_epoch):
        batch = dataset.load(order.batch(index))
        cats = [key == "cats/a.png" for key in batch.keys]
        assert (None if batch.weights is None else batch.weights.tolist()) == (
            [0.5 if cat else 1.0 for cat in cats] if any(cats) else None
        )
        for cat, text, view in zip(cats, batch.captions, batch.views, strict=True):
            assert text.startswith("miu, a cat" if cat else "zorb, ")
            flips.add((cat, view.flip))
    assert flips == {(True, True), (True, False), (False, False)}


def test_what_a_folder_does_not_set_is_as_the_dataset_has_it(two):
    first, cats = two(caption_dropout=0.3, repeats=2, crop="random").parts()
    assert (first.repeats, first.trigger, first.weight) == (2, "zorb", 1.0)
    assert (cats.repeats, cats.trigger, cats.caption_dropout, cats.crop) == (3, "miu", 0.3, "random")


def test_a_single_folder_has_the_keys_and_the_fingerprint_that_it_always_had(kit):
    kit.draw(kit.folder / "sub" / "a.png", caption="one")
    alone, by_list = kit.scan(), scan_dataset(DatasetConfig(folders=[FolderConfig(path=str(kit.folder))]))
    assert [item.key for item in alone.items] == ["sub/a.png"] == [item.key for item in by_list.items]
    assert alone.fingerprint == by_list.fingerprint
    assert alone.items[0].mask_digest == ""


def test_folders_of_one_name_are_told_apart():
    assert names_of([DatasetConfig(path=path) for path in ("/x/a", "/y/a/", "/z/b", "")]) == [
        "a",
        "a-2",
        "b",
        "pictures",
    ]


def test_problems_and_notes_of_every_folder_are_told_with_its_name(two, kit, tmp_path):
    (kit.folder / "a.txt").unlink()
    (tmp_path / "cats" / "a.png").write_bytes(b"nothing")
    said = scan_dataset(two()).problems
    assert [problem[:40] for problem in said] == [
        "in dataset: a.png: has no caption; write",
        "in cats: a.png: is no picture: its conte",
    ]


def test_a_picture_in_two_folders_is_noted(two, kit, tmp_path):
    (tmp_path / "cats" / "c.png").write_bytes((kit.folder / "a.png").read_bytes())
    (tmp_path / "cats" / "c.txt").write_text("again")
    assert "cats/c.png and dataset/a.png are the same picture; it counts in 2 folders." in [
        " and ".join(sorted(note.split(" are ")[0].split(" and "))) + " are " + note.split(" are ")[1]
        for note in scan_dataset(two()).notes
    ]


def test_the_fingerprint_tells_what_differs_from_the_dataset_and_no_paths(two):
    assert two(repeats=3).folders_decide() == [{"trigger": "miu", "flip": True, "weight": 0.5}]


def test_a_folder_with_everything_said_is_the_same_folder_in_another_dataset(two):
    moved = DatasetConfig(trigger="other", flip=True, folders=explicit(two()))
    assert [(p.trigger, p.flip, p.repeats, p.weight) for p in moved.parts()] == [
        ("zorb", False, 1, 1.0),
        ("miu", True, 3, 0.5),
    ]


def test_report_and_sheet_tell_what_each_folder_counts(two):
    dataset = dataset_of(two())
    lines = report_lines(scan_dataset(two()), dataset)
    assert "folder dataset: 2 pictures, repeats 1, weight 1" in lines
    assert "folder cats: 1 picture, repeats 3, weight 0.5" in lines
    assert "  dataset/a.png: zorb, one, red" in lines and "  cats/a.png: miu, a cat" in lines
    sheet = contact_sheet(dataset)
    assert sheet.shape == (2 * (TITLE + 160), 320, 3)
    assert sheet[:TITLE].min() < 0.5 < torch.median(sheet[:TITLE])


@pytest.mark.parametrize(("settings", "said"), [
    ({"folders": [FolderConfig(missing_captions="trigger")]}, "dataset.folders[0].missing_captions: 'trigger' needs"),
    ({"folders": [FolderConfig(), FolderConfig(repeats=0)]}, "dataset.folders[1].repeats: 0 is out of range: 1 to"),
    ({"folders": [FolderConfig(regularisation=True, trigger="x")]}, "dataset.folders[0].trigger: 'x', but a regular"),
    ({"caption_prefix": "a [trigger]"}, "dataset.caption_prefix: 'a [trigger]' holds [trigger], but there is no"),
    ({"caption_prefix": "a {b", "wildcards": True}, "dataset.caption_prefix: 'a {b' opens a wildcard that is not"),
    ({"caption_suffix": "(b:1.3)"}, "dataset.caption_suffix: '(b:1.3)' holds the prompt weight '(b:1.3)', which"),
    ({"caption_suffix": "a\nb"}, "dataset.caption_suffix: 'a\\nb' has a line break"),
    ({"caption_replace": ["no arrow"]}, "dataset.caption_replace: 'no arrow' is no replacement"),
    ({"caption_replace": [" => x"]}, "dataset.caption_replace: ' => x' is no replacement"),
    ({"mask": "folder"}, "dataset.mask_path: is empty, but mask is 'folder'"),
    ({"mask_path": "x"}, "dataset.mask_path: is given, but mask is 'off'"),
    ({"weight": 0.0}, "dataset.weight: 0 is out of range: above 0, at most 1000"),
])  # fmt: skip
def test_settings_of_folders_that_do_not_go_together_are_refused(settings, said):
    [problem] = problems_of(DatasetConfig(path="p", **settings), "dataset")
    assert problem.startswith(said)


def test_a_trigger_word_of_the_folders_own_is_enough_for_its_prefix():
    folders = [FolderConfig(path="a", trigger="x"), FolderConfig(path="b", trigger="y")]
    assert problems_of(DatasetConfig(caption_prefix="a [trigger],", folders=folders)) == []
