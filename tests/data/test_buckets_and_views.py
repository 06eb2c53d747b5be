"""Pictures are grouped by shape with little lost, and cut, mirrored and coloured as drawn."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from trainer_core.data.buckets import Bucket, buckets_for, nearest_bucket
from trainer_core.data.config import DatasetConfig
from trainer_core.data.items import Item
from trainer_core.data.views import plain_view, render_view, view_for, views_for
from trainer_core.errors import BadInput


def item(width, height, key="a.png", repeats=1):
    return Item(key, Image.new("RGB", (width, height)), "", width, height, repeats, "0" * 64)


@pytest.mark.parametrize(("resolution", "step"), [(96, 8), (96, 16), (256, 16), (512, 64), (1024, 16), (1024, 64)])
def test_buckets_are_whole_steps_of_about_the_same_area_lying_and_standing(resolution, step):
    buckets = buckets_for(DatasetConfig(resolution=resolution), step, 9999)
    assert buckets[0] == (resolution, resolution) and len(set(buckets)) == len(buckets) >= 7
    for bucket in buckets:
        assert bucket.width % step == bucket.height % step == 0
        assert 0.8 <= bucket.width * bucket.height / resolution**2 <= 1.25
        assert Bucket(bucket.height, bucket.width) in buckets


def test_every_shape_of_photo_keeps_most_of_itself():
    buckets = buckets_for(DatasetConfig(), 64, 1024)
    for width, height in (
        (4000, 3000),
        (3000, 4000),
        (1920, 1080),
        (1000, 1000),
        (6000, 4000),
        (2400, 1000),
        (3000, 1000),
    ):
        assert plain_view(item(width, height), nearest_bucket(width, height, buckets)).kept > 0.88


def test_the_nearest_bucket_is_that_of_the_nearest_ratio_and_not_the_smallest():
    buckets = [Bucket(128, 128), Bucket(64, 128)]
    assert nearest_bucket(300, 400, buckets) == (128, 128)
    assert nearest_bucket(500, 1001, buckets) == (64, 128)


@pytest.mark.parametrize(("settings", "said"), [
    ({"resolution": 96, "bucket_step": 64}, "96 is too far from every multiple of 64 pixels; use 64 or 128"),
    ({"bucket_step": 24}, "24 is no multiple of 16"),
    ({"width": 100, "height": 64}, "width: 100 is no multiple of 16 pixels; use 96 or 112"),
])  # fmt: skip
def test_sizes_that_the_base_cannot_take_are_refused_with_the_remedy(settings, said):
    with pytest.raises(BadInput, match=said):
        buckets_for(DatasetConfig(**settings), 16, 512)


def test_without_buckets_or_with_a_fixed_size_there_is_one():
    assert buckets_for(DatasetConfig(buckets=False), 16, 512) == [(512, 512)]
    assert buckets_for(DatasetConfig(width=96, height=64), 16, 512) == [(96, 64)]


def test_the_middle_of_a_picture_is_kept_at_its_scale():
    stripes = np.zeros((64, 192, 3), np.uint8)
    stripes[:, 64:128] = 255
    view = plain_view(item(192, 64), Bucket(64, 64))
    assert (view.resized_width, view.left, view.top, view.scale) == (192, 64, 0, 1.0)
    pixels = render_view(Image.fromarray(stripes), view)
    assert pixels.dtype == torch.float32 and pixels.shape == (64, 64, 3) and bool((pixels == 1).all())


def test_a_view_is_what_resizing_first_and_cutting_then_gives():
    rows, columns = np.mgrid[0:120, 0:200]
    waves = np.stack([128 + 100 * np.sin(rows / 9), 128 + 100 * np.cos(columns / 7), rows + columns / 2], -1)
    picture = Image.fromarray(waves.clip(0, 255).astype(np.uint8))
    view = dataclasses.replace(plain_view(item(200, 120), Bucket(48, 48)), left=20)
    whole = picture.resize((view.resized_width, view.resized_height), Image.Resampling.LANCZOS)
    expected = torch.from_numpy(np.array(whole.crop((20, 0, 68, 48)))).float() / 255
    assert (render_view(picture, view) - expected).abs().max() <= 1.01 / 255


def test_an_extreme_panorama_needs_no_huge_picture_in_between():
    view = plain_view(item(20_000, 4), Bucket(512, 512))
    assert view.resized_width == 2_560_000
    assert render_view(Image.new("RGB", (20_000, 4), (9, 9, 9)), view).shape == (512, 512, 3)


def test_a_mirrored_view_is_the_mirror_of_the_cut_and_sdxl_is_told_where_that_is():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 100, 3), np.uint8))
    view = dataclasses.replace(plain_view(item(100, 64), Bucket(64, 64)), left=30)
    mirrored = dataclasses.replace(view, flip=True)
    assert torch.equal(render_view(picture, mirrored), render_view(picture, view).flip(1))
    assert (view.crop_top_left, mirrored.crop_top_left) == ((0, 30), (0, 6))
    assert (view.original_size, view.target_size) == ((64, 100), (64, 64))


def coloured(colour, **changes):
    view = dataclasses.replace(plain_view(item(16, 16), Bucket(16, 16)), **changes)
    picture = Image.new("RGB", (16, 16), colour)
    picture.paste((0, 0, 0), (0, 0, 8, 16))
    return render_view(picture, view)[0, 15]


def test_colour_changes_do_what_they_are_called():
    assert torch.allclose(coloured((100, 50, 150), brightness=1.2) * 255, torch.tensor([120.0, 60, 180]), atol=1e-3)
    assert torch.allclose(coloured((100, 50, 150), saturation=0.0).diff(), torch.zeros(2), atol=1e-6)
    assert coloured((100, 100, 100), contrast=1.5)[0] * 255 == pytest.approx(50 + 75, abs=0.1)
    turned = coloured((140, 110, 110), hue=1 / 3) * 255
    assert turned.argmax() != 0
    assert float(turned @ torch.tensor([0.299, 0.587, 0.114])) == pytest.approx(0.299 * 140 + 0.701 * 110, abs=0.1)
    assert torch.allclose(coloured((90, 90, 90), hue=0.2) * 255, torch.tensor(90.0), atol=0.2)


def test_views_are_drawn_within_the_picture_and_repeat_for_the_same_key():
    config = DatasetConfig(crop="random", colour_jitter=0.8, flip=True, variants=0)
    wide = item(300, 100)
    views = [view_for(wide, Bucket(64, 64), config, 1, epoch, 0) for epoch in range(300)]
    assert views == [view_for(wide, Bucket(64, 64), config, 1, epoch, 0) for epoch in range(300)]
    lefts = [view.left for view in views]
    assert min(lefts) <= 3 and max(lefts) >= 125 and max(lefts) <= 128
    assert 0.4 < np.mean([view.flip for view in views]) < 0.6
    for name in ("brightness", "contrast", "saturation"):
        values = [getattr(view, name) for view in views]
        assert 0.6 <= min(values) < 0.65 and 1.35 < max(values) <= 1.4
    assert 0.07 < max(view.hue for view in views) <= 0.08
    assert view_for(wide, Bucket(64, 64), config, 2, 0, 0) != views[0]
    assert view_for(item(300, 100, "b.png"), Bucket(64, 64), config, 1, 0, 0) != views[0]


def test_prepared_variants_are_each_seen_equally_often():
    config = DatasetConfig(crop="random", variants=4)
    wide = item(300, 100, repeats=2)
    prepared = views_for(wide, Bucket(64, 64), config, 5)
    seen = [view_for(wide, Bucket(64, 64), config, 5, epoch, repeat) for epoch in range(2) for repeat in range(2)]
    assert [seen.count(view) for view in prepared] == [1, 1, 1, 1]


def test_switching_one_random_setting_leaves_what_the_others_draw():
    both = DatasetConfig(crop="random", flip=True, variants=0)
    jittered = dataclasses.replace(both, colour_jitter=0.5)
    a, b = (view_for(item(300, 100), Bucket(64, 64), config, 1, 4, 0) for config in (both, jittered))
    assert (a.left, a.flip) == (b.left, b.flip) and a != b


def test_mirroring_alone_prepares_two_views_and_nothing_random_prepares_one():
    assert [v.flip for v in views_for(item(64, 64), Bucket(64, 64), DatasetConfig(flip=True), 0)] == [False, True]
    assert views_for(item(90, 64), Bucket(64, 64), DatasetConfig(), 0) == [plain_view(item(90, 64), Bucket(64, 64))]
    assert views_for(item(64, 64), Bucket(64, 64), DatasetConfig(colour_jitter=0.1, variants=0), 0) is None
