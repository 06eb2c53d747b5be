"""Scanning, bucketing and starting on a dataset of many small pictures: seconds, and memory for each picture.

    python benchmarks/many_pictures.py [--pictures 100000] [--folder DIR]

Makes the pictures (64×64 JPEG with a caption each, a thousand to a folder), then does in processes of their own: the
first scan, encoding with an encoder that costs nothing (so that what is measured is the cache), and a start on what is
encoded already, up to the first batch.
"""

import argparse
import ctypes
import gc
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image

from trainer_core.data.config import DatasetConfig
from trainer_core.data.dataset import Dataset
from trainer_core.data.scan import scan_folder

FOLDER = 1000
BATCH = 4


class NoEncoder:
    """As large as a real one's results at 64×64 pixels, a twentieth of a caption's, in no time."""

    identity = "benchmark"

    def encode_pictures(self, pixels):
        return torch.zeros(len(pixels), 4, 8, 8) + pixels.mean()

    def encode_captions(self, captions):
        return [{"prompt_embeds": torch.full((77, 32), float(len(caption)))} for caption in captions]

    def stack(self, entries):
        return {name: torch.stack([entry[name] for entry in entries]) for name in entries[0]}


def make(folder: Path, count: int) -> None:
    """Pictures that are all different, as photographs are."""
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    for number in range(count):
        inner = folder / f"{number // FOLDER:04d}"
        if number % FOLDER == 0:
            inner.mkdir(parents=True, exist_ok=True)
        pixels = np.roll(noise, number % 64, axis=0) // (1 + number % 7)
        pixels[0, 0] = number % 251, number // 251 % 251, number // 63001
        cut = 64 if number % 3 else 48
        Image.fromarray(pixels[:cut]).save(inner / f"{number:07d}.jpg", quality=60)
        (inner / f"{number:07d}.txt").write_text(f"picture number {number}, noise, in {number % 7} shades of grey")


def started(folder: str, cache: str) -> dict:
    """A scan, the dataset, what encoding has to do, and the first batch."""
    config = DatasetConfig(path=f"{folder}/pictures", cache="disk", cache_path=cache, workers=2)
    before, told, at = _resident(), {}, time.perf_counter()

    def lap(name: str) -> None:
        nonlocal at
        told[name] = round(time.perf_counter() - at, 2)
        at = time.perf_counter()

    scan = scan_folder(config)
    assert not scan.problems, scan.problems[:3]
    lap("scan")
    dataset = Dataset(scan.items, config, 0, 8, 64)
    fingerprint = scan.fingerprint
    lap("buckets")
    dataset.encode(NoEncoder())
    lap("cache")
    batch = dataset.load(dataset.order(BATCH).batch(0))
    lap("first batch")
    assert len(batch.keys) == BATCH and len(fingerprint) == 64
    told["all"] = round(sum(told.values()), 2)
    told["peak MB"] = round(_peak() / 1e6)
    told["bytes a picture"] = round((_resident() - before) / len(scan.items))
    return told


def _resident() -> int:
    """Bytes of the process, after what is free was given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return psutil.Process().memory_info().rss


def _peak() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="kept, and used again; otherwise a temporary one")
    parser.add_argument("--start", nargs=2, metavar=("FOLDER", "CACHE"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.start:
        print(json.dumps(started(*asked.start)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.folder or Path(temporary)
        if not (folder / "pictures").exists():
            make(folder / "pictures", asked.pictures)
        for name in ("first start: scan and encode", "start on what is encoded", "the same once more"):
            command = [sys.executable, __file__, "--start", str(folder), str(folder / "cache")]
            print(name, subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())


if __name__ == "__main__":
    main()
