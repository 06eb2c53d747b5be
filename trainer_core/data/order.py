"""The order of training: which pictures are in which batch, known for every batch of the run without running it."""

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .. import randomness
from ..errors import BadInput
from .buckets import Bucket

EPOCHS_KEPT = 3


class Entry(NamedTuple):
    """One showing of an item: its key and which of its repeats."""

    key: str
    repeat: int


class BatchPlan(NamedTuple):
    """What is in a batch."""

    index: int
    epoch: int
    bucket: Bucket
    entries: tuple[Entry, ...]


class BatchOrder:
    """An endless sequence of batches, where each epoch shows every repeat of every item exactly once.

    A batch holds one bucket's pictures; the last batch of a bucket in an epoch may be short. With several processes,
    process `rank` of `world` takes the batches `step * world + rank`.
    """

    def __init__(self, groups: Mapping[Bucket, Sequence[tuple[str, int]]], batch_size: int, seed: int):
        """
        Args:
            groups: for each bucket, its items as (key, repeats).
            batch_size: pictures a batch, at least 1.
            seed: the run's.

        Raises:
            BadInput: there is nothing to train on, or no batch size.
        """
        self._groups = {
            bucket: [Entry(key, repeat) for key, repeats in sorted(groups[bucket]) for repeat in range(repeats)]
            for bucket in sorted(groups)
        }
        if batch_size < 1:
            raise BadInput(f"batch_size: {batch_size} is out of range: at least 1")
        self.batch_size, self.seed = batch_size, seed
        self.batches_per_epoch = sum(-(-len(entries) // batch_size) for entries in self._groups.values())
        self.entries_per_epoch = sum(map(len, self._groups.values()))
        if not self.batches_per_epoch:
            raise BadInput("dataset: there is no picture to train on.")
        self._epochs: OrderedDict[int, list[tuple[Bucket, tuple[Entry, ...]]]] = OrderedDict()
        self._lock = threading.Lock()

    def batch(self, index: int) -> BatchPlan:
        """The batch at a position counted from 0 over all epochs."""
        epoch, position = divmod(index, self.batches_per_epoch)
        with self._lock:
            if epoch not in self._epochs:
                self._epochs[epoch] = self._epoch(epoch)
                while len(self._epochs) > EPOCHS_KEPT:
                    self._epochs.popitem(last=False)
            bucket, entries = self._epochs[epoch][position]
        return BatchPlan(index, epoch, bucket, entries)

    def _epoch(self, epoch: int) -> list[tuple[Bucket, tuple[Entry, ...]]]:
        dice = randomness.dice(self.seed, "order", epoch)
        batches = []
        for bucket, entries in self._groups.items():
            shuffled = dice.sample(entries, len(entries))
            starts = range(0, len(shuffled), self.batch_size)
            batches += [(bucket, tuple(shuffled[start : start + self.batch_size])) for start in starts]
        dice.shuffle(batches)
        return batches
