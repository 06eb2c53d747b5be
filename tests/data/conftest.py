"""Pictures drawn for the tests, and a real, if tiny, encoder: average pooling for pictures, sines of bytes for text."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from trainer_core.data.config import DatasetConfig
from trainer_core.data.dataset import Dataset
from trainer_core.data.scan import scan_folder


class PoolingEncoder:
    """8× average pooling; a caption's tensor has a row a byte; counts what it encodes and can be told to break."""

    pixel_step = 16

    def __init__(self, identity="pooling", broken_picture=None):
        self.identity, self.broken_picture = identity, broken_picture
        self.pictures, self.captions = 0, []

    def encode_pictures(self, pixels):
        self.pictures += len(pixels)
        latents = torch.nn.functional.avg_pool2d(pixels.permute(0, 3, 1, 2), 8) * 2 - 1
        if self.broken_picture is not None and torch.allclose(pixels[0, 0, 0], torch.tensor(self.broken_picture) / 255):
            latents[0, 0, 0, 0] = float("nan")
        return latents

    def encode_captions(self, captions):
        self.captions += captions
        return [{"text": self.embed(caption)} for caption in captions]

    @staticmethod
    def embed(caption):
        codes = torch.tensor([0, *caption.encode()], dtype=torch.float32)
        return torch.sin(codes[:, None] * torch.tensor([1.0, 0.1, 0.01, 0.001]))

    @staticmethod
    def stack(entries):
        return {"text": torch.nn.utils.rnn.pad_sequence([entry["text"] for entry in entries], batch_first=True)}


def draw(path, size=(64, 64), colour=(200, 30, 40), caption=None, **saving):
    """A picture with a diagonal light, so that no two places are alike, and its caption beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    x, y = np.meshgrid(np.linspace(0, 55, size[0]), np.linspace(0, 25, size[1]))
    pixels = np.clip(np.array(colour) + x[..., None] - y[..., None], 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path, **saving)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return path


def flat(colour, size=(32, 32), mode="RGB"):
    return Image.new(mode, size, colour)


def png16(pixels):
    """A PNG with 16 bits a channel of uint16 [H, W, 3], which Pillow cannot write."""
    height, width, _ = pixels.shape

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


class Kit:
    """What tests draw and build with."""

    draw, flat, png16, Encoder = staticmethod(draw), staticmethod(flat), staticmethod(png16), PoolingEncoder

    def __init__(self, folder: Path):
        self.folder = folder

    def write(self, name, content):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def scan(self, **settings):
        return scan_folder(DatasetConfig(path=str(self.folder), **settings))

    def five(self):
        """Five pictures of three shapes, captioned by tags."""
        sizes = [(64, 64), (96, 48), (128, 64), (48, 96), (72, 70)]
        for n, size in enumerate(sizes):
            draw(self.folder / f"{n}.png", size, (40 * n, 200 - 40 * n, 90), f"thing {n}, red, big, old")
        return self

    def dataset(self, seed=7, resolution=64, pixel_step=16, encoder=None, **settings):
        """An encoded dataset of the folder."""
        config = DatasetConfig(path=str(self.folder), **settings)
        scan = scan_folder(config)
        assert not scan.problems
        dataset = Dataset(scan.items, config, seed, pixel_step, resolution)
        if encoder is not None:
            assert dataset.encode(encoder)
        return dataset


@pytest.fixture
def kit(tmp_path):
    torch.set_num_threads(1)
    folder = tmp_path / "dataset"
    folder.mkdir()
    return Kit(folder)
