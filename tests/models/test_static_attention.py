"""The attention of programs against that of the network; called directly, since it is the same code in both modes."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from models.contextual_attention import ContextualAttention
from models.export import mosaic
from models.layers import hide_hole, nearest_index
from models.static_attention import attend_statically, nearest_positions, overlap, resize_statically

BOTH = pytest.mark.parametrize("dialect", ["tf1", "pytorch"])


def features(height: int, width: int, count: int = 2, seed: int = 0):
    values = np.random.default_rng(seed).normal(0, 1, (count, 5, height, width))
    return paddle.to_tensor(np.maximum(values, 0).astype(np.float32))


def hole(height: int, width: int, kind: str):
    mask = np.zeros((1 if kind == "one for all" else 2, 1, height, width), np.float32)
    if kind == "all hole":
        mask[:] = 1
    elif kind != "no hole":
        mask[0, 0, height // 2 :, : width // 2] = 1
        mask[-1, 0, : height // 2, width // 2 :] = 1
    return paddle.to_tensor(mask)


@BOTH
@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("kind", ["a hole each", "one for all", "no hole", "all hole"])
@pytest.mark.parametrize("size", [(8, 12), (14, 10)])
@paddle.no_grad()
def test_is_the_attention_of_the_network(size, kind, fuse, dialect) -> None:
    x, mask = features(*size), hole(*size, kind)
    wanted, wanted_offsets = ContextualAttention(fuse=fuse, dialect=dialect)(x, x, mask)
    found, offsets = attend_statically(x, mask, 10.0, fuse, dialect)
    np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=0, atol=2e-5)
    np.testing.assert_array_equal(offsets.numpy(), wanted_offsets.numpy())
    assert (np.abs(found.numpy()).max() == 0) == (kind == "all hole")


@BOTH
@pytest.mark.parametrize("size", [(2, 2), (2, 8), (8, 2)])
@paddle.no_grad()
def test_a_single_row_column_or_patch(size, dialect) -> None:
    x = features(*size)
    mask = paddle.zeros([1, 1, *size])
    wanted, _ = ContextualAttention(dialect=dialect)(x, x, mask)
    found, _ = attend_statically(x, mask, 10.0, True, dialect)
    np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=0, atol=2e-5)


@BOTH
@pytest.mark.parametrize("factor", [2, 4])
def test_positions_are_the_networks_for_all_sizes(factor, dialect) -> None:
    """All picture sides up to 4096: the features' (a quarter) are halved, the masks' quartered."""
    step = 8 if factor == 4 else 2
    for size in range(step, 4097 if factor == 4 else 1025, step):
        found = nearest_positions(paddle.to_tensor(size, dtype="int64"), factor, dialect).numpy()
        np.testing.assert_array_equal(found, nearest_index(size, size // factor, dialect), err_msg=str(size))


def test_resize_takes_rows_and_columns() -> None:
    x = paddle.arange(32, dtype="float32").reshape([1, 1, 4, 8])
    # tf1, 4 to 2: rows 0 and 3; 8 to 4: scale 7/3, columns 0, 2.83 -> 2, 5.17 -> 5, 7.5 -> 7
    assert resize_statically(x, 2, "tf1")[0, 0].tolist() == [[0, 2, 5, 7], [24, 26, 29, 31]]
    assert resize_statically(x, 2, "pytorch")[0, 0].tolist() == [[0, 2, 4, 6], [16, 18, 20, 22]]


def test_overlap_sums_what_falls_on_a_pixel() -> None:
    """Patches of ones, 1x2 of them: rows 0 and 1 and the inner columns of 4; where both lie, 2."""
    pasted = paddle.ones([1, 16, 1, 2])
    assert overlap(pasted, 1)[0, 0].tolist() == [[1, 2, 2, 1], [1, 2, 2, 1]]


@pytest.mark.parametrize("size", [(8, 40), (24, 32)])
def test_mosaic_is_that_of_the_network(size) -> None:
    image = paddle.to_tensor(np.random.default_rng(1).uniform(-1, 1, (1, 3, *size)).astype(np.float32))
    ones = paddle.ones([1, 1, *size])
    np.testing.assert_array_equal(mosaic(image, 12).numpy(), hide_hole(image, ones, "mosaic", 12).numpy())
