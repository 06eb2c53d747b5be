"""The order of training: which pictures are in which batch, known for every batch of the run without running it."""

import bisect
import itertools
import threading
from array import array
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .. import randomness
from ..errors import BadInput
from .buckets import Bucket
from .prior import Turns

EPOCHS_KEPT = 3


class Entry(NamedTuple):
    """One showing of an item: its key and which of its repeats (of a regularisation picture, how often it was shown
    before)."""

    key: str
    repeat: int


class BatchPlan(NamedTuple):
    """What is in a batch."""

    index: int
    epoch: int
    bucket: Bucket
    entries: tuple[Entry, ...]


class _Epoch(NamedTuple):
    """Numbers instead of entries, because an epoch can have millions of them."""

    entries: list[array]
    """For each bucket, the order of its entries."""
    batches: array
    """The order of the batches."""


class _Group:
    """The entries of a bucket, each item's repeats one after another, and then the regularisation pictures'."""

    def __init__(self, bucket: Bucket, items: Sequence[tuple[str, int]], prior: Turns | None):
        self.bucket, self.keys, self._prior = bucket, [key for key, _ in items], prior
        self.ends = array("Q", itertools.accumulate(repeats for _, repeats in items))
        self._own = self.ends[-1] if self.ends else 0
        self._share = prior.shares.get(bucket, 0) if prior else 0

    def __len__(self) -> int:
        return self._own + self._share

    def entry(self, number: int, epoch: int) -> Entry:
        if number >= self._own:
            return Entry(*self._prior.entry(self.bucket, epoch, number - self._own))
        item = bisect.bisect_right(self.ends, number)
        return Entry(self.keys[item], number - (self.ends[item - 1] if item else 0))


class BatchOrder:
    """An endless sequence of batches, where each epoch shows every repeat of every item exactly once.

    Regularisation pictures come in turn, as many in an epoch as there are others. A batch holds one bucket's pictures;
    the last batch of a bucket in an epoch may be short. With several processes, process `rank` of `world` takes the
    batches `step * world + rank`.
    """

    def __init__(
        self,
        groups: Mapping[Bucket, Sequence[tuple[str, int]]],
        batch_size: int,
        seed: int,
        prior: Turns | None = None,
    ):
        """
        Args:
            groups: for each bucket, its items as (key, repeats).
            batch_size: pictures a batch, at least 1.
            seed: the run's.
            prior: the regularisation pictures, mixed among the others.

        Raises:
            BadInput: there is nothing to train on, or no batch size.
        """
        buckets = sorted({*groups, *(prior.shares if prior else ())})
        self._groups = [_Group(bucket, sorted(groups.get(bucket, ())), prior) for bucket in buckets]
        self.prior_per_epoch = sum(prior.shares.values()) if prior else 0
        """Showings of regularisation pictures in an epoch."""
        if batch_size < 1:
            raise BadInput(f"batch_size: {batch_size} is out of range: at least 1")
        self.batch_size, self.seed = batch_size, seed
        self.batches_per_epoch = sum(-(-len(group) // batch_size) for group in self._groups)
        self.entries_per_epoch = sum(map(len, self._groups))
        if not self.batches_per_epoch:
            raise BadInput("dataset: there is no picture to train on.")
        self._epochs: OrderedDict[int, _Epoch] = OrderedDict()
        self._lock = threading.Lock()

    def batch(self, index: int) -> BatchPlan:
        """The batch at a position counted from 0 over all epochs."""
        epoch, position = divmod(index, self.batches_per_epoch)
        with self._lock:
            if epoch not in self._epochs:
                self._epochs[epoch] = self._epoch(epoch)
                while len(self._epochs) > EPOCHS_KEPT:
                    self._epochs.popitem(last=False)
            order = self._epochs[epoch]
        return BatchPlan(index, epoch, *self._at(order, order.batches[position], epoch))

    def _at(self, order: _Epoch, batch: int, epoch: int) -> tuple[Bucket, tuple[Entry, ...]]:
        """Batches are numbered through the buckets, in the order of their shuffled entries."""
        for group, shuffled in zip(self._groups, order.entries, strict=True):
            batches = -(-len(group) // self.batch_size)
            if batch < batches:
                chosen = shuffled[batch * self.batch_size : (batch + 1) * self.batch_size]
                return group.bucket, tuple(group.entry(number, epoch) for number in chosen)
            batch -= batches
        raise IndexError(batch)

    def _epoch(self, epoch: int) -> _Epoch:
        dice = randomness.dice(self.seed, "order", epoch)
        entries = [array("I", dice.sample(range(len(group)), len(group))) for group in self._groups]
        batches = array("I", range(self.batches_per_epoch))
        dice.shuffle(batches)
        return _Epoch(entries, batches)
