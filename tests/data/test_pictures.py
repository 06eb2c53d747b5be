"""Whatever the file's format, training sees upright RGB."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from trainer_core.data.config import DatasetConfig
from trainer_core.data.pictures import from_array, open_picture
from trainer_core.data.scan import scan_memory
from trainer_core.errors import BadInput


def opened(kit, name="a.png"):
    scan = kit.scan(missing_captions="empty")
    assert scan.problems == []
    return open_picture(next(item for item in scan.items if item.key == name))


@pytest.mark.parametrize(("orientation", "turn"), [(3, 180), (6, 270), (8, 90)])
def test_a_photo_taken_with_a_turned_camera_is_upright(kit, orientation, turn):
    exif = Image.Exif()
    exif[0x0112] = orientation
    kit.draw(kit.folder / "a.png", (60, 40), exif=exif)
    stored = Image.open(kit.folder / "a.png").convert("RGB")
    upright = stored.rotate(turn, expand=True)
    item = kit.scan(missing_captions="empty").items[0]
    assert (item.width, item.height) == upright.size
    assert np.array_equal(np.asarray(open_picture(item)), np.asarray(upright))


def test_16_bit_grey_is_scaled_and_not_clipped(kit):
    Image.fromarray(np.array([[0, 257 * 100, 65535]], np.uint16)).save(kit.folder / "a.png")
    assert np.asarray(opened(kit))[0].tolist() == [[0] * 3, [100] * 3, [255] * 3]


def test_16_bit_rgb_is_scaled(kit):
    kit.write("a.png", kit.png16(np.full((4, 4, 3), (0x1234, 0x8080, 0xFFFF), np.uint16)))
    assert np.abs(np.asarray(opened(kit))[0, 0].astype(int) - [0x12, 0x80, 0xFF]).max() <= 1


def test_cmyk_becomes_the_rgb_that_it_means(kit):
    kit.flat((0, 255, 255, 0), mode="CMYK").save(kit.folder / "a.jpg", quality=95)
    assert np.abs(np.asarray(opened(kit, "a.jpg"))[16, 16].astype(int) - [255, 0, 0]).max() <= 4


@pytest.mark.parametrize(("mode", "colour", "expected"), [
    ("RGBA", (255, 0, 0, 0), (255, 255, 255)),
    ("RGBA", (255, 0, 0, 255), (255, 0, 0)),
    ("RGBA", (0, 0, 0, 51), (204, 204, 204)),
    ("LA", (0, 0), (255, 255, 255)),
    ("L", 90, (90, 90, 90)),
    ("1", 1, (255, 255, 255)),
])  # fmt: skip
def test_transparency_lies_on_white_and_grey_becomes_rgb(kit, mode, colour, expected):
    kit.flat(colour, mode=mode).save(kit.folder / "a.png")
    picture = opened(kit)
    assert (picture.mode, picture.getpixel((5, 5))) == ("RGB", expected)


def test_a_palette_with_a_transparent_colour_lies_on_white(kit):
    picture = Image.new("P", (8, 8), 0)
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.putpixel((1, 1), 1)
    picture.save(kit.folder / "a.png", transparency=0)
    assert [opened(kit).getpixel((x, 1)) for x in (0, 1)] == [(255, 255, 255), (200, 100, 50)]


def test_a_broken_colour_profile_is_ignored(kit):
    kit.flat((10, 200, 30)).save(kit.folder / "a.png", icc_profile=b"no profile at all")
    assert opened(kit).getpixel((3, 3)) == (10, 200, 30)


def test_a_working_colour_profile_is_applied(kit):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # sRGB with the names of its red and blue primaries exchanged, under another description.
    profile = profile.replace(b"rXYZ", b"?XYZ").replace(b"bXYZ", b"rXYZ").replace(b"?XYZ", b"bXYZ")
    profile = profile.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))
    for mode, colour in (("RGB", (200, 20, 20)), ("RGBA", (200, 20, 20, 255))):
        kit.flat(colour, mode=mode).save(kit.folder / "a.png", icc_profile=profile)
        assert np.abs(np.subtract(opened(kit).getpixel((3, 3)), (20, 20, 200))).max() <= 2


@pytest.mark.parametrize("ending", ["jpg", "jpeg", "webp", "bmp", "avif", "JPG"])
def test_every_listed_format_is_read(kit, ending):
    kit.flat((20, 160, 60)).save(kit.folder / f"a.{ending}")
    assert np.abs(np.asarray(opened(kit, f"a.{ending}"))[8, 8].astype(int) - [20, 160, 60]).max() <= 6


def test_pictures_in_memory_may_be_pil_arrays_or_tensors():
    array = np.full((8, 12, 3), (10, 20, 30), np.uint8)
    tensor = torch.from_numpy(array) / 255
    pictures = [Image.fromarray(array), array, tensor, tensor.bfloat16()]
    scan = scan_memory(pictures, ["a", "b", "c", "d"], DatasetConfig())
    assert scan.problems == [] and [item.key for item in scan.items] == ["00000", "00001", "00002", "00003"]
    assert [open_picture(item).getpixel((2, 2)) for item in scan.items] == [(10, 20, 30)] * 4
    assert len({item.digest for item in scan.items}) == 1


def test_arrays_that_are_no_pictures_are_refused_with_their_shape():
    arrays = [np.zeros((4, 4, 7), np.uint8), np.zeros((4, 4, 3), np.int64), np.full((4, 4, 3), np.nan)]
    scan = scan_memory(arrays, ["a"] * 3, DatasetConfig())
    assert scan.items == []
    assert "[4, 4, 7]" in scan.problems[0] and "int64" in scan.problems[1] and "not finite" in scan.problems[2]
    assert from_array(np.zeros((4, 4, 1), np.uint8)).mode == "L"


def test_a_cut_off_picture_in_memory_is_a_problem_too(kit):
    whole = kit.draw(kit.folder / "a.jpg", (200, 200)).read_bytes()
    lazy = Image.open(io.BytesIO(whole[: len(whole) // 2]))
    scan = scan_memory([lazy, kit.flat("red")], ["a", "b"], DatasetConfig())
    assert [item.key for item in scan.items] == ["00001"] and "picture 00000: is damaged" in scan.problems[0]


def test_a_picture_that_changes_after_the_scan_is_not_trained_on(kit):
    kit.draw(kit.folder / "a.png")
    item = kit.scan(missing_captions="empty").items[0]
    kit.draw(kit.folder / "a.png", colour=(0, 0, 0))
    with pytest.raises(BadInput, match=r"a\.png: was changed"):
        open_picture(item)
