"""What becomes of a caption: trigger word, shuffled tags, dropout."""

import pytest
from PIL import Image

from trainer_core.data.captions import caption_for, fixed_caption, shuffles
from trainer_core.data.config import DatasetConfig
from trainer_core.data.items import Item


def item(caption, key="a.png"):
    return Item(key, Image.new("RGB", (8, 8)), caption, 8, 8, 1, "0" * 64)


@pytest.mark.parametrize(("caption", "trigger", "expected"), [
    ("a dog", "sks", "sks, a dog"),
    ("a Sks dog", "sks", "a Sks dog"),
    ("three masks", "sks", "sks, three masks"),
    ("一只狗", "狗", "一只狗"),
    ("a photo of [trigger]", "sks dog", "a photo of sks dog"),
    ("", "sks", ""),
    ("a dog", " ", "a dog"),
    ("c++ code", "c++", "c++ code"),
])  # fmt: skip
def test_the_trigger_is_put_in_front_unless_it_is_there(caption, trigger, expected):
    assert fixed_caption(item(caption), DatasetConfig(trigger=trigger)) == expected


def test_shuffled_tags_are_all_there_and_the_first_ones_and_the_trigger_stay():
    config = DatasetConfig(shuffle_tags=True, keep_tags=2, trigger="sks")
    thing = item("one, two, three, four, five, sks hat")
    said = [caption_for(thing, config, 3, epoch, 0) for epoch in range(30)]
    assert all(text.startswith("one, two, sks hat, ") for text in said)
    assert {tuple(sorted(text.split(", "))) for text in said} == {("five", "four", "one", "sks hat", "three", "two")}
    assert len(set(said)) == 6
    assert said == [caption_for(thing, config, 3, epoch, 0) for epoch in range(30)]


def test_captions_without_tags_to_move_stay_as_they_are():
    config = DatasetConfig(shuffle_tags=True, keep_tags=1)
    assert not shuffles(item("a dog"), config) and not shuffles(item("a, b"), config)
    assert caption_for(item("a,b"), config, 0, 0, 0) == "a,b"


def test_dropout_takes_its_share_and_differs_by_epoch_item_repeat_and_seed():
    config = DatasetConfig(caption_dropout=0.3, trigger="sks")
    dropped = [caption_for(item("x"), config, 1, epoch, 0) == "" for epoch in range(1000)]
    assert 250 < sum(dropped) < 350
    for other in (
        [caption_for(item("x"), config, 2, epoch, 0) == "" for epoch in range(1000)],
        [caption_for(item("x"), config, 1, epoch, 1) == "" for epoch in range(1000)],
        [caption_for(item("x", "b.png"), config, 1, epoch, 0) == "" for epoch in range(1000)],
    ):
        assert other != dropped


def test_dropout_does_not_change_how_tags_are_shuffled():
    thing = item("a, b, c, d, e")
    plain, dropping = DatasetConfig(shuffle_tags=True), DatasetConfig(shuffle_tags=True, caption_dropout=0.5)
    pairs = [(caption_for(thing, plain, 0, e, 0), caption_for(thing, dropping, 0, e, 0)) for e in range(40)]
    assert all(dropped in ("", text) for text, dropped in pairs) and any(not dropped for _, dropped in pairs)
