"""Convolutions, upsampling, compositing, crops and the mosaic, against the oracle and values by hand."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from models.layers import ConvBlock, check_dialect, composite, crop_boxes, hide_hole, upsample_x2
from tests import oracle

ACTIVATIONS = {
    "elu": oracle.elu,
    "relu": lambda x: np.maximum(x, 0),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.2 * x),
    None: lambda x: x,
}


@pytest.mark.parametrize("dialect", ["tf1", "pytorch"])
@pytest.mark.parametrize("size", [(16, 24), (15, 9), (8, 13)])
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [(5, 1, 1), (3, 1, 1), (3, 2, 1), (5, 2, 1), (3, 1, 2), (3, 1, 16)]
)
def test_convolution(kernel, stride, dilation, size, dialect):
    rng = np.random.default_rng(0)
    block = ConvBlock(3, 4, kernel, stride, dilation, activation=None, dialect=dialect)
    weight, bias = rng.normal(size=block.conv.weight.shape), rng.normal(size=4)
    block.conv.weight.set_value(weight.astype(np.float32))
    block.conv.bias.set_value(bias.astype(np.float32))
    x = rng.normal(size=(2, 3, *size)).astype(np.float32)
    expected = oracle.conv(x, weight, bias, stride, dilation, dialect)
    assert expected.shape[2:] == tuple(-(-side // stride) for side in size)
    assert np.abs(block(paddle.to_tensor(x)).numpy() - expected).max() <= 5e-5


def test_padding_at_stride_2_by_hand():
    """Ones against a 3x3 kernel of ones: the corner sees 4 pixels if padded before, 9 if after."""
    for dialect, corner, opposite in (("tf1", 9, 4), ("pytorch", 4, 9)):
        block = ConvBlock(1, 1, 3, stride=2, activation=None, dialect=dialect)
        block.conv.weight.set_value(np.ones((1, 1, 3, 3), np.float32))
        y = block(paddle.ones([1, 1, 8, 8])).numpy()[0, 0]
        assert (y[0, 0], y[-1, -1]) == (corner, opposite)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activation(activation):
    block = ConvBlock(1, 1, 1, activation=activation)
    block.conv.weight.set_value(np.ones((1, 1, 1, 1), np.float32))
    x = np.linspace(-3, 3, 25).reshape(1, 1, 5, 5).astype(np.float32)
    assert np.abs(block(paddle.to_tensor(x)).numpy() - ACTIVATIONS[activation](x)).max() <= 1e-6


def test_initial_weights_are_glorot_uniform_with_zero_bias():
    paddle.seed(0)
    conv = ConvBlock(48, 32, 5).conv
    weight, limit = conv.weight.numpy(), np.sqrt(6 / (25 * (48 + 32)))
    assert not conv.bias.numpy().any()
    assert 0.99 * limit < np.abs(weight).max() <= limit * (1 + 1e-6)
    assert weight.std() == pytest.approx(limit / np.sqrt(3), rel=0.02)
    assert abs(weight.mean()) < 0.01 * limit


def test_upsample_x2():
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    assert np.array_equal(upsample_x2(paddle.to_tensor(x)).numpy(), oracle.repeat_x2(x))


def test_composite():
    rng = np.random.default_rng(0)
    generated, image = rng.normal(size=(2, 2, 3, 4, 4)).astype(np.float32)
    mask = (rng.random((2, 1, 4, 4)) > 0.5).astype(np.float32)
    found = composite(*(paddle.to_tensor(x) for x in (generated, image, mask))).numpy()
    assert np.array_equal(found, np.where(mask == 1, generated, image))


def test_crop_boxes():
    x = np.random.default_rng(0).normal(size=(2, 3, 8, 10)).astype(np.float32)
    one, two = [1, 2, 4, 5], [3, 0, 4, 5]
    tensor = paddle.to_tensor(x)
    assert np.array_equal(crop_boxes(tensor, [one]).numpy(), x[:, :, 1:5, 2:7])
    both = crop_boxes(tensor, np.array([one, two])).numpy()
    assert np.array_equal(both, np.stack([x[0, :, 1:5, 2:7], x[1, :, 3:7, 0:5]]))
    assert np.array_equal(both, oracle.crop(x, np.array([one, two])))


def test_refused_boxes():
    x = paddle.zeros([3, 1, 8, 8])
    with pytest.raises(ValueError, match="2 boxes for a batch of 3"):
        crop_boxes(x, [[0, 0, 2, 2]] * 2)
    with pytest.raises(ValueError, match="must have one size"):
        crop_boxes(x, [[0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 2, 3]])


@pytest.mark.parametrize(
    ("size", "unit"), [((64, 64), 12), ((40, 64), 12), ((16, 24), 5), ((16, 16), 40), ((8, 8), 1)]
)
def test_mosaic(size, unit):
    rng = np.random.default_rng(0)
    image = rng.uniform(-1, 1, (2, 3, *size)).astype(np.float32)
    mask = (rng.random((2, 1, *size)) > 0.3).astype(np.float32)
    shown = hide_hole(paddle.to_tensor(image), paddle.to_tensor(mask), "mosaic", unit).numpy()
    assert np.abs(shown - oracle.mosaic(image, mask, unit)).max() <= 1e-6
    assert np.array_equal(shown * (1 - mask), image * (1 - mask))


def test_mosaic_by_hand():
    """A side of 8 in units of 3: two blocks of four, showing pixels 0 and 3."""
    image = np.arange(8, dtype=np.float32) * np.ones((1, 3, 8, 1), np.float32)
    shown = hide_hole(paddle.to_tensor(image), paddle.ones([1, 1, 8, 8]), "mosaic", 3).numpy()
    assert shown[0, 0, 0].tolist() == [0, 0, 0, 0, 3, 3, 3, 3]


def test_hole():
    image = np.ones((2, 3, 4, 4), np.float32)
    mask = np.zeros((1, 1, 4, 4), np.float32)
    mask[:, :, 1:3] = 1
    shown = hide_hole(paddle.to_tensor(image), paddle.to_tensor(mask)).numpy()
    assert np.array_equal(shown, image * (1 - mask))
    with pytest.raises(ValueError, match="mask_type must be"):
        hide_hole(paddle.to_tensor(image), paddle.to_tensor(mask), "blur")


def test_unknown_dialect():
    with pytest.raises(ValueError, match="not 'caffe'"):
        check_dialect("caffe")
    with pytest.raises(ValueError, match="not 'caffe'"):
        ConvBlock(1, 1, stride=2, dialect="caffe")
