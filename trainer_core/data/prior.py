"""Prior preservation (Ruiz et al. 2023): which pictures of the class an epoch shows beside those of the subject."""

from collections.abc import Mapping, Sequence

from .. import randomness
from .buckets import Bucket


class Turns:
    """Showings of regularisation pictures, as many in every epoch as there are others.

    Each bucket has a fixed share of an epoch, by how many of the pictures are in it and at least one, and goes through
    its pictures in an order of its own: fewer than its share are repeated, of more each epoch shows those that are due
    next. So all are seen equally often, whatever the epochs' length.
    """

    def __init__(self, groups: Mapping[Bucket, Sequence[tuple[str, int]]], showings: int, seed: int):
        """
        Args:
            groups: for each bucket, its pictures as (key, repeats).
            showings: of the other pictures in an epoch.
            seed: the run's.
        """
        self._entries = {}
        for bucket in sorted(groups):
            entries = [(key, repeat) for key, repeats in sorted(groups[bucket]) for repeat in range(repeats)]
            randomness.dice(seed, "prior", *bucket).shuffle(entries)
            self._entries[bucket] = entries
        self._repeats = {key: repeats for pictures in groups.values() for key, repeats in pictures}
        self.shares = shares({bucket: len(entries) for bucket, entries in self._entries.items()}, showings)
        """Showings of each bucket in an epoch."""

    def entry(self, bucket: Bucket, epoch: int, number: int) -> tuple[str, int]:
        """The showing of that number in a bucket's share of an epoch: (key, how often the picture was shown before)."""
        entries = self._entries[bucket]
        passes, place = divmod(epoch * self.shares[bucket] + number, len(entries))
        key, repeat = entries[place]
        return key, passes * self._repeats[key] + repeat


def shares(counts: Mapping[Bucket, int], total: int) -> dict[Bucket, int]:
    """`total` divided among buckets in proportion to their counts, the largest remainders first; at least one each, so
    that more than `total` are given where there are more buckets."""
    quotas = {bucket: total * count / sum(counts.values()) for bucket, count in counts.items()}
    given = {bucket: max(1, int(quota)) for bucket, quota in quotas.items()}
    while given and sum(given.values()) < total:
        given[max(given, key=lambda bucket: quotas[bucket] - given[bucket])] += 1
    while sum(given.values()) > max(total, len(given)):
        above_one = [bucket for bucket in given if given[bucket] > 1]
        given[min(above_one, key=lambda bucket: quotas[bucket] - given[bucket])] -= 1
    return given
