"""What surrounds the float16 convolutions; they themselves exist on GPUs alone."""

from __future__ import annotations

import paddle
import pytest

from models.mixed_precision import FLOAT32_OPERATIONS, LossScale, MixedPrecision
from tests.half import Half


@pytest.mark.parametrize(("precision", "kind"), [("fp16", "float16"), ("bf16", "bfloat16")])
def test_results_are_float32(precision, kind, monkeypatch):
    half = Half(monkeypatch)
    inside = []

    def network(x):
        inside.append(half.inside)
        return x.astype(kind), None, x.astype("int64")

    low, nothing, whole = MixedPrecision(precision)(network, paddle.to_tensor([1.5, 3.0]))
    assert (low.dtype, nothing, whole.dtype) == (paddle.float32, None, paddle.int64)
    assert low.numpy().tolist() == [1.5, 3.0]
    assert inside == [True] and not half.inside
    assert half.calls == [{"level": "O1", "dtype": kind, "custom_black_list": FLOAT32_OPERATIONS}]
    assert MixedPrecision(precision)(lambda x: x.astype(kind), paddle.ones([2])).dtype == paddle.float32


@pytest.mark.parametrize(("precision", "kind"), [("fp16", "float16"), ("bf16", "bfloat16")])
def test_a_layer_that_gets_float32(precision, kind, monkeypatch):
    class Seen(paddle.nn.Layer):
        def forward(self, *inputs):
            self.inputs = inputs
            return inputs[0]

    Half(monkeypatch)
    x, exact = paddle.to_tensor([1.5, 3.0]), paddle.to_tensor([1.1])
    for layer, wanted in ((Seen(), "float32"), (Seen(), kind)):
        mixed = MixedPrecision(precision if wanted == "float32" else "fp32", [layer])
        low = x.astype(kind)
        mixed(layer, low, low, exact, None)
        first, second, third, last = layer.inputs
        assert str(first.dtype).split(".")[-1] == wanted and first.astype("float32").numpy().tolist() == [1.5, 3.0]
        assert first is second and third is exact and last is None


def test_none_only_calls(monkeypatch):
    half, x = Half(monkeypatch), paddle.ones([2])
    assert MixedPrecision()(lambda value: value, x) is x
    assert half.calls == []
    with pytest.raises(ValueError, match="must be one of .*, not 'float8'"):
        MixedPrecision("float8")


@pytest.mark.parametrize(("precision", "kind"), [("fp16", "float16"), ("bf16", "bfloat16")])
def test_paddle_knows_the_arguments(precision, kind):
    """The names of options and of the operations' list; Paddle warns that a CPU has nothing for it."""
    with pytest.warns(UserWarning, match="makes no effect"):
        assert MixedPrecision(precision)(paddle.nn.Conv2D(1, 1, 1), paddle.ones([1, 1, 2, 2])).dtype == paddle.float32
    white, black = paddle.amp.auto_cast.__globals__["_update_list"](None, FLOAT32_OPERATIONS, "O1", kind)
    assert "conv2d" in white and not white & set(FLOAT32_OPERATIONS)
    assert set(FLOAT32_OPERATIONS) <= black and {"softmax", "reduce_sum"} <= black


def test_scale_by_hand():
    scale = LossScale(8.0, interval=2)
    gradients = [paddle.to_tensor([8.0, -4.0]), paddle.to_tensor(1.0)]
    scale.remove_from(gradients)
    assert [g.numpy().tolist() for g in gradients] == [[1.0, -0.5], 0.125]
    found = []
    for good in (True, True, True, False, True, True, False, False, False, False, False):
        found.append(scale.update_done() if good else scale.lower())
        found[-1] = (found[-1], *scale.state)
    assert found == [
        (None, 8, 1), (None, 16, 0), (None, 16, 1), (True, 8, 0), (None, 8, 1), (None, 16, 0),
        (True, 8, 0), (True, 4, 0), (True, 2, 0), (True, 1, 0), (False, 1, 0),
    ]  # fmt: skip


def test_state_of_a_scale():
    scale, other = LossScale(2.0**20, interval=10), LossScale()
    scale.update_done()
    other.state = scale.state
    assert other.state == [2.0**20, 1.0]
    for bad in ([0.5, 0], [4.0, -1], [4.0, 1.5], [float("nan"), 0], [4.0], [1.0, 2.0, 3.0]):
        with pytest.raises(ValueError):
            other.state = bad
    assert other.state == [2.0**20, 1.0]
