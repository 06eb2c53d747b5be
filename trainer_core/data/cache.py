"""The encoded cache: tensors under a hash of everything that made them, kept in memory."""

import hashlib
import json
import threading
from collections.abc import Mapping
from typing import Protocol

import torch

from ..errors import BadInput

Tensors = dict[str, torch.Tensor]


def key_of(*parts: object) -> str:
    """The name of an entry: SHA-256, in hexadecimal, over what made it."""
    return hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()


class Cache(Protocol):
    """Named tensors by key; several threads may use it."""

    def claim(self, key: str) -> bool:
        """Name an entry that this run will use, so that it stays; False if it was named before."""

    def look(self) -> int:
        """Finds out which of the claimed entries are there; how many are not."""

    def has(self, key: str) -> bool:
        """Whether a claimed entry is there, without reading it."""

    def get(self, key: str) -> Tensors | None:
        """The tensors put under `key`; None if there are none, or if they are damaged. Not to be written to."""

    def put(self, key: str, tensors: Mapping[str, torch.Tensor]) -> None:
        """Keep tensors (a copy of them, on the CPU) under `key`.

        Raises:
            BadInput: the memory's limit is reached.
            ScionError: the file cannot be written.
        """


class MemoryCache:
    """Entries that end with the process."""

    def __init__(self, limit: int = 0):
        """
        Args:
            limit: in bytes, beyond which entries are refused; 0 = none.
        """
        self.limit, self.bytes = limit, 0
        self._entries: dict[str, Tensors | None] = {}
        self._lock = threading.Lock()

    def claim(self, key: str) -> bool:
        if key in self._entries:
            return False
        self._entries[key] = None
        return True

    def look(self) -> int:
        return sum(tensors is None for tensors in self._entries.values())

    def has(self, key: str) -> bool:
        return self._entries.get(key) is not None

    def get(self, key: str) -> Tensors | None:
        return self._entries.get(key)

    def put(self, key: str, tensors: Mapping[str, torch.Tensor]) -> None:
        kept = {name: own(tensor) for name, tensor in tensors.items()}
        size = sum(tensor.numel() * tensor.element_size() for tensor in kept.values())
        with self._lock:
            if self.limit and self.bytes + size > self.limit:
                filled = len(self._entries) - self.look()
                raise BadInput(
                    f"dataset.cache_limit_gb: {self.limit / 1e9:g} GB of memory are full after {filled:,} entries; set "
                    "dataset.cache to 'disk', or raise the limit if there is more memory."
                )
            self._entries[key] = kept
            self.bytes += size


def own(tensor: torch.Tensor) -> torch.Tensor:
    """A copy on the CPU that is no inference tensor, wherever this is called from."""
    with torch.inference_mode(False):
        return torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())
