"""One rank alone; several are in tests/faults/test_ranks.py."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import paddle
import pytest

from utils.cli import UserError
from utils.ranks import Ranks


def test_alone(monkeypatch):
    monkeypatch.delenv("PADDLE_TRAINERS_NUM", raising=False)
    monkeypatch.setenv("PADDLE_TRAINER_ID", "3")  # means nothing without a number of ranks
    ranks = Ranks()
    assert (ranks.rank, ranks.size, ranks.first) == (0, 1, True)
    tensor = paddle.to_tensor([1.0, 2.0])
    ranks.average([tensor])
    assert tensor.numpy().tolist() == [1, 2]
    assert ranks.largest(-5) == -5
    for resume in (False, "latest", "b.npz"):
        assert ranks.agree_on_checkpoint(SimpleNamespace(resume=resume), "run", "a.npz") == "a.npz"
        assert ranks.agree_on_checkpoint(SimpleNamespace(resume=resume), "run", None) is None
    ranks.check_same(None)


@pytest.fixture
def three(monkeypatch):
    """Rank 1 of three, of which the others hold twice and five times the same."""
    monkeypatch.delenv("PADDLE_TRAINERS_NUM", raising=False)
    ranks = Ranks()
    ranks.size, ranks.rank = 3, 1

    def all_reduce(tensor, op=paddle.distributed.ReduceOp.SUM):
        total = op == paddle.distributed.ReduceOp.SUM
        paddle.assign(tensor * 8 if total else paddle.maximum(tensor, tensor * 5), output=tensor)

    monkeypatch.setattr(paddle.distributed, "all_reduce", all_reduce)
    return ranks


def test_average_of_several_by_hand(three):
    first, second = paddle.to_tensor([[3.0, 6.0]]), paddle.to_tensor(9.0)
    three.average([first, second])
    assert first.numpy().tolist() == [[8, 16]] and second.shape == [] and float(second) == 24


def test_average_reaches_gradients(three):
    weight = paddle.to_tensor([2.0], stop_gradient=False)
    (weight * 3).sum().backward()
    three.average([weight.grad])
    assert weight.grad.numpy().tolist() == [8]
    paddle.optimizer.SGD(0.5, parameters=[weight]).step()
    assert weight.numpy().tolist() == [-2]


def test_the_checkpoint_of_rank_0_is_everybodys(three, monkeypatch):
    monkeypatch.setattr(three, "largest", lambda number: max(number, 12))
    folder = "run"
    assert three.agree_on_checkpoint(SimpleNamespace(resume="latest"), folder, None) == "run/checkpoint_00000012.npz"
    assert three.agree_on_checkpoint(SimpleNamespace(resume="b.npz"), folder, None) == "b.npz"
    assert three.agree_on_checkpoint(SimpleNamespace(resume=False), folder, None) is None
    three.rank = 0
    found = "run/checkpoint_00000012.npz"
    assert three.agree_on_checkpoint(SimpleNamespace(resume="latest"), folder, found) == found


def test_drift_is_an_error(three, monkeypatch):
    monkeypatch.setattr("utils.ranks.weights_digest", lambda trainer: trainer)
    with pytest.raises(UserError, match="rank 1: the weights of the ranks have drifted apart; nothing was saved"):
        three.check_same(7)


def test_others_that_are_gone(three, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("Connection closed\nby peer")

    monkeypatch.setattr(paddle.distributed, "all_reduce", broken)
    for call in (lambda: three.average([paddle.to_tensor(np.ones(2, np.float32))]), lambda: three.largest(1)):
        with pytest.raises(UserError, match=r"^rank 1 of 3: another rank has ended .*\(Connection closed by peer\)$"):
            call()
