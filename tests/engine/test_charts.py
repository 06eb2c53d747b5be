"""Strips of previews: their pictures can be had without the captions around them."""

import json

import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from trainer_core.engine.charts import BOXES, TILE, save_strip, side_by_side

LONG = "a caption of many words that is broken into several lines below its narrow picture"


def plain(tones):
    """Pictures [N, 2 TILE, TILE, 3], each of one grey."""
    return torch.stack([torch.full((2 * TILE, TILE, 3), tone / 255) for tone in tones])


def test_the_pictures_of_a_strip_stand_side_by_side_without_captions_and_margins(tmp_path):
    tones = [20 * n for n in range(11)]
    save_strip(tmp_path / "strip.png", plain(tones), [LONG if n % 2 else "short" for n in range(11)])
    row = side_by_side(tmp_path / "strip.png")
    assert row.size == (11 * TILE, 2 * TILE)
    for n, tone in enumerate(tones):
        tile = row.crop((n * TILE, 0, (n + 1) * TILE, 2 * TILE)).convert("L")
        assert tile.getextrema() == (tone, tone), f"picture {n}"


def test_small_pictures_are_as_large_as_in_the_strip(tmp_path):
    save_strip(tmp_path / "strip.png", torch.rand(2, 16, 32, 3), ["a", "b"])
    assert side_by_side(tmp_path / "strip.png").size == (2 * TILE, TILE // 2)


@pytest.mark.parametrize(
    "note",
    [
        None,
        "{",
        "[]",
        "[[0, 0, 9, 8]]",
        "[[-1, 0, 4, 4]]",
        '[["0", 0, 4, 4]]',
        json.dumps([[0, 0, 8, 8]] * 2),
        "[[0, 0, 4]]",
    ],
)
def test_a_strip_that_does_not_say_where_its_pictures_lie_is_left_whole(tmp_path, note):
    said = PngInfo()
    if note:
        said.add_text(BOXES, note)
    Image.new("RGB", (8, 8)).save(tmp_path / "strip.png", pnginfo=said)
    assert side_by_side(tmp_path / "strip.png") is None


def test_a_damaged_strip_has_no_pictures(tmp_path):
    (tmp_path / "strip.png").write_bytes(b"\x89PNG picture")
    assert side_by_side(tmp_path / "strip.png") is None
