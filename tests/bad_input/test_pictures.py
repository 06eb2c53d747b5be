"""Pictures that cannot be decoded, are too large, or are odd and fine."""

import struct
import zlib

import pytest
from PIL import Image

from trainer_core.families.clip_vae import ClipVaeEncoder


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width, height):
    """A PNG that claims so many pixels in its header and holds next to none."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def cut(bad, name):
    path = bad.draw(name, (200, 200))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def put(name, content):
    return lambda bad: (bad.write(name, content), bad.write(name.rpartition(".")[0] + ".txt", "a thing"))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        pytest.param(lambda bad: cut(bad, "a.jpg"), ["a.jpg: is damaged or cut off", "copy it again"], id="cut JPEG"),
        pytest.param(lambda bad: cut(bad, "a.png"), ["a.png: is damaged or cut off", "copy it again"], id="cut PNG"),
        pytest.param(lambda bad: cut(bad, "a.webp"), "a.webp: is damaged", id="cut WebP"),
        pytest.param(put("a.png", b""), "a.png: is empty (0 bytes); copy it again or delete it", id="zero bytes"),
        pytest.param(
            put("a.png", b"this is text"),
            "a.png: is no picture: its content is none of JPEG, PNG, WebP, BMP or AVIF",
            id="text",
        ),
        pytest.param(put("a.png", b"GIF89a" + bytes(40)), "a.png: is no picture", id="GIF"),
        pytest.param(put("a.png", b"\x89PNG\r\n\x1a\n"), "a.png: is no picture: its content", id="a signature alone"),
        pytest.param(
            put("a.png", bomb(30_000, 30_000)),
            "a.png: has 900,000,000 pixels (at most 89,478,485); save it smaller",
            id="bomb",
        ),
        pytest.param(
            put("a.png", bomb(10_000, 10_000)),
            "a.png: has 10000×10000 = 100,000,000 pixels (at most 89,478,485); save it smaller",
            id="above the limit",
        ),
    ],
)
def test_a_picture_that_cannot_be_used_is_refused_by_its_name(refused, words, bad, spoil, said):
    bad.draw("good.png")
    spoil(bad)
    refused(words(bad.folder), said)


def test_all_bad_pictures_are_told_at_once(refused, words, bad):
    bad.draw("good.png")
    for name in ("a", "b"):
        put(f"{name}.png", b"")(bad)
    refused(words(bad.folder), ["a.png: is empty", "b.png: is empty"])


def animated(bad):
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    frames[0].save(bad.write("a.webp"), save_all=True, append_images=frames[1:], lossless=True)
    bad.write("a.txt", "a thing")


@pytest.mark.parametrize(
    ("fill", "settings", "said"),
    [
        pytest.param(animated, {}, "a.webp: is animated; its first frame is used", id="animated"),
        pytest.param(
            lambda bad: bad.draw("a.png", icc_profile=b"no profile"), {}, "1 picture", id="broken ICC profile"
        ),
        pytest.param(lambda bad: bad.draw("a.png", (1, 1)), {}, "a.png (1×1 to 64×64)", id="1×1"),
        pytest.param(
            lambda bad: (bad.draw("a.png"), put("b.png", b"")(bad)),
            {"dataset.skip_bad": "true"},
            "left out: b.png: is empty",
            id="bad ones are skipped where that is asked",
        ),
    ],
)
def test_an_odd_picture_is_trained_on_with_a_note(scion, words, bad, fill, settings, said):
    fill(bad)
    code, out, errors = scion(*words(bad.folder, **settings))
    assert code == 0, errors
    assert said in out


def nan_latents(self, pixels):
    return encode_pictures(self, pixels) * float("nan")


def nan_captions(self, captions):
    return [{"text": entry["text"] * float("nan")} for entry in encode_captions(self, captions)]


encode_pictures, encode_captions = ClipVaeEncoder.encode_pictures, ClipVaeEncoder.encode_captions


@pytest.mark.parametrize(
    ("method", "broken", "said"),
    [
        pytest.param(
            "encode_pictures",
            nan_latents,
            ["0.png: its latents are not finite (NaN or infinity)", "4.png: its latents", "use a VAE"],
            id="latents",
        ),
        pytest.param(
            "encode_captions",
            nan_captions,
            ["0.png: the conditioning of its caption is not finite", "thing 0", "Run the text encoder in"],
            id="a caption's embedding",
        ),
    ],
)
def test_what_is_encoded_to_nan_is_refused_by_the_files_name(
    refused, words, pictures, monkeypatch, method, broken, said
):
    monkeypatch.setattr(ClipVaeEncoder, method, broken)
    refused(words(pictures), said)
