"""oneDNN's convolution against Paddle's own, its second gradients against finite differences, its limits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from models import convolution, onednn
from models.generator import InpaintingGenerator, hole_region
from models.layers import ACTIVATIONS, ConvBlock, composite
from utils.device import process_memory

PROJECT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(onednn.library() is None, reason="this Paddle brings no oneDNN of version 3")


def tensor(rng, *shape, fixed=False):
    return paddle.to_tensor(rng.standard_normal(shape).astype(np.float32), stop_gradient=fixed)


def laid_out(x, kind: int):
    """The same values as [N, C, H, W], as [N, H, W, C] in memory, or as a slice that is neither."""
    if kind == 0:
        return x
    if kind == 1:
        return x.transpose([0, 2, 3, 1]).contiguous().transpose([0, 3, 1, 2])
    return paddle.concat([x, x], axis=3)[:, :, :, : x.shape[3]]


def apart(found, wanted) -> float:
    """The largest difference, relative to the largest value."""
    return float(np.abs(found.numpy() - wanted.numpy()).max() / max(np.abs(wanted.numpy()).max(), 1e-6))


def random_case(rng):
    """Random shapes, stride, dilation, and padding that may differ on all four sides."""
    kernel = int(rng.choice([1, 3, 5]))
    dilation = int(rng.choice([1, 1, 2, 4])) if kernel == 3 else 1
    stride = int(rng.choice([1, 2])) if dilation == 1 else 1
    n, channels, outputs = int(rng.integers(1, 4)), *(int(v) for v in rng.integers(1, 20, 2))
    reach = dilation * (kernel - 1)
    height, width = (int(v) for v in rng.integers(max(reach + 1, 5), 24, 2))
    before, after = (tuple(int(v) for v in rng.integers(0, reach // 2 + 1, 2)) for _ in range(2))
    geometry = onednn.Geometry(stride, dilation, before, after)
    return (n, channels, height, width), (outputs, channels, kernel, kernel), geometry


@pytest.mark.parametrize("seed", range(10))
def test_values_and_gradients_are_those_of_paddles_convolution(seed):
    rng = np.random.default_rng(seed)
    for number in range(24):
        x_shape, w_shape, geometry = random_case(rng)
        activation = (None, "elu", "relu", "leaky_relu")[number % 4]
        x, w, b = tensor(rng, *x_shape), tensor(rng, *w_shape), tensor(rng, w_shape[0])
        given = laid_out(x, number % 3)
        (top, left), (bottom, right) = geometry.before, geometry.after
        wanted = F.conv2d(given, w, b, geometry.stride, [top, bottom, left, right], geometry.dilation)
        wanted = ACTIVATIONS[activation](wanted)
        found = convolution.convolve(given, w, b, geometry, activation)
        assert found.shape == wanted.shape == list(geometry.output_shape(x_shape, w_shape))
        assert apart(found, wanted) < 1e-5, (x_shape, w_shape, geometry)
        grad = tensor(rng, *wanted.shape, fixed=True)
        ours = paddle.grad([found], [x, w, b], [laid_out(grad, number % 2)], retain_graph=True)
        theirs = paddle.grad([wanted], [x, w, b], [grad])
        for one, other in zip(ours, theirs):
            assert apart(one, other) < 1e-4, (x_shape, w_shape, geometry)


@pytest.mark.parametrize("activation", [None, "elu", "relu", "leaky_relu"])
def test_second_gradients_against_finite_differences(activation):
    """Of a penalty on the gradient, in float64 by Paddle's own convolution, along random directions."""
    rng = np.random.default_rng(3)
    geometry = onednn.Geometry(2, 1, (1, 1), (2, 2))
    arrays = [rng.standard_normal(shape) for shape in ((2, 3, 8, 6), (4, 3, 5, 5), (4,))]

    def penalty(convolve, x, w, b):
        with convolution.input_gradients_only():
            (gradient,) = paddle.grad((convolve(x, w, b) ** 3).sum(), x, create_graph=True)
        return (gradient**2).sum() * 1e-4

    def exact(*values) -> float:
        x, w, b = (paddle.to_tensor(value, stop_gradient=i > 0) for i, value in enumerate(values))
        x.stop_gradient = False
        y = ACTIVATIONS[activation](F.conv2d(x, w, b, 2, [1, 2, 1, 2]))
        (gradient,) = paddle.grad((y**3).sum(), x)
        return float((gradient**2).sum().numpy()) * 1e-4

    tensors = [paddle.to_tensor(array.astype(np.float32), stop_gradient=False) for array in arrays]
    penalty(lambda x, w, b: convolution.convolve(x, w, b, geometry, activation), *tensors).backward()
    for index, array in enumerate(arrays):
        direction = rng.standard_normal(array.shape)
        moved = []
        for step in (1e-6, -1e-6):
            changed = list(arrays)
            changed[index] = array + step * direction
            moved.append(exact(*changed))
        wanted = (moved[0] - moved[1]) / 2e-6
        found = float((tensors[index].grad.numpy() * direction).sum())
        assert found == pytest.approx(wanted, rel=1e-3, abs=1e-4)


def test_blocks_are_the_same_with_and_without_it(monkeypatch):
    rng = np.random.default_rng(0)
    for dialect in ("tf1", "pytorch"):
        for kernel, stride in ((3, 2), (5, 2), (5, 1)):
            for side in (16, 17):
                block, x = ConvBlock(3, 5, kernel, stride, dialect=dialect), tensor(rng, 2, 3, side, side + 2)
                found = block(x)
                with monkeypatch.context() as patch:
                    patch.setattr(convolution, "library", lambda: None)
                    assert not convolution.usable(x) and convolution.backend() == "Paddle"
                    assert apart(found, block(x)) < 1e-5


def test_an_error_names_status_and_shapes():
    x, w = paddle.zeros([1, 3, 4, 4]), paddle.zeros([2, 5, 3, 3])
    with pytest.raises(RuntimeError, match=r"oneDNN: .*: (invalid arguments|unimplemented); .*\[1, 3, 4, 4\]"):
        convolution.convolve(x, w, paddle.zeros([2]), onednn.Geometry(1, 1, (0, 0), (0, 0)))


def test_what_it_does_not_take_is_paddles():
    assert convolution.usable(paddle.zeros([1]))
    assert not convolution.usable(paddle.zeros([1], "float64"))
    paddle.enable_static()
    try:
        assert not convolution.usable(paddle.static.data("x", [1, 3, 8, 8]))
    finally:
        paddle.disable_static()


def test_the_environment_turns_it_off():
    code = "import models.convolution as c, paddle; print(c.backend(), c.usable(paddle.zeros([1])))"
    for value, words in (("paddle", "Paddle False"), ("onednn", "oneDNN True")):
        environment = {**os.environ, "DEEPFILL_CONVOLUTION": value, "CUDA_VISIBLE_DEVICES": ""}
        child = subprocess.run(
            [sys.executable, "-c", code], cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=120
        )
        assert child.stdout.strip() == words, child.stderr


def test_ten_thousand_calls_keep_no_memory():
    """Primitives are kept by shape, in a bounded table; everything else is given back."""
    x, w, b = paddle.rand([1, 4, 8, 8]), paddle.rand([4, 4, 3, 3]), paddle.rand([4])
    geometry = onednn.Geometry(1, 1, (1, 1), (1, 1))

    def call(times: int):
        for _ in range(times):
            convolution.convolve(x, w, b, geometry, "elu")

    call(200)
    before = process_memory("VmRSS")
    if before is None:
        pytest.skip("this system does not tell a process's memory")
    call(10_000)
    assert process_memory("VmRSS") - before < 8  # MiB
    assert onednn.convolution.cache_info().maxsize == onednn.PRIMITIVES


@pytest.mark.parametrize("box", [(24, 40, 40, 24), (0, 0, 16, 16), (72, 72, 24, 24), (0, 8, 96, 80)])
@pytest.mark.parametrize("dialect", ["tf1", "pytorch"])
def test_in_the_hole_a_region_gives_what_the_whole_gives(box, dialect):
    paddle.seed(1)
    network = InpaintingGenerator(4, dialect)
    rng = np.random.default_rng(0)
    top, left, height, width = box
    mask = np.zeros((1, 1, 96, 96), np.float32)
    mask[:, :, top : top + height, left : left + width] = 1
    image = paddle.to_tensor(rng.uniform(-1, 1, (2, 3, 96, 96)).astype(np.float32))
    mask_tensor = paddle.to_tensor(mask)
    hidden = image * (1 - mask_tensor)
    region = hole_region(mask)
    with paddle.no_grad():
        whole = network(hidden, mask_tensor)
        part = network(hidden, mask_tensor, region)
    for found, wanted in zip(part[:2], whole[:2]):
        assert apart(composite(found, image, mask_tensor), composite(wanted, image, mask_tensor)) < 1e-5
    np.testing.assert_array_equal(part[2].numpy(), whole[2].numpy())
    assert hole_region(np.zeros((1, 1, 96, 96))) is None
