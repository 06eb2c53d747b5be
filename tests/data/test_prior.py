"""Regularisation pictures: as many showings as the others, each in its turn, never held out, without the trigger."""

from collections import Counter
from pathlib import Path

import pytest

from trainer_core.data.buckets import Bucket
from trainer_core.data.config import DatasetConfig, FolderConfig
from trainer_core.data.dataset import Dataset
from trainer_core.data.folders import scan_dataset
from trainer_core.data.prior import Turns, shares
from trainer_core.data.views import view_for
from trainer_core.errors import BadInput

WIDE, TALL = Bucket(96, 48), Bucket(48, 96)


@pytest.fixture
def with_class(kit, tmp_path):
    """A dataset of four pictures shown twice, and a class of so many, in two shapes."""

    def make(count, encoder=None, **settings):
        for n in range(4):
            kit.draw(kit.folder / f"{n}.png", (64, 64), (60 * n, 20, 90), f"thing {n}")
        for n in range(count):
            kit.draw(tmp_path / "class" / f"{n}.png", (96, 48) if n % 3 else (64, 64), (3 * n, 90, 200), "a thing")
        folder = FolderConfig(path=str(tmp_path / "class"), regularisation=True, repeats=1)
        config = DatasetConfig(path=str(kit.folder), repeats=2, trigger="zorb", folders=[folder], **settings)
        scan = scan_dataset(config)
        assert not scan.problems
        dataset = Dataset(scan.items, config, 3, 16, 64)
        if encoder:
            dataset.encode(encoder)
        return dataset

    return make


def epochs_of(dataset, count, batch_size=2):
    order = dataset.order(batch_size)
    for epoch in range(count):
        first = epoch * order.batches_per_epoch
        plans = [order.batch(first + n) for n in range(order.batches_per_epoch)]
        assert {plan.epoch for plan in plans} == {epoch}
        yield [entry for plan in plans for entry in plan.entries]


@pytest.mark.parametrize(("count", "epochs"), [(1, 1), (3, 1), (8, 1), (30, 4)])
def test_an_epoch_shows_as_many_of_the_class_as_of_the_subject_and_all_in_their_turn(with_class, count, epochs):
    dataset, seen = with_class(count), Counter()
    for entries in epochs_of(dataset, epochs):
        prior = [entry.key for entry in entries if entry.key.startswith("class/")]
        assert len(prior) == 8 == len(entries) - len(prior)
        seen.update(prior)
        assert len(set(entries)) == len(entries)
    assert len(seen) == count
    assert dataset.order(2).prior_per_epoch == 8


def test_the_pictures_that_are_due_come_next_and_every_one_equally_often():
    turns = Turns({WIDE: [("a", 1), ("b", 2), ("c", 1)], TALL: [("d", 1)]}, 4, seed=1)
    assert turns.shares == {WIDE: 3, TALL: 1}
    shown = [turns.entry(WIDE, epoch, number) for epoch in range(8) for number in range(3)]
    assert Counter(key for key, _ in shown) == {"a": 6, "b": 12, "c": 6}
    assert sorted(repeat for key, repeat in shown if key == "b") == list(range(12))
    assert turns.entry(WIDE, 5, 1) == shown[16]


def test_shares_are_in_proportion_and_at_least_one():
    buckets = [Bucket(n, n) for n in range(1, 5)]
    counts = dict(zip(buckets, (100, 10, 1, 1), strict=True))
    assert list(shares(counts, 50).values()) == [44, 4, 1, 1]
    assert list(shares(counts, 2).values()) == [1, 1, 1, 1]
    assert sum(shares(counts, 1_000_003).values()) == 1_000_003


def test_the_class_has_no_trigger_and_its_own_weight(with_class, kit):
    dataset = with_class(3, kit.Encoder(), prior_weight=0.25)
    order = dataset.order(4)
    for index in range(order.batches_per_epoch):
        batch = dataset.load(order.batch(index))
        for key, text, weight in zip(batch.keys, batch.captions, batch.weights, strict=True):
            prior = key.startswith("class/")
            assert text == "a thing" if prior else text.startswith("zorb, thing")
            assert weight == (0.25 if prior else 1.0)


def test_no_picture_of_the_class_is_held_out(with_class, kit, tmp_path):
    dataset = with_class(6, holdout=3)
    assert len(dataset.holdout) == 3 and not any(dataset.is_prior(item) for item in dataset.holdout)
    twin = dataset.holdout[0]
    (tmp_path / "class" / "twin.png").write_bytes(Path(twin.picture).read_bytes())
    (tmp_path / "class" / "twin.txt").write_text("a thing")
    assert twin.digest not in {item.digest for item in with_class(6, holdout=3).holdout}


@pytest.mark.parametrize("count", [8, 16])
def test_every_variant_of_a_class_picture_is_seen_equally_often(with_class, count):
    dataset, seen = with_class(count, colour_jitter=0.5, variants=4), {}
    items = {item.key: item for item in dataset.items if dataset.is_prior(item)}
    for epoch, entries in enumerate(epochs_of(dataset, count)):
        for key, repeat in entries:
            if item := items.get(key):
                bucket = dataset.bucket_of(item)
                view = view_for(item, bucket, dataset.config_of(item), dataset.seed, epoch, repeat)
                seen.setdefault(key, Counter())[view] += 1
    # Of sixteen, in eight places, each is shown in every other epoch.
    assert len(seen) == count
    assert all(sorted(views.values()) == [2, 2, 2, 2] for views in seen.values())


def test_the_class_alone_is_nothing_to_train_on(kit):
    kit.draw(kit.folder / "a.png", caption="a thing")
    config = DatasetConfig(path=str(kit.folder), regularisation=True)
    dataset = Dataset(scan_dataset(config).items, config, 0, 16, 64)
    with pytest.raises(BadInput, match="dataset.regularisation: every folder is for regularisation; add one"):
        dataset.order(1)


def test_a_placeholder_in_a_class_caption_is_refused(kit):
    kit.draw(kit.folder / "a.png", caption="a [trigger] thing")
    [problem] = scan_dataset(DatasetConfig(path=str(kit.folder), regularisation=True, trigger="zorb")).problems
    assert problem == "a.png: its caption holds [trigger], but it shows the class (regularisation); take it out."
