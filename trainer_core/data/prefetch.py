"""Preparing ahead: results of a slow function in order, computed by threads while earlier ones are used."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Index = TypeVar("Index")
Result = TypeVar("Result")


def prefetch(load: Callable[[Index], Result], indices: Iterable[Index], workers: int) -> Iterator[Result]:
    """`load(index)` for each index, in order; the results do not depend on the number of workers.

    An exception of `load` is raised where its result was due. Closing the iterator (or letting go of it) cancels what
    has not begun and waits for what has, so that no thread is left; `contextlib.closing` does so at a known place.

    Args:
        load: called in several threads at once if `workers` > 1.
        indices: may be endless; read as far ahead as there are workers, plus one.
        workers: threads; 0 = load in the caller's thread, when the result is asked for.
    """
    if workers <= 0:
        yield from map(load, indices)
        return
    pending: deque[Future[Result]] = deque()
    remaining = iter(indices)
    pool = ThreadPoolExecutor(workers, "prefetch")
    try:
        pending.extend(pool.submit(load, index) for index in islice(remaining, workers + 1))
        while pending:
            yield pending.popleft().result()
            pending.extend(pool.submit(load, index) for index in islice(remaining, 1))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
