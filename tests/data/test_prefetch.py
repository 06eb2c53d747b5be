"""Preparing ahead changes nothing but the time."""

import contextlib
import itertools
import threading
import time

import pytest

from trainer_core.data.prefetch import prefetch


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_results_come_in_order_whatever_the_number_of_workers(workers):
    def load(n):
        time.sleep(0.002 * (n % 3))
        return n * n

    assert list(prefetch(load, range(30), workers)) == [n * n for n in range(30)]
    assert threads() == []


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_an_exception_comes_where_its_result_was_due(workers):
    def load(n):
        return 1 // (3 - n)

    results = prefetch(load, range(10), workers)
    assert [next(results) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert threads() == []


def test_stopping_early_leaves_no_thread_and_reads_little_ahead():
    loaded = []
    with contextlib.closing(prefetch(lambda n: loaded.append(n) or n, itertools.count(), 2)) as results:
        assert [next(results) for _ in range(3)] == [0, 1, 2]
    assert threads() == [] and max(loaded) <= 5


def test_work_goes_on_while_the_last_result_is_used():
    begun = threading.Event()

    def load(n):
        if n == 1:
            begun.set()
        return n

    with contextlib.closing(prefetch(load, range(5), 1)) as results:
        next(results)
        assert begun.wait(5)
