"""Masks follow their picture's view to the pixel, and every one that cannot be used is named."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from trainer_core.data.buckets import Bucket
from trainer_core.data.config import DatasetConfig, FolderConfig
from trainer_core.data.dataset import Dataset
from trainer_core.data.folders import scan_dataset
from trainer_core.data.masks import at_latents, render_mask, with_floor
from trainer_core.data.pictures import open_picture
from trainer_core.data.scan import scan_memory
from trainer_core.data.sheet import DIMMED, contact_sheet
from trainer_core.data.views import plain_view, render_view
from trainer_core.errors import BadInput


def blob(width, height):
    """A smooth light spot off the middle, uint8 [H, W]."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    return (255 * np.exp(-8 * ((x - 0.3) ** 2 + (y - 0.6) ** 2))).astype(np.uint8)


def half(width, height):
    """White on the left, black on the right."""
    mask = np.zeros((height, width), np.uint8)
    mask[:, : width // 2] = 255
    return mask


def save(path, pixels, **saving):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **saving)
    return path


@pytest.fixture
def masked(kit, tmp_path):
    """A scan of one picture that is grey, with a mask of that name in another folder where one is given."""

    def make(grey=None, name="a.png", **settings):
        save(kit.folder / "a.png", np.stack([blob(96, 64)] * 3, -1))
        (kit.folder / "a.txt").write_text("a thing")
        if grey is not None:
            save(tmp_path / "masks" / name, grey)
            settings = {"mask": "folder", "mask_path": str(tmp_path / "masks"), **settings}
        return scan_dataset(DatasetConfig(path=str(kit.folder), **settings))

    return make


@pytest.mark.parametrize(("bucket", "changes"), [
    (Bucket(96, 64), {}),
    (Bucket(64, 64), {"left": 3}),
    (Bucket(48, 96), {"left": 60, "flip": True}),
    (Bucket(64, 32), {"top": 7, "flip": True, "brightness": 0.4, "hue": 0.2}),
])  # fmt: skip
@pytest.mark.parametrize("scale", [1, 2])
def test_a_mask_is_resized_cut_and_mirrored_with_its_picture_and_not_coloured(masked, bucket, changes, scale):
    [item] = masked(blob(96 * scale, 64 * scale)).items
    view = dataclasses.replace(plain_view(item, bucket), **changes)
    mask = render_mask(item, view)
    pixels = render_view(open_picture(item), dataclasses.replace(view, brightness=1.0, hue=0.0))
    assert mask.shape == (bucket.height, bucket.width) == pixels.shape[:2]
    # Two filters, and twice the pixels, of a smooth spot.
    assert (mask - pixels[..., 0]).abs().max() < 0.02
    assert (mask.flip(1) - pixels[..., 0]).abs().max() > 0.1


def test_alpha_marks_what_is_opaque(kit):
    save(kit.folder / "a.png", np.dstack([np.full((64, 64, 3), 90, np.uint8), half(64, 64)]))
    [item] = kit.scan(mask="alpha", missing_captions="empty").items
    mask = render_mask(item, plain_view(item, Bucket(64, 64)))
    assert torch.equal(mask[:, :32], torch.ones(64, 32)) and torch.equal(mask[:, 32:], torch.zeros(64, 32))
    seen = np.asarray(open_picture(item))
    assert (seen[0, 0] == 90).all() and (seen[0, 63] == 255).all()


def test_a_latent_pixel_has_the_mean_of_its_area():
    mask = torch.rand(64, 96, generator=torch.Generator().manual_seed(0))
    found = at_latents(mask, torch.zeros(4, 8, 12))
    torch.testing.assert_close(found[2, 5], mask[16:24, 40:48].mean())
    assert torch.equal(at_latents(torch.ones(64, 96), torch.zeros(4, 8, 12)), torch.ones(8, 12))


def test_the_floor_is_what_counts_outside():
    mask = torch.tensor([0.0, 0.5, 1.0])
    assert with_floor(mask, 0.2).tolist() == pytest.approx([0.2, 0.6, 1.0])
    assert with_floor(mask, 0.0) is mask


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.bmp"])
def test_a_mask_may_have_another_ending(masked, name):
    assert len(masked(half(96, 64), name=name).items[0].mask_digest) == 64


def test_masks_lie_in_the_same_subfolders_and_are_no_pictures_of_the_dataset(kit):
    for name in ("a.png", "sub/a.png"):
        kit.draw(kit.folder / name, caption="a thing")
    save(kit.folder / "masks" / "a.png", half(64, 64))
    save(kit.folder / "masks" / "sub" / "a.png", 255 - half(64, 64))
    scan = kit.scan(mask="folder", mask_path=str(kit.folder / "masks"))
    assert [item.key for item in scan.items] == ["a.png", "sub/a.png"] and not scan.problems
    sums = [render_mask(item, plain_view(item, Bucket(64, 64)))[:, :32].mean().item() for item in scan.items]
    assert sums == [1.0, 0.0]


@pytest.mark.parametrize(("grey", "name", "settings", "said"), [
    (half(64, 64), "a.png", {}, "a.png: its mask a.png has 64×64 pixels, the picture 96×64, which is another shape"),
    (np.zeros((64, 96), np.uint8), "a.png", {}, "a.png: its mask a.png is all black, so that nothing"),
    (half(96, 64), "b.png", {}, "1 picture has no picture of the same name in mask_path: a.png; add what is missing"),
    (half(96, 64), "b.png", {"mask_path": "nowhere"}, "mask_path: nowhere: there is no such folder."),
    (None, "", {"mask": "alpha"}, "1 picture has no alpha channel: a.png; add what is missing, or set missing_masks"),
])  # fmt: skip
def test_a_mask_that_cannot_be_used_is_named(masked, grey, name, settings, said):
    assert any(problem.startswith(said) for problem in masked(grey, name=name, **settings).problems)


def test_a_damaged_mask_and_two_of_one_name_are_named(masked, tmp_path):
    masked(half(96, 64))
    (tmp_path / "masks" / "a.png").write_bytes(b"no picture")
    [problem] = masked(None, mask="folder", mask_path=str(tmp_path / "masks")).problems
    assert problem.startswith("a.png: its mask a.png is no picture: its content is none of JPEG")
    (tmp_path / "masks" / "a.png").rename(tmp_path / "masks" / "a.jpg")
    save(tmp_path / "masks" / "a.bmp", half(96, 64))
    found = masked(None, mask="folder", mask_path=str(tmp_path / "masks")).problems
    assert "a.png: has more than one mask (a.bmp and a.jpg); keep one." in found


def test_the_folder_of_the_pictures_is_no_folder_of_masks(kit):
    kit.draw(kit.folder / "a.png", caption="x")
    [problem, *_] = kit.scan(mask="folder", mask_path=str(kit.folder)).problems
    assert problem.startswith("mask_path: ") and problem.endswith("is the pictures' own folder; give another.")


def test_the_whole_picture_counts_where_a_mask_is_missing_and_that_is_allowed(masked):
    [item] = masked(half(96, 64), name="b.png", missing_masks="whole").items
    assert item.mask_digest == ""


def test_wired_pictures_have_alpha_and_no_folder():
    rgba = np.dstack([np.full((64, 64, 3), 90, np.uint8), half(64, 64)])
    config = DatasetConfig(mask="alpha", missing_captions="empty")
    [item] = scan_memory([rgba], None, config).items
    assert item.mask_digest == "alpha"
    config = DatasetConfig(mask="folder", mask_path="x", missing_captions="empty")
    assert any(
        "wired pictures have not; use 'alpha'" in problem for problem in scan_memory([rgba], None, config).problems
    )


def test_a_mask_is_part_of_the_fingerprint_and_of_what_is_cached(masked, kit, tmp_path):
    plain, left = masked(), masked(half(96, 64))
    right = masked(255 - half(96, 64))
    assert len({scan.fingerprint for scan in (plain, left, right)}) == 3
    encoder, folder = kit.Encoder(), str(tmp_path / "cache")
    shapes = []
    for scan, cache in ((plain, "disk"), (left, "disk"), (left, "disk"), (right, "disk"), (right, "off")):
        settings = {"mask": "folder", "mask_path": str(tmp_path / "masks")} if scan is not plain else {}
        save(tmp_path / "masks" / "a.png", 255 - half(96, 64) if scan is right else half(96, 64))
        config = DatasetConfig(path=str(kit.folder), cache=cache, cache_path=folder, mask_floor=0.25, **settings)
        dataset = Dataset(scan.items, config, 0, 16, 64)
        dataset.encode(encoder)
        masks = dataset.load(dataset.order(1).batch(0)).masks
        shapes.append(None if masks is None else [masks.shape[1], masks[0, 0, :, 0].mean(), masks[0, 0, :, -1].mean()])
    assert shapes == [None, [1, 1.0, 0.25], [1, 1.0, 0.25], [1, 0.25, 1.0], [1, 0.25, 1.0]]
    # One for each of the three scans, and one without a cache.
    assert encoder.pictures == 4


def test_a_mask_that_was_changed_since_the_scan_is_refused(masked, kit, tmp_path):
    scan = masked(half(96, 64))
    save(tmp_path / "masks" / "a.png", 255 - half(96, 64))
    config = DatasetConfig(path=str(kit.folder), mask="folder", mask_path=str(tmp_path / "masks"))
    with pytest.raises(BadInput, match=r"a\.png: its mask a\.png was changed since the dataset was scanned"):
        Dataset(scan.items, config, 0, 16, 64).encode(kit.Encoder())


def test_pictures_without_masks_count_whole_beside_others_and_the_sheet_is_dark_outside(kit, tmp_path):
    save(kit.folder / "a.png", np.dstack([np.full((64, 64, 3), 200, np.uint8), half(64, 64)]))
    kit.draw(tmp_path / "plain" / "a.png", caption="a thing")
    own = FolderConfig(path=str(tmp_path / "plain"), mask="off")
    config = DatasetConfig(path=str(kit.folder), mask="alpha", missing_captions="empty", folders=[own])
    scan = scan_dataset(config)
    dataset = Dataset(scan.items, config, 0, 16, 64)
    dataset.encode(kit.Encoder())
    batch = dataset.load(dataset.order(2).batch(0))
    means = dict(zip(batch.keys, batch.masks.mean(dim=(1, 2, 3)).tolist(), strict=True))
    assert means == {"dataset/a.png": 0.5, "plain/a.png": 1.0}
    row = contact_sheet(dataset, side=68)[16 + 34]
    torch.testing.assert_close(row[10, 0], torch.tensor(200 / 255), atol=0.01, rtol=0)
    torch.testing.assert_close(row[60, 0], torch.tensor(DIMMED), atol=0.01, rtol=0)
