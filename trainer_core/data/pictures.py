"""Opening pictures: whatever is in the file, an upright 8-bit RGB picture comes out, or a reason why not."""

import hashlib
import io
import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from ..errors import BadInput
from .items import Item, Picture, shown

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".avif")
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "AVIF")
"""Named to Pillow, so that hostile files never reach its rarer readers."""

FILE_BYTES_MOST = 2**30
PIXELS_MOST = 89_478_485
"""Pixels of a picture: Pillow's own warning level (256 MiB of RGB), held also where the host has switched that off."""


class Checked(NamedTuple):
    """What is known of a picture after it was decoded once."""

    width: int
    height: int
    digest: str
    frames: int


def check_picture(picture: Picture) -> Checked:
    """Decode a picture completely, so that a damaged one is found before training.

    Raises:
        ValueError: in words for a person, to be put behind the picture's name.
    """
    data = _bytes_of(picture)
    opened = _opened(data) if isinstance(data, bytes) else data
    frames = 1 if opened.format == "MPO" else getattr(opened, "n_frames", 1)
    rgb = _decoded(opened)
    return Checked(rgb.width, rgb.height, digest_of(picture, data), frames)


def digest_of(picture: Picture, data: bytes | Image.Image) -> str:
    """SHA-256, in hexadecimal, of a file's bytes or of a picture's mode, size and pixels."""
    if isinstance(picture, str):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha256(f"{data.mode} {data.size} ".encode() + data.tobytes()).hexdigest()


def open_picture(item: Item) -> Image.Image:
    """The picture of an item: upright, RGB, 8 bits. Transparency lies on white; 16 bits are scaled to 8; the colour
    profile of an RGB or CMYK file is applied, and ignored where it is broken.

    Raises:
        BadInput: it can no longer be read, or is another picture than when it was scanned.
    """
    try:
        data = _bytes_of(item.picture)
        if isinstance(item.picture, str) and digest_of(item.picture, data) != item.digest:
            raise ValueError("was changed since the dataset was scanned; start again.")
        return _decoded(_opened(data) if isinstance(data, bytes) else data)
    except ValueError as error:
        raise BadInput(f"{shown(item.key)}: {error}") from None


def thumbnail(path: str, side: int) -> Image.Image:
    """A file's picture, upright, 8-bit RGB, its longer side at most `side` pixels.

    Raises:
        ValueError: in words for a person, to be put behind the picture's name.
    """
    opened = _opened(_bytes_of(path))
    opened.draft("RGB", (side, side))  # a JPEG is decoded at a fraction of its size
    small = _decoded(opened)
    small.thumbnail((side, side))
    return small


def alpha_of(picture: Picture) -> Image.Image | None:
    """How opaque a picture is, upright, 8 bits of grey; None where it has no transparency.

    Raises:
        ValueError: in words for a person, to be put behind the picture's name.
    """
    opened = _loaded(_bytes_of(picture))
    if not opened.has_transparency_data:
        return None
    return _upright(opened).convert("RGBA").getchannel("A")


def grey_of(path: str, digest: str = "") -> tuple[Image.Image, str]:
    """The brightness of a file's picture, upright, 8 bits of grey, transparency being black; and its SHA-256.

    Args:
        digest: what the file was; empty where that is not known.

    Raises:
        ValueError: as for `alpha_of`, or the file was changed.
    """
    data = _bytes_of(path)
    found = digest_of(path, data)
    if digest and found != digest:
        raise ValueError("was changed since the dataset was scanned; start again.")
    opened = _upright(_loaded(data))
    if opened.mode.startswith("I"):
        return to_rgb(opened).convert("L"), found
    if opened.has_transparency_data:
        opened = opened.convert("RGBA")
        opened = Image.alpha_composite(Image.new("RGBA", opened.size, "black"), opened)
    return opened.convert("L"), found


def from_array(pixels) -> Image.Image:
    """A PIL picture of [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]; uint8 in 0..255 or floats in 0..1, numpy or torch.

    Raises:
        ValueError: in words for a person.
    """
    if isinstance(pixels, torch.Tensor):
        pixels = pixels.detach().cpu()
        pixels = pixels.float() if pixels.is_floating_point() else pixels  # numpy has no bfloat16
    array = np.asarray(pixels)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.size == 0 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise ValueError(f"has the shape {list(array.shape)}; a picture is [height, width, 3].")
    if np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all():
            raise ValueError("holds values that are not finite; the node that made the picture failed.")
        array = np.round(np.clip(array, 0, 1) * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise ValueError(f"has the number type {array.dtype}; use uint8 in 0..255 or floats in 0..1.")
    return Image.fromarray(np.ascontiguousarray(array))


def _bytes_of(picture: Picture) -> bytes | Image.Image:
    """A file's bytes, or the picture in memory."""
    if isinstance(picture, Image.Image):
        return picture
    if not isinstance(picture, str):
        return from_array(picture)
    try:
        size = os.stat(picture).st_size
        if size == 0:
            raise ValueError("is empty (0 bytes); copy it again or delete it.")
        if size > FILE_BYTES_MOST:
            raise ValueError(f"has {size:,} bytes (at most {FILE_BYTES_MOST:,}); save it smaller.")
        return Path(picture).read_bytes()
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror or error}); repair or delete it.") from None


def _opened(data: bytes) -> Image.Image:
    """A picture of which only the header was read, with its size checked."""
    try:
        opened = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise ValueError(
            "is no picture: its content is none of JPEG, PNG, WebP, BMP or AVIF; replace or delete it."
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        # Pillow says how many only in its message.
        told = re.search(r"\((\d+) pixels\)", str(error))
        size = f"{int(told[1]):,} pixels" if told else "too many pixels"
        raise ValueError(f"has {size} (at most {PIXELS_MOST:,}); save it smaller.") from None
    except Exception as error:  # readers of broken files raise nearly anything
        raise ValueError(f"is damaged ({_reason(error)}); save it again or delete it.") from None
    if opened.width * opened.height > PIXELS_MOST:
        size = f"{opened.width}×{opened.height}"
        raise ValueError(
            f"has {size} = {opened.width * opened.height:,} pixels (at most {PIXELS_MOST:,}); save it smaller."
        )
    return opened


def _loaded(data: bytes | Image.Image) -> Image.Image:
    """A picture with its pixels."""
    opened = _opened(data) if isinstance(data, bytes) else data
    try:
        opened.load()
    except Exception as error:  # readers of broken files raise nearly anything
        raise ValueError(f"is damaged or cut off ({_reason(error)}); copy it again or delete it.") from None
    return opened


def _decoded(opened: Image.Image) -> Image.Image:
    try:
        opened.load()
        return to_rgb(_upright(opened))
    except Exception as error:  # readers of broken files raise nearly anything
        raise ValueError(f"is damaged or cut off ({_reason(error)}); copy it again or delete it.") from None


def _reason(error: Exception) -> str:
    return shown(error) or type(error).__name__


def _upright(picture: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # a broken EXIF block does not spoil the pixels
        return picture


def to_rgb(picture: Image.Image) -> Image.Image:
    """8-bit RGB of any mode, transparency on white."""
    if picture.mode.startswith("I"):
        # 16 bits a pixel, whatever Pillow calls it ("I;16", "I;16B", or "I" for a 16-bit PNG in older versions).
        values = np.asarray(picture, dtype=np.float64)
        return Image.fromarray(np.round(np.clip(values, 0, 65535) / 257).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        picture = _with_profile(picture.convert("RGBA"))
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    if picture.mode in ("RGB", "CMYK"):
        return _with_profile(picture).convert("RGB")
    return picture.convert("RGB")


def _with_profile(picture: Image.Image) -> Image.Image:
    """The picture in sRGB, if its file carries another colour profile that can be read."""
    profile = picture.info.get("icc_profile")
    if not profile:
        return picture
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(source).lower():
            return picture
        wanted = "RGBA" if picture.mode == "RGBA" else "RGB"
        converted = ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"), outputMode=wanted)
    except Exception:  # broken profiles are common and not worth losing a picture for
        return picture
    return converted
