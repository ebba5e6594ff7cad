"""Work done in threads beside the main one, its results in the order of the calls."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


def run_ahead(calls: Iterable[Callable[[], Result]], workers: int) -> Iterator[Result]:
    """The results of `calls` in their order; up to `workers` run at once, while the next call is made.

    At most two calls a worker wait, so that what they hold stays bounded. 0 workers: one by one, here.
    An exception of a call comes out in its place.
    """
    if workers == 0:
        for call in calls:
            yield call()
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting = deque()
        for call in calls:
            waiting.append(pool.submit(call))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
