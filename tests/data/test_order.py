"""An epoch shows everything once; a batch is known by its index."""

from collections import Counter

import pytest

from trainer_core.data.buckets import Bucket
from trainer_core.data.order import BatchOrder
from trainer_core.errors import BadInput

GROUPS = {
    Bucket(64, 64): [("a", 1), ("b", 3), ("c", 1)],
    Bucket(96, 48): [("d", 2)],
    Bucket(48, 96): [(f"e{n}", 1) for n in range(7)],
}


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_every_repeat_of_every_item_comes_exactly_once_an_epoch_in_batches_of_one_bucket(batch_size):
    order = BatchOrder(GROUPS, batch_size, seed=5)
    for epoch in range(3):
        start = epoch * order.batches_per_epoch
        plans = [order.batch(i) for i in range(start, start + order.batches_per_epoch)]
        shown = Counter((plan.bucket, *entry) for plan in plans for entry in plan.entries)
        assert shown == {(b, key, r): 1 for b, items in GROUPS.items() for key, n in items for r in range(n)}
        assert all(plan.epoch == epoch and 1 <= len(plan.entries) <= batch_size for plan in plans)
        short = Counter(plan.bucket for plan in plans if len(plan.entries) < batch_size)
        assert all(count == 1 for count in short.values())


def test_a_batch_is_the_same_whether_the_run_came_there_or_begins_there():
    whole = BatchOrder(GROUPS, 2, seed=1)
    walked = [whole.batch(i) for i in range(100)]
    assert [BatchOrder(GROUPS, 2, seed=1).batch(i) for i in (73, 20, 99, 0, 21)] == [
        walked[i] for i in (73, 20, 99, 0, 21)
    ]
    assert [plan.index for plan in walked] == list(range(100))


def test_epochs_and_seeds_differ():
    order, n = BatchOrder(GROUPS, 2, seed=1), BatchOrder(GROUPS, 2, seed=1).batches_per_epoch
    first, second = ([order.batch(e * n + i).entries for i in range(n)] for e in range(2))
    assert first != second
    assert first != [BatchOrder(GROUPS, 2, seed=2).batch(i).entries for i in range(n)]


def test_buckets_come_mixed_and_not_one_after_another():
    order = BatchOrder(GROUPS, 1, seed=1)
    buckets = [order.batch(i).bucket for i in range(order.batches_per_epoch)]
    assert sum(a != b for a, b in zip(buckets, buckets[1:], strict=False)) > len(GROUPS)


def test_the_order_of_scanning_does_not_matter():
    turned = {bucket: items[::-1] for bucket, items in reversed(GROUPS.items())}
    assert [BatchOrder(turned, 2, 1).batch(i) for i in range(20)] == [
        BatchOrder(GROUPS, 2, 1).batch(i) for i in range(20)
    ]


def test_processes_share_an_epoch_between_them():
    order, world = BatchOrder(GROUPS, 1, 0), 2
    steps = order.batches_per_epoch // world
    ranks = [[order.batch(step * world + rank).entries for step in range(steps)] for rank in range(world)]
    assert len(set(ranks[0]) | set(ranks[1])) == order.batches_per_epoch


def test_nothing_to_train_on_is_refused():
    with pytest.raises(BadInput, match="no picture"):
        BatchOrder({}, 2, 0)
    with pytest.raises(BadInput, match="batch_size: 0"):
        BatchOrder(GROUPS, 0, 0)
