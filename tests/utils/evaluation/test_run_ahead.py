from __future__ import annotations

import threading
from functools import partial

import pytest

from utils.evaluation.run_ahead import run_ahead


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_keep_the_order_of_the_calls(workers: int) -> None:
    first_may_end = threading.Event()

    def call(number: int) -> int:
        if workers > 1 and number == 0:
            assert first_may_end.wait(10)  # ends after the second, but comes out before it
        if number == 1:
            first_may_end.set()
        return number

    assert list(run_ahead((partial(call, k) for k in range(20)), workers)) == list(range(20))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_exception_comes_out_in_its_place(workers: int) -> None:
    results = run_ahead([lambda: 1, lambda: 2, lambda: 1 // 0, lambda: 3], workers)
    assert [next(results), next(results)] == [1, 2]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_no_more_than_a_few_wait() -> None:
    made = []

    def calls():
        for k in range(100):
            made.append(k)
            yield lambda: None

    results = run_ahead(calls(), 2)
    next(results)
    assert len(made) == 5
    results.close()
