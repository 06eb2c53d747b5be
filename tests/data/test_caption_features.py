"""What a caption's own words ask for: replacements, wildcards, prompt weights, and where prefix and suffix go."""

from collections import Counter

import pytest
from PIL import Image

from trainer_core.data import caption_features as features
from trainer_core.data.captions import caption_for, fixed_caption, is_live, prepared
from trainer_core.data.config import DatasetConfig
from trainer_core.data.items import Item


def item(caption, key="a.png"):
    return Item(key, Image.new("RGB", (8, 8)), caption, 8, 8, 1, "0" * 64)


def showings(caption, count, **settings):
    return [caption_for(item(caption), DatasetConfig(**settings), 0, epoch, 0) for epoch in range(count)]


@pytest.mark.parametrize(("caption", "entries", "expected"), [
    ("a Dog in masks", ["dog => cat", "mask => hat"], "a cat in masks"),
    ("red, big, old", ["big =>"], "red, old"),
    ("big, red, big", ["BIG => "], "red"),
    ("a b", ["a => b", "b => c"], "c c"),
    (r"a dog", [r"dog => \1 $"], r"a \1 $"),
    ("一只狗", ["狗 => 猫"], "一只猫"),
])  # fmt: skip
def test_whole_words_are_replaced_in_any_case_one_after_another(caption, entries, expected):
    assert fixed_caption(item(caption), DatasetConfig(caption_replace=entries)) == expected


@pytest.mark.parametrize(("caption", "expected"), [
    ("a {red|blue} dog", ["a red dog", "a blue dog"]),
    ("{a|b {c|d}}{e|}", ["ae", "a", "b ce", "b c", "b de", "b d"]),
    ("{lone}", ["lone"]),
    ("no wildcard | here", ["no wildcard | here"]),
    ("a {|big} dog", ["a dog", "a big dog"]),
])  # fmt: skip
def test_a_wildcard_stands_for_each_of_its_alternatives(caption, expected):
    config = DatasetConfig(wildcards=True)
    assert prepared(item(caption), config) == expected
    assert fixed_caption(item(caption), config) == expected[0]
    assert set(showings(caption, 100, wildcards=True)) == set(expected)
    assert fixed_caption(item(caption), DatasetConfig()) == caption


def test_wildcards_are_drawn_evenly_and_leave_what_dropout_and_shuffling_draw():
    drawn = Counter(showings("{a|b|c}", 900, wildcards=True))
    assert all(250 < drawn[letter] < 350 for letter in "abc")
    plain = showings("x, y, z, u", 40, shuffle_tags=True, caption_dropout=0.3)
    wild = showings("{x|w}, y, z, u", 40, shuffle_tags=True, caption_dropout=0.3, wildcards=True)
    assert [text.replace("w", "x") for text in wild] == plain and wild != plain


def test_more_captions_than_sixteen_are_not_prepared():
    config = DatasetConfig(wildcards=True)
    assert len(prepared(item("{a|b}{a|b}{a|b}{a|b}"), config)) == 16
    assert is_live(item("{a|b}{a|b}{a|b}{a|b}{a|b}"), config)
    assert prepared(item("{a|b}" * 3000), config) == []


@pytest.mark.parametrize(("caption", "said"), [
    ("a {b", "opens a wildcard that is not closed"),
    ("a } b", "closes a wildcard that is not open (before '} b')"),
    ("{" * 5000, "more than 10 deep"),
])  # fmt: skip
def test_wildcards_that_do_not_close_are_refused(caption, said):
    with pytest.raises(ValueError) as refused:
        features.parsed(caption)
    assert said in str(refused.value)


@pytest.mark.parametrize(("caption", "weight", "plain"), [
    ("(red hat:1.3) dog", "(red hat:1.3)", "red hat dog"),
    ("((a b:1.2):0.8), [old: 0.5]", "(a b:1.2)", "a b, old"),
    ("(长发:1.2)", "(长发:1.2)", "长发"),
    ("hatsune miku (vocaloid)", None, None),
    ("at (10:30), (16:9)", None, None),
    (r"\(escaped:1.2\)", None, None),
    ("a photo of [trigger]", None, None),
])  # fmt: skip
def test_prompt_weights_are_told_from_parentheses(caption, weight, plain):
    assert features.weight_in(caption) == weight
    assert features.without_weights(caption) == (plain or caption)


@pytest.mark.parametrize(("settings", "expected"), [
    ({}, "zorb, a dog"),
    ({"caption_prefix": "photo of", "caption_suffix": "sharp"}, "photo of zorb, a dog sharp"),
    ({"caption_suffix": ", sharp"}, "zorb, a dog, sharp"),
    ({"caption_prefix": "a photo of [trigger],"}, "a photo of zorb, a dog"),
    ({"caption_suffix": "by zorb"}, "a dog by zorb"),
    ({"caption_replace": ["dog => [trigger] {cat|fox}"], "wildcards": True}, "a zorb cat"),
])  # fmt: skip
def test_prefix_and_suffix_stand_around_the_caption_with_its_trigger(settings, expected):
    assert fixed_caption(item("a dog"), DatasetConfig(trigger="zorb", **settings)) == expected
    assert fixed_caption(item(""), DatasetConfig(trigger="zorb", **settings)) == ""


def test_prefix_and_suffix_may_hold_wildcards_and_weights_as_captions_do():
    config = DatasetConfig(wildcards=True, caption_weights="remove", caption_suffix=", {sharp|soft} (light:1.2)")
    thing = item("a {red|blue} dog")
    assert sorted(prepared(thing, config)) == sorted(
        f"a {colour} dog, {kind} light" for colour in ("red", "blue") for kind in ("sharp", "soft")
    )
    assert set(showings("x", 50, wildcards=True, caption_prefix="{a|b}")) == {"a x", "b x"}


def test_few_captions_are_encoded_in_advance_and_many_while_training(kit):
    kit.draw(kit.folder / "a.png", caption="{red|blue} (hat:1.2)")
    encoder = kit.Encoder()
    dataset = kit.dataset(encoder=encoder, wildcards=True, caption_weights="remove")
    assert sorted(encoder.captions) == ["", "blue hat", "red hat"] and not dataset.needs_encoder
    kit.draw(kit.folder / "b.png", caption="{a|b}" * 5)
    assert kit.dataset(encoder=kit.Encoder(), wildcards=True, caption_weights="literal").needs_encoder


def test_a_default_caption_stands_in_for_those_that_are_missing(kit):
    kit.draw(kit.folder / "a.png", caption="its own")
    kit.draw(kit.folder / "b.png", colour=(0, 90, 3))
    assert [i.caption for i in kit.scan(default_caption=" a  dog ").items] == ["its own", "a dog"]
