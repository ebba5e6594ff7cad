"""Contextual attention: rebuild each foreground patch from the background patches that resemble it.

Paper: section 4.1; TF1: `contextual_attention`. With f = foreground, b = background and features [N, C, H, W]:

1. f, b and the mask are halved by nearest neighbour to h x w.
2. score[p, q] = <3x3 patch of f at p, 3x3 patch of b at q / its norm>, for all p and q.
3. Fusion: neighbours that move together reinforce each other. The score matrix is summed over three diagonal
   neighbours, once with positions numbered row by row and once column by column.
4. Patches that touch the hole have their scores multiplied by 0 before the softmax over q and their weights
   multiplied by 0 after it.
5. The 4x4 patches of the full-size b are pasted at stride 2, weighted, and divided by 4.

Here no patch is ever cut out. A sum over patch pixels is a sum over shifts of a matrix M[p, q] to
M[p + d, q + d], and in a flattened matrix such a diagonal shift is one contiguous shift:

* scores: the Gram matrix of rows of three pixels, summed over three vertical shifts;
* fusion: two more sums over three shifts;
* pasting: output rows 2r and 2r + 1 each need one matmul, with M + M shifted down and M + M shifted up.

Positions carry one row of zeros after the last one ("slack", so l = (h + 1) * w), which a vertical shift
reads where it leaves the picture, at either end. Every step is symmetric in p and q or has a simple adjoint,
so the backward pass is written out and keeps two matrices a sample instead of a dozen.
"""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn as nn
import paddle.nn.functional as F
from paddle.autograd import PyLayer

from models.layers import check_dialect

# Weights below this change nothing that float32 can show, but as denormals they slow a CPU matmul 20 times.
NEGLIGIBLE_WEIGHT = 1e-30


class ContextualAttention(nn.Layer):
    """The attention layer; it has no parameters.

    Args:
        rate: side of the downscaling before matching; only the paper's 2 is implemented.
        kernel_size: side of the matching patches, odd.
        fuse_kernel: how many diagonal neighbours fusion sums, the position itself included; only 3.
        softmax_scale: factor on the scores before the softmax.
        fuse: whether to fuse at all.
        dialect: "tf1": nearest downscale with aligned corners, patch norm max(norm, 1e-4);
            "pytorch": nearest downscale by floor, patch norm sqrt(sum(w*w + 1e-4)).

    Call with foreground [N, C, H, W], background [N, C, H', W'] (even sides) and mask [N or 1, 1, H', W'] of
    the background, 1 (or any other value but 0) = hole, or None. Returns features [N, C, H, W] and offsets
    [N, 2, H/2, W/2] (int64): row and column of the best background patch minus the own position, in units of
    the halved grid. Ties go to the first patch; without any available patch all weights are 0 and the features too.
    """

    def __init__(
        self,
        rate: int = 2,
        kernel_size: int = 3,
        fuse_kernel: int = 3,
        softmax_scale: float = 10.0,
        fuse: bool = True,
        dialect: str = "tf1",
    ):
        super().__init__()
        if rate != 2 or fuse_kernel != 3:
            raise ValueError(f"only rate 2 and fuse_kernel 3 are implemented, not {rate} and {fuse_kernel}")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd and positive, not {kernel_size}")
        self.kernel_size = kernel_size
        self.softmax_scale = softmax_scale
        self.fuse = fuse
        self.dialect = check_dialect(dialect)

    def forward(self, foreground, background, mask=None):
        n, c, height, width = foreground.shape
        if height % 2 or width % 2 or background.shape[2] % 2 or background.shape[3] % 2:
            raise ValueError(f"feature sides must be even: {foreground.shape[2:]}, {background.shape[2:]}")
        small_f = halve(foreground, self.dialect)  # [N, C, h, w]
        small_b = small_f if background is foreground else halve(background, self.dialect)
        grid_f, grid_b = tuple(small_f.shape[2:]), tuple(small_b.shape[2:])

        available = paddle.ones([1, *grid_b]) if mask is None else self.available_patches(mask)
        available = available.expand([n, *grid_b])
        weight_scale = self.softmax_scale / self.patch_norms(small_b)  # [N, h', w']

        rows_f = pixel_rows(small_f, self.kernel_size)  # [N, C*k, l]
        rows_b = rows_f if background is foreground else pixel_rows(small_b, self.kernel_size)
        even, odd = paste_rows(background)  # each [N, C*4, l']
        geometry = Geometry(grid_f, grid_b, self.kernel_size // 2, self.fuse)
        inputs = (rows_f, rows_b, add_slack(weight_scale), add_slack(available), even, odd)
        if paddle.in_dynamic_mode() and paddle.is_grad_enabled():
            even, odd, best = _Attend.apply(*inputs, geometry)
        else:
            even, odd, best, _, _ = attend(*inputs, geometry)
        return overlap_columns(even, odd, grid_f), relative_offsets(best, geometry)

    def available_patches(self, mask):
        """1 where a background patch holds no hole pixel: [N or 1, 1, H', W'] -> [N or 1, h', w']."""
        holes = (halve(mask, self.dialect) != 0).astype("float32")
        touched = F.max_pool2d(holes, self.kernel_size, stride=1, padding=self.kernel_size // 2)
        return 1.0 - touched[:, 0]

    def patch_norms(self, small_b):
        """Norms of the zero-padded patches around each position: [N, C, h', w'] -> [N, h', w']."""
        k = self.kernel_size
        energy = (small_b * small_b).sum(axis=1, keepdim=True)
        energy = F.avg_pool2d(energy, k, stride=1, padding=k // 2, exclusive=False)[:, 0] * (k * k)
        if self.dialect == "pytorch":
            return paddle.sqrt(energy + 1e-4 * k * k * small_b.shape[1])
        # max(norm, 1e-4), with the floor inside the root so that an all-zero patch has a finite gradient
        return paddle.sqrt(paddle.clip(energy, min=1e-8))


class Geometry:
    """Grid sizes of both sides and what is summed over them; positions are numbered row by row, slack last."""

    def __init__(self, grid_f: tuple[int, int], grid_b: tuple[int, int], reach: int, fuse: bool):
        self.grid_f, self.grid_b = grid_f, grid_b
        self.reach = reach  # how many vertical neighbours on each side a matching patch has
        self.fuse = fuse

    @property
    def hw_f(self):
        return self.grid_f[0] * self.grid_f[1]

    @property
    def hw_b(self):
        return self.grid_b[0] * self.grid_b[1]


def nearest_index(size: int, out_size: int, dialect: str) -> np.ndarray:
    """Source positions of a nearest-neighbour downscale, int64 [out_size].

    tf1: floor(i * (size-1)/(out_size-1) + 0.5) in float32, corners aligned (neuralgym's `resize`);
    pytorch: floor(i * size/out_size).
    """
    position = np.arange(out_size)
    if check_dialect(dialect) == "pytorch":
        return position * size // out_size
    scale = np.float32((size - 1) / max(out_size - 1, 1))
    index = np.floor(position.astype(np.float32) * scale + np.float32(0.5)).astype(np.int64)
    return np.minimum(index, size - 1) if out_size > 1 else np.zeros(1, np.int64)


def resize_nearest(x, factor: int, dialect: str):
    """Nearest-neighbour downscale by an integer factor: [N, C, H, W] -> [N, C, H/factor, W/factor]."""
    for axis in (2, 3):
        index = nearest_index(x.shape[axis], x.shape[axis] // factor, dialect)
        x = paddle.index_select(x, paddle.to_tensor(index, dtype="int64"), axis=axis)
    return x


def halve(x, dialect: str):
    """[N, C, H, W] -> [N, C, H/2, W/2]."""
    return resize_nearest(x, 2, dialect)


def pixel_rows(x, kernel_size: int):
    """Each position's row of `kernel_size` pixels, zeros beyond the border: [N, C, h, w] -> [N, C*k, l]."""
    reach = kernel_size // 2
    return F.unfold(x, [1, kernel_size], paddings=[0, reach, 1, reach])  # one row more below: the slack


def add_slack(values):
    """[N, h, w] -> [N, 1, l], zero in the slack."""
    n, h, w = values.shape
    return F.pad(values.unsqueeze(1), [0, 0, 0, 1]).reshape([n, 1, (h + 1) * w])


def paste_rows(background):
    """What each background position pastes into an even and an odd output row.

    The 4x4 patch of position (r, c) covers rows 2r-1..2r+2 and columns 2c-1..2c+2 of b; together with its
    vertical neighbours it pastes b's row 2r into even rows and 2r+1 into odd ones.
    [N, C, 2h, 2w] -> two of [N, C*4, l].
    """
    even = F.unfold(background, [1, 4], strides=2, paddings=[0, 1, 1, 1])
    odd = F.unfold(background[:, :, 1:], [1, 4], strides=2, paddings=[0, 1, 2, 1])
    return even, odd


def overlap_columns(even, odd, grid):
    """Add what neighbours paste into the same column: two of [N, C*4, l] -> [N, C, 2h, 2w], divided by 4."""
    h, w = grid
    even, odd = (
        F.fold(rows[:, :, : h * w], [h, 2 * w], [1, 4], strides=[1, 2], paddings=[0, 1]) for rows in (even, odd)
    )
    n, c = even.shape[:2]
    return paddle.stack([even, odd], axis=3).reshape([n, c, 2 * h, 2 * w]) * 0.25


def relative_offsets(best, geometry: Geometry):
    """Flat index of the best patch, [N, h*w] -> row and column offsets [N, 2, h, w], int64."""
    (h, w), (_, w_b) = geometry.grid_f, geometry.grid_b
    best = best.reshape([-1, h, w])
    rows = best // w_b - paddle.arange(h, dtype="int64").reshape([1, h, 1])
    columns = best % w_b - paddle.arange(w, dtype="int64").reshape([1, 1, w])
    return paddle.stack([rows, columns], axis=1)


def shift_sum(matrix, steps: list[tuple[int, int]]):
    """out[p, q] = matrix[p, q] + sum over (i, j) in steps of matrix[p + i, q + j]; [N, l, l'] each.

    Every step is one contiguous shift of the flattened batch. It is exact outside the slack if the slack of
    `matrix` is zero; in the slack the result is rubbish.
    """
    n, l_f, l_b = matrix.shape
    flat = matrix.reshape([-1])
    total = flat.clone()
    for i, j in steps:
        k = i * l_b + j
        if k > 0:
            total[:-k] = total[:-k] + flat[k:]
        else:
            total[-k:] = total[-k:] + flat[:k]
    return total.reshape([n, l_f, l_b])


def clear_slack(matrix, geometry: Geometry):
    matrix[:, geometry.hw_f :] = 0.0
    matrix[:, :, geometry.hw_b :] = 0.0
    return matrix


def vertical_steps(geometry: Geometry, reach: int):
    w_f, w_b = geometry.grid_f[1], geometry.grid_b[1]
    return [(sign * i * w_f, sign * i * w_b) for i in range(1, reach + 1) for sign in (1, -1)]


def fuse_by_rows(scores, geometry: Geometry):
    """Sum over the neighbours with positions numbered row by row; self-adjoint, slack zero before and after."""
    return clear_slack(shift_sum(scores, [(1, 1), (-1, -1)]), geometry)


def fuse_by_columns(scores, geometry: Geometry):
    """The same with positions numbered column by column: the neighbour below, or the top of the next column."""
    fused = shift_sum(scores, vertical_steps(geometry, 1))
    hw_f, hw_b = geometry.hw_f, geometry.hw_b
    w_f, w_b = geometry.grid_f[1], geometry.grid_b[1]
    # (to, from): positions whose neighbour is an ordinary shift by a row, and those where the column wraps
    plain_f, plain_b = (slice(0, hw_f - w_f), slice(w_f, hw_f)), (slice(0, hw_b - w_b), slice(w_b, hw_b))
    wrap_f = (slice(hw_f - w_f, hw_f - 1), slice(1, w_f))
    wrap_b = (slice(hw_b - w_b, hw_b - 1), slice(1, w_b))
    for f, b in ((wrap_f, plain_b), (plain_f, wrap_b), (wrap_f, wrap_b)):
        for to, source in ((0, 1), (1, 0)):
            block = scores[:, f[source], b[source]]
            if 0 not in block.shape:
                fused[:, f[to], b[to]] = fused[:, f[to], b[to]] + block
    return clear_slack(fused, geometry)


def outer(column, row):
    """[N, l, 1] x [N, 1, l'] -> [N, l, l']; as a matmul, since broadcasting over a matrix is slow on the CPU."""
    return paddle.matmul(column, row)


def slack_column(n: int, geometry: Geometry):
    """[N, l, 1]: 1 on the foreground positions, 0 in the slack."""
    ones = paddle.ones([n, geometry.hw_f, 1])
    return paddle.concat([ones, paddle.zeros([n, geometry.grid_f[1], 1])], axis=1)


def attend(rows_f, rows_b, weight_scale, available, even, odd, geometry: Geometry):
    """Scores, fusion, softmax and pasting.

    rows_f [N, C*k, l], rows_b [N, C*k, l']: `pixel_rows`; weight_scale [N, 1, l']: softmax scale / patch norm;
    available [N, 1, l']; even, odd [N, C*4, l']: `paste_rows`; slack zero everywhere.
    Returns the pasted even and odd rows [N, C*4, l], the best patch [N, h*w], and for the backward pass the
    normalised scores before fusion and the final weights [N, l, l'].
    """
    inside = slack_column(rows_f.shape[0], geometry)
    scores = paddle.matmul(rows_f, rows_b, transpose_x=True)  # [N, l, l'], rows of three pixels
    scores = shift_sum(scores, vertical_steps(geometry, geometry.reach))  # 3x3 patches
    scores = scores * outer(inside, weight_scale)  # also clears the slack
    logits = scores
    if geometry.fuse:
        logits = fuse_by_columns(fuse_by_rows(scores, geometry), geometry)
    keep = outer(inside, available)
    logits = logits * keep
    logits[:, :, geometry.hw_b :] = -1e30  # no mass outside the picture
    weights = F.softmax(logits, axis=-1) * keep
    best = paddle.argmax(weights[:, : geometry.hw_f], axis=-1)
    weights = F.thresholded_relu(weights, NEGLIGIBLE_WEIGHT)
    down, up = shifted_weights(weights, geometry)
    even_out = paddle.matmul(even, down, transpose_y=True)
    odd_out = paddle.matmul(odd, up, transpose_y=True)
    return even_out, odd_out, best, scores, weights


def shifted_weights(weights, geometry: Geometry):
    """Weights of even rows, M[p, q] + M one row up, and of odd rows, M + M one row down; see `paste_rows`."""
    below, above = vertical_steps(geometry, 1)
    return shift_sum(weights, [above]), shift_sum(weights, [below])


class _Attend(PyLayer):
    """`attend` with its gradient written out; keeps the inputs, the scores and the weights."""

    @staticmethod
    def forward(ctx, rows_f, rows_b, weight_scale, available, even, odd, geometry):
        even_out, odd_out, best, scores, weights = attend(
            rows_f, rows_b, weight_scale, available, even, odd, geometry
        )
        ctx.save_for_backward(rows_f, rows_b, weight_scale, even, odd, scores, weights)
        ctx.geometry = geometry
        ctx.mark_non_differentiable(best)
        return even_out, odd_out, best

    @staticmethod
    def backward(ctx, grad_even, grad_odd, _):
        rows_f, rows_b, weight_scale, even, odd, scores, weights = ctx.saved_tensor()
        geometry = ctx.geometry
        below, above = vertical_steps(geometry, 1)
        # Pasting: the adjoint of a shift up is a shift down. The slack of even and odd is zero; that of the
        # output is cut off, so its gradient is zero too.
        down, up = shifted_weights(weights, geometry)
        grad_rows_even = paddle.matmul(grad_even, down)
        grad_rows_odd = paddle.matmul(grad_odd, up)
        grad = shift_sum(paddle.matmul(grad_even, even, transpose_x=True), [below])
        grad = grad + shift_sum(paddle.matmul(grad_odd, odd, transpose_x=True), [above])
        # Softmax between its two masks; the weights are zero outside both
        weighted = weights * grad
        ones = paddle.ones([weights.shape[0], 1, weights.shape[2]])
        grad = weighted - weights * outer(weighted.sum(axis=-1, keepdim=True), ones)
        if geometry.fuse:
            grad = fuse_by_rows(fuse_by_columns(grad, geometry), geometry)
        # Scale by the patch norms: scores = raw * scale
        inside = slack_column(weights.shape[0], geometry)
        grad_scale = paddle.matmul(inside, grad * scores, transpose_x=True)  # sum over p
        tiny = paddle.full_like(weight_scale, 1e-30)  # the slack has scale 0 and gradient 0
        grad_scale = grad_scale / paddle.maximum(weight_scale, tiny)
        grad = grad * outer(inside, weight_scale)
        # Gram matrix
        grad = shift_sum(grad, vertical_steps(geometry, geometry.reach))
        grad_f = paddle.matmul(rows_b, grad, transpose_y=True)
        grad_b = paddle.matmul(rows_f, grad)
        return grad_f, grad_b, grad_scale, None, grad_rows_even, grad_rows_odd
