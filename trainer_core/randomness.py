"""Every random draw is keyed by what it is for, never taken from a running state, so that resuming repeats it."""

import contextlib
import hashlib
import random
from collections.abc import Iterator

import torch


def key(*parts: object) -> int:
    """A 63-bit seed from (seed, purpose, step, item, …): the same parts give the same seed on every machine."""
    text = "\x1f".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def generator(*parts: object, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator for one draw (or one group of draws that always happen together)."""
    return torch.Generator(device).manual_seed(key(*parts))


def dice(*parts: object) -> random.Random:
    """A Python generator, for shuffles and single numbers."""
    return random.Random(key(*parts))


@contextlib.contextmanager
def reseeded(device: torch.device, *parts: object) -> Iterator[None]:
    """torch's global generators seeded by key inside the block (for modules that draw from them, such as dropout), and
    put back after it."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(key(*parts))
        yield
