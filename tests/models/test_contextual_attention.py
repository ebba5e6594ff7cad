"""Contextual attention against TF1's recorded arrays and against the literal NumPy version.

Tolerances, float32: features 1e-4 absolute on values up to about 1 (1e-5 relative to the largest value beyond
that); gradients 1e-4 relative to the largest gradient; offsets equal wherever the best weight leads by 1e-3.
"""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from models import contextual_attention, patch_matching
from models.contextual_attention import ContextualAttention, resize_nearest
from models.layers import nearest_index
from tests import oracle

CASES = [
    "a_same_mask_fuse",
    "b_same_nomask_fuse",
    "c_same_mask_nofuse",
    "d_same_mask_fuse_rect",
    "e_same_nomask_nofuse_rect",
    "f_diff_mask_fuse",
    "g_diff_nomask_fuse_rect",
    "h_same_irregularmask_fuse",
    "i_soft_mask_fuse",
    "j_zeroregion_nomask_fuse",
    "k_sharp_mask_fuse",
    "l_allhole_fuse",
]
BOTH = pytest.mark.parametrize("dialect", ["tf1", "pytorch"])


def attend(f, b=None, mask=None, toward=None, **options):
    """Features, offsets and the gradients of sum(features * toward) for f and b (None: b is f)."""
    foreground = paddle.to_tensor(f, stop_gradient=False)
    background = foreground if b is None else paddle.to_tensor(b, stop_gradient=False)
    mask = None if mask is None else paddle.to_tensor(mask)
    features, offsets = ContextualAttention(**options)(foreground, background, mask)
    toward = np.ones(features.shape, np.float32) if toward is None else toward
    (features * paddle.to_tensor(toward)).sum().backward()
    grad_b = None if b is None else background.grad.numpy()
    return features.numpy(), offsets.numpy(), foreground.grad.numpy(), grad_b


def relative(found, expected):
    return np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30)


def random_features(rng, n, c, h, w):
    """As after ReLU: non-negative, many zeros, smooth enough to have clear matches."""
    coarse = rng.normal(0.2, 0.5, (n, c, -(-h // 4), -(-w // 4))).repeat(4, 2).repeat(4, 3)[:, :, :h, :w]
    return np.maximum(coarse + rng.normal(0, 0.2, (n, c, h, w)), 0).astype(np.float32)


def box_mask(n, h, w, *boxes):
    mask = np.zeros((n, 1, h, w), np.float32)
    for sample, (top, left, height, width) in enumerate(boxes):
        mask[sample, :, top : top + height, left : left + width] = 1
    return mask


@pytest.mark.parametrize("case", CASES)
def test_recorded_arrays(golden, case):
    with np.load(golden / "tf1_contextual_attention.npz") as file:
        assert {key.split("/")[0] for key in file.files} == set(CASES)
        data = {key.split("/")[1]: file[key] for key in file.files if key.startswith(case + "/")}
    features, offsets, grad_f, grad_b = attend(
        data["f"], data.get("b"), data.get("mask"), data["R"], fuse=bool(data["fuse"])
    )
    assert np.abs(features - data["y"]).max() <= 1e-4
    clear = (data["top2_gap"] > 1e-3).repeat(2, axis=1)
    assert clear.any() or case == "l_allhole_fuse"
    assert (offsets == data["offsets_rel"])[clear].all()
    assert relative(grad_f, data["grad_f"]) <= 1e-4
    assert ("grad_b" in data) == (grad_b is not None)
    if grad_b is not None:
        assert relative(grad_b, data["grad_b"]) <= 1e-4


def test_recorded_nearest_indices(golden):
    with np.load(golden / "tf1_nearest_align_corners.npz") as file:
        for key in file.files:
            size, out_size = (int(word) for word in key.split("_")[2::2])
            assert nearest_index(size, out_size, "tf1").tolist() == file[key].tolist(), key


@pytest.mark.parametrize("case", ["d_same_mask_fuse_rect", "g_diff_nomask_fuse_rect"])
def test_the_oracle_itself_against_recorded_arrays(golden, case):
    with np.load(golden / "tf1_contextual_attention.npz") as file:
        data = {key.split("/")[1]: file[key] for key in file.files if key.startswith(case + "/")}
    features, offsets, gap = oracle.contextual_attention(
        data["f"], data.get("b", data["f"]), data.get("mask")
    )
    assert np.abs(features - data["y"]).max() <= 1e-5
    assert (offsets == data["offsets_rel"])[(data["top2_gap"] > 1e-3).repeat(2, axis=1)].all()
    assert np.abs(gap - data["top2_gap"][:, 0]).max() <= 1e-4


# (foreground, background or None for the same, boxes of the mask or None); small enough for the literal loop
SHAPES = {
    "square, a mask per sample": ((3, 5, 16, 16), None, [(4, 4, 6, 6), (0, 0, 7, 5), (9, 2, 3, 14)]),
    "one mask for all": ((2, 4, 12, 16), None, [(3, 5, 5, 4)]),
    "no mask": ((2, 3, 10, 14), None, None),
    "larger background": ((2, 3, 8, 12), (2, 3, 14, 10), [(2, 1, 5, 6), (6, 4, 8, 3)]),
    "smaller background": ((2, 3, 16, 10), (2, 3, 4, 6), [(0, 0, 1, 1), (3, 5, 1, 1)]),
    "one row of patches": ((2, 3, 2, 16), None, [(0, 12, 2, 4), (0, 0, 1, 3)]),
    "one column of patches": ((2, 3, 16, 2), None, None),
    "one patch": ((2, 3, 2, 2), None, None),
    "one background patch": ((2, 3, 6, 8), (2, 3, 2, 2), None),
    "odd number of patches": ((1, 3, 18, 22), None, [(5, 5, 4, 4)]),
}


def example(shape):
    f_shape, b_shape, boxes = SHAPES[shape]
    rng = np.random.default_rng(len(shape))
    f = random_features(rng, *f_shape)
    b = None if b_shape is None else random_features(rng, *b_shape)
    mask = None if boxes is None else box_mask(len(boxes), *(b_shape or f_shape)[2:], *boxes)
    return f, b, mask, rng.normal(size=f_shape).astype(np.float32)


@BOTH
@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_oracle(shape, fuse, dialect):
    f, b, mask, toward = example(shape)
    features, offsets, grad_f, grad_b = attend(f, b, mask, toward, fuse=fuse, dialect=dialect)
    expected, expected_offsets, gap = oracle.contextual_attention(
        f, f if b is None else b, mask, fuse, dialect
    )
    assert features.dtype == np.float32 and offsets.dtype == np.int64
    assert features.shape == f.shape and offsets.shape == expected_offsets.shape
    assert relative(features, expected) <= 2e-5
    clear = np.broadcast_to((gap > 1e-3)[:, None], offsets.shape)
    assert clear.any() and (offsets == expected_offsets)[clear].all()

    # Gradients along random directions, by central differences of the oracle in float64
    rng = np.random.default_rng(1)
    gradients = [grad_f] if b is None else [grad_f, grad_b]
    directions = [rng.normal(size=gradient.shape) for gradient in gradients]

    def value(f, b=None):
        return (oracle.contextual_attention(f, f if b is None else b, mask, fuse, dialect)[0] * toward).sum()

    slope = oracle.slope_along(value, [f] if b is None else [f, b], directions, 1e-6)
    found = sum((gradient * direction).sum() for gradient, direction in zip(gradients, directions))
    scale = np.sqrt(sum((gradient.astype(np.float64) ** 2).sum() for gradient in gradients))
    assert abs(found - slope) <= 3e-4 * scale


@BOTH
@pytest.mark.parametrize("softmax_scale", [1.0, 50.0])
def test_other_softmax_scales(softmax_scale, dialect):
    f, b, mask, _ = example("larger background")
    options = {"softmax_scale": softmax_scale, "dialect": dialect}
    features, _, _, _ = attend(f, b, mask, **options)
    assert relative(features, oracle.contextual_attention(f, b, mask, **options)[0]) <= 5e-5


@BOTH
@pytest.mark.parametrize("scale", [1e-6, 1e-5, 3e-5, 1e-4, 1e-3])
def test_floor_of_the_patch_norm(scale, dialect):
    """Background patches around the norm where dividing by it ends."""
    f, b, mask, toward = example("larger background")
    b = b * np.float32(scale)
    features, _, grad_f, grad_b = attend(f, b, mask, toward, dialect=dialect)
    assert relative(features, oracle.contextual_attention(f, b, mask, dialect=dialect)[0]) <= 5e-5
    assert np.isfinite(grad_f).all() and np.isfinite(grad_b).all()


def test_batch_is_a_loop_of_singles():
    f, b, mask, toward = example("square, a mask per sample")
    b = random_features(np.random.default_rng(3), *f.shape)
    whole = attend(f, b, mask, toward)
    for n in range(len(f)):
        single = attend(f[n : n + 1], b[n : n + 1], mask[n : n + 1], toward[n : n + 1])
        for batched, alone in zip(whole, single):
            assert np.abs(batched[n : n + 1] - alone).max() <= 1e-5 * max(1, np.abs(alone).max())
    assert np.abs(whole[0][0] - attend(f[:1], b[:1], mask[1:2])[0][0]).max() > 1e-2  # the masks do matter


def test_without_gradients_the_same():
    f, b, mask, _ = example("square, a mask per sample")
    features, offsets, _, _ = attend(f, b, mask)
    with paddle.no_grad():
        quiet, quiet_offsets = ContextualAttention()(
            paddle.to_tensor(f), paddle.to_tensor(f), paddle.to_tensor(mask)
        )
    assert np.array_equal(quiet.numpy(), features) and np.array_equal(quiet_offsets.numpy(), offsets)
    assert features.any()


@pytest.mark.parametrize("rows", [1, 2, 3, 5])
@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_in_chunks_the_same(monkeypatch, shape, fuse, rows):
    """Without gradients and with little memory: some foreground rows at a time."""
    f, b, mask, _ = example(shape)
    background = f if b is None else b
    grid_b = [side // 2 for side in background.shape[2:]]
    row_bytes = 4 * patch_matching.LIVE_MATRICES * len(f) * (f.shape[3] // 2) * (grid_b[0] + 1) * grid_b[1]
    monkeypatch.setattr(patch_matching, "HALO_ROWS", 0)
    monkeypatch.setattr(patch_matching, "MEMORY_BUDGET", rows * row_bytes)
    sizes = []
    whole = patch_matching.attend_in_chunks
    monkeypatch.setattr(
        patch_matching, "attend_in_chunks", lambda *inputs: sizes.append(inputs[-1]) or whole(*inputs)
    )
    inputs = [paddle.to_tensor(x) for x in (f, background)]
    with paddle.no_grad():
        features, offsets = ContextualAttention(fuse=fuse)(
            *inputs, None if mask is None else paddle.to_tensor(mask)
        )
    assert sizes == ([rows] if rows <= f.shape[2] // 2 else [])
    expected, expected_offsets, gap = oracle.contextual_attention(f, background, mask, fuse)
    assert relative(features.numpy(), expected) <= 2e-5
    clear = np.broadcast_to((gap > 1e-3)[:, None], offsets.shape)
    assert (offsets.numpy() == expected_offsets)[clear].all()


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("masks", [None, 1, 3])
@pytest.mark.parametrize("same", [True, False])
def test_in_groups_of_samples_the_same(monkeypatch, same, masks, size):
    """As a CPU handles large features; also forwards alone, where nothing is kept."""
    rng = np.random.default_rng(5)
    f, b = random_features(rng, 3, 4, 12, 16), None if same else random_features(rng, 3, 4, 10, 8)
    boxes = [(4, 4, 4, 3), (0, 0, 3, 5), (6, 2, 3, 4)][:masks]
    mask = None if masks is None else box_mask(masks, *(f if same else b).shape[2:], *boxes)
    toward = rng.normal(size=f.shape).astype(np.float32)
    whole = attend(f, b, mask, toward)
    calls = []
    once = ContextualAttention.attend
    monkeypatch.setattr(ContextualAttention, "attend", lambda *x: calls.append(x[1].shape[0]) or once(*x))
    matrix = 7 * 8 * (7 * 8 if same else 6 * 4)
    monkeypatch.setattr(contextual_attention, "GROUP_BUDGET", size * 4 * patch_matching.LIVE_MATRICES * matrix)
    parts = attend(f, b, mask, toward)
    assert calls == [1] * 3 if size == 1 else [2, 1]
    assert len(whole) == len(parts) and (whole[3] is None) == same
    for found, expected in zip(parts, whole):
        assert (found is None and expected is None) or relative(found, expected) <= 1e-6


def test_numbers_of_samples_that_do_not_fit():
    layer, x, mask = ContextualAttention(), paddle.zeros([3, 2, 8, 8]), paddle.zeros([2, 1, 8, 8])
    with pytest.raises(ValueError, match="3 foregrounds, 3 backgrounds and 2 masks"):
        layer(x, x, mask)
    with pytest.raises(ValueError, match="3 foregrounds, 1 backgrounds"):
        layer(x, x[:1])


def test_gradient_of_one_of_the_two_only():
    f, b, mask, toward = example("larger background")
    _, _, grad_f, grad_b = attend(f, b, mask, toward)
    for needed in (0, 1):
        inputs = [paddle.to_tensor(x, stop_gradient=k != needed) for k, x in enumerate((f, b))]
        features, _ = ContextualAttention()(*inputs, paddle.to_tensor(mask))
        (features * paddle.to_tensor(toward)).sum().backward()
        assert np.array_equal(inputs[needed].grad.numpy(), (grad_f, grad_b)[needed])
        assert inputs[1 - needed].grad is None


@BOTH
def test_all_hole_gives_zeros_and_an_empty_mask_is_no_mask(dialect):
    f, _, _, toward = example("no mask")
    features, offsets, grad_f, _ = attend(
        f, None, box_mask(1, 10, 14, (0, 0, 10, 14)), toward, dialect=dialect
    )
    assert not features.any() and not grad_f.any()
    own = np.stack(np.meshgrid(np.arange(5), np.arange(7), indexing="ij"))
    assert (offsets == -own).all()  # of equals, the first patch
    for empty, none in zip(
        attend(f, None, np.zeros((1, 1, 10, 14), np.float32), toward, dialect=dialect),
        attend(f, None, None, toward, dialect=dialect),
    ):
        assert empty is none is None or (np.isfinite(empty).all() and np.array_equal(empty, none))


@BOTH
@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e3])
def test_finite_for_zero_tiny_and_large_features(scale, dialect):
    f, _, _, toward = example("no mask")
    mask = box_mask(2, 10, 14, (2, 2, 4, 4), (0, 0, 10, 14))
    f[:, :, :, 8:] = 0  # whole patches of zeros
    for result in attend(f * np.float32(scale), None, mask, toward, dialect=dialect)[:3]:
        assert np.isfinite(result).all()


def test_any_mask_value_but_zero_is_a_hole():
    f, _, mask, toward = example("square, a mask per sample")
    for hard, soft in zip(attend(f, None, mask, toward)[:3], attend(f, None, mask * 0.01, toward)[:3]):
        assert np.array_equal(hard, soft)


@pytest.mark.parametrize("size", [8, 12, 16, 24, 40, 64, 136])
def test_resize_nearest(size):
    x = np.arange(size * (size + 4), dtype=np.float32).reshape(1, 1, size, size + 4)
    for dialect in ("tf1", "pytorch"):
        for factor in (2, 4):
            found = resize_nearest(paddle.to_tensor(x), factor, dialect).numpy()
            assert np.array_equal(found, oracle.shrink(x, factor, dialect))


def test_nearest_index_by_hand():
    assert nearest_index(64, 32, "tf1")[[0, 1, 15, 16, 30, 31]].tolist() == [0, 2, 30, 33, 61, 63]
    assert nearest_index(64, 32, "pytorch")[[0, 1, 15, 16, 31]].tolist() == [0, 2, 30, 32, 62]
    assert nearest_index(2, 1, "tf1").tolist() == [0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 4}, "rate 2"),
        ({"fuse_kernel": 5}, "fuse_kernel 3"),
        ({"kernel_size": 5}, "kernel_size 3"),
        ({"dialect": "caffe"}, "dialect must be one of"),
    ],
)
def test_refused_options(options, message):
    with pytest.raises(ValueError, match=message):
        ContextualAttention(**options)


def test_odd_sides_are_refused():
    with pytest.raises(ValueError, match="must be even"):
        attend(np.zeros((1, 2, 6, 7), np.float32))


@BOTH
@pytest.mark.parametrize("fuse", [True, False])
def test_weights_of_one_position_are_a_row_of_all_weights(dialect, fuse):
    """Every position, two samples with masks of their own, other sizes on both sides; soft, so that all count."""
    rng = np.random.default_rng(12)
    f, b = random_features(rng, 2, 3, 8, 10), random_features(rng, 2, 3, 12, 6)
    mask = box_mask(2, 12, 6, (0, 0, 4, 2), (6, 1, 3, 4))
    layer = ContextualAttention(fuse=fuse, dialect=dialect, softmax_scale=1.0)
    inputs = [paddle.to_tensor(array) for array in (f, b, mask)]
    every = [oracle.attention_weights(f[n], b[n], mask[n], fuse, dialect, 1.0) for n in range(2)]
    every = np.stack(every).reshape(2, 4, 5, 6, 3)
    for row, column in np.ndindex(4, 5):
        weights = layer.weights_at(*inputs, row, column)
        assert weights.shape == [2, 6, 3]
        assert weights.stop_gradient
        assert np.abs(weights.numpy() - every[:, row, column]).max() <= 1e-6


def test_weights_of_one_position_agree_with_the_offsets():
    rng = np.random.default_rng(13)
    f = paddle.to_tensor(random_features(rng, 1, 8, 16, 20))
    mask = paddle.to_tensor(box_mask(1, 16, 20, (4, 4, 6, 8)))
    layer = ContextualAttention()
    _, offsets = layer(f, f, mask)
    for row, column in ((3, 4), (0, 0), (7, 9)):
        best = np.unravel_index(layer.weights_at(f, f, mask, row, column).numpy()[0].argmax(), (8, 10))
        assert tuple(offsets[0, :, row, column].numpy() + (row, column)) == best


@pytest.mark.parametrize("position", [(-1, 0), (4, 0), (0, 5)])
def test_weights_of_a_position_outside(position):
    f = paddle.ones([1, 3, 8, 10])
    with pytest.raises(ValueError, match="is outside the foreground's 4x5"):
        ContextualAttention().weights_at(f, f, None, *position)
