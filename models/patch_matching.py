"""The heart of contextual attention: from rows of pixels to pasted rows, by shifts of one matrix.

M[p, q] belongs to foreground position p and background position q, numbered row by row. A sum over the pixels
of two patches is a sum over shifts of M to M[p + d, q + d], and in a flattened matrix such a diagonal shift is
one contiguous shift:

* scores: the Gram matrix of rows of three pixels, summed over three vertical shifts;
* fusion: two more sums over three shifts;
* pasting: output rows 2r and 2r + 1 each need one matmul, with M + M shifted down and M + M shifted up.

Positions carry one row of zeros after the last one ("slack", so l = (h + 1) * w), which a vertical shift
reads where it leaves the picture, at either end. Every step is symmetric in p and q or has a simple adjoint,
so the backward pass is written out and keeps two matrices a sample instead of a dozen.
"""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle.autograd import PyLayer

# Weights below this change nothing that float32 can show, but as denormals they slow a CPU matmul 20 times.
NEGLIGIBLE_WEIGHT = 1e-30

# Without gradients, matrices are made for as many foreground rows at a time as fit into this many bytes.
MEMORY_BUDGET = 2**29
LIVE_MATRICES = 7  # how many of them `attend` holds at its peak
HALO_ROWS = 6  # foreground rows that a chunk needs beyond its own: patches and two fusions, on both sides


class Geometry:
    """Grid sizes of both sides and what is summed over them; positions are numbered row by row, slack last."""

    def __init__(self, grid_f: tuple[int, int], grid_b: tuple[int, int], fuse: bool):
        self.grid_f, self.grid_b = grid_f, grid_b
        self.fuse = fuse

    @property
    def hw_f(self):
        return self.grid_f[0] * self.grid_f[1]

    @property
    def hw_b(self):
        return self.grid_b[0] * self.grid_b[1]


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


def vertical_steps(geometry: Geometry) -> list[tuple[int, int]]:
    """To the neighbours below and above, in p and q."""
    w_f, w_b = geometry.grid_f[1], geometry.grid_b[1]
    return [(w_f, w_b), (-w_f, -w_b)]


def fuse_by_rows(scores, geometry: Geometry):
    """Sum over the neighbours with positions numbered row by row; self-adjoint, slack zero before and after."""
    return clear_slack(shift_sum(scores, [(1, 1), (-1, -1)]), geometry)


def fuse_by_columns(scores, geometry: Geometry):
    """The same with positions numbered column by column: the neighbour below, or the top of the next column."""
    fused = shift_sum(scores, vertical_steps(geometry))
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

    rows_f [N, C*3, l], rows_b [N, C*3, l']: `pixel_rows`; weight_scale [N, 1, l']: softmax scale / patch norm;
    available [N, 1, l']; even, odd [N, C*4, l']: `paste_rows`; slack zero everywhere.
    Returns the pasted even and odd rows [N, C*4, l], the best patch [N, h*w], and for the backward pass the
    normalised scores before fusion and the final weights [N, l, l'].
    """
    inside = slack_column(rows_f.shape[0], geometry)
    scores = paddle.matmul(rows_f, rows_b, transpose_x=True)  # [N, l, l'], rows of three pixels
    scores = shift_sum(scores, vertical_steps(geometry))  # 3x3 patches
    scores = scores * outer(inside, weight_scale)  # also clears the slack
    logits = scores
    if geometry.fuse:
        logits = fuse_by_columns(fuse_by_rows(scores, geometry), geometry)
    weights, best = softmax_between_masks(logits, outer(inside, available), geometry)
    best = best[:, : geometry.hw_f]
    down, up = shifted_weights(weights, geometry)
    even_out = paddle.matmul(even, down, transpose_y=True)
    odd_out = paddle.matmul(odd, up, transpose_y=True)
    return even_out, odd_out, best, scores, weights


def softmax_between_masks(logits, keep, geometry: Geometry):
    """Final weights [N, m, l'] and the best patch of each of the m positions; keep: 1 = available, [N, m, l']."""
    logits = logits * keep
    logits[:, :, geometry.hw_b :] = -1e30  # no mass outside the picture
    weights = F.softmax(logits, axis=-1) * keep
    return F.thresholded_relu(weights, NEGLIGIBLE_WEIGHT), paddle.argmax(weights, axis=-1)


def shifted_weights(weights, geometry: Geometry):
    """Weights of even rows, M[p, q] + M one row up, and of odd rows, M + M one row down; see `paste_rows`."""
    below, above = vertical_steps(geometry)
    return shift_sum(weights, [above]), shift_sum(weights, [below])


def match_and_paste(rows_f, rows_b, weight_scale, available, even, odd, geometry: Geometry):
    """`attend` without its intermediate results, in the way that suits: with gradients, whole, or in chunks."""
    inputs = (rows_f, rows_b, weight_scale, available, even, odd, geometry)
    if not paddle.in_dynamic_mode():
        return attend(*inputs)[:3]
    if paddle.is_grad_enabled():
        return _Attend.apply(*inputs)
    row_bytes = 4 * LIVE_MATRICES * rows_f.shape[0] * geometry.grid_f[1] * rows_b.shape[2]
    affordable = MEMORY_BUDGET // row_bytes  # foreground rows at a time
    if affordable > geometry.grid_f[0]:
        return attend(*inputs)[:3]
    return attend_in_chunks(*inputs, max(affordable - HALO_ROWS, 1))


def attend_in_chunks(rows_f, rows_b, weight_scale, available, even, odd, geometry: Geometry, rows: int):
    """`attend` for `rows` foreground rows at a time: the same results (without the matrices), bounded memory."""
    (h, w), n, l_b = geometry.grid_f, rows_f.shape[0], rows_b.shape[2]
    even_out = paddle.zeros([n, even.shape[1], (h + 1) * w])
    odd_out = paddle.zeros([n, odd.shape[1], (h + 1) * w])
    best = []
    for top in range(0, h, rows):
        bottom = min(top + rows, h)
        logits = chunk_logits(rows_f, rows_b, weight_scale, geometry, top, bottom)
        keep = outer(paddle.ones([n, logits.shape[1], 1]), available)
        weights, chunk_best = softmax_between_masks(logits, keep, geometry)
        best.append(chunk_best)
        # A row of zero weights at either end lets the chunk's first and last row paste into their neighbours.
        border = paddle.zeros([n, w, l_b])
        weights = paddle.concat([border, weights, border], axis=1)
        down, up = shifted_weights(weights, geometry)
        pasted = paddle.matmul(even, down[:, w:], transpose_y=True)  # rows top .. bottom
        even_out[:, :, top * w : (bottom + 1) * w] = even_out[:, :, top * w : (bottom + 1) * w] + pasted
        pasted = paddle.matmul(odd, up[:, :-w], transpose_y=True)  # rows top - 1 .. bottom - 1
        pasted, first = (pasted[:, :, w:], 0) if top == 0 else (pasted, (top - 1) * w)
        odd_out[:, :, first : bottom * w] = odd_out[:, :, first : bottom * w] + pasted
    return even_out, odd_out, paddle.concat(best, axis=1)


def chunk_logits(rows_f, rows_b, weight_scale, geometry: Geometry, top: int, bottom: int):
    """Fused scores of the foreground rows top .. bottom - 1: [N, (bottom - top) * w, l']."""
    (h, w), hw = geometry.grid_f, geometry.hw_f
    if not geometry.fuse:
        return row_fused(rows_f, rows_b, weight_scale, geometry, top * w, bottom * w)
    parts = [row_fused(rows_f, rows_b, weight_scale, geometry, max(top - 1, 0) * w, min(bottom + 1, h) * w)]
    nothing = paddle.zeros([rows_f.shape[0], 1, rows_b.shape[2]])
    # Column by column, the neighbour above (0, c) is (h-1, c-1) and the one below (h-1, c) is (0, c+1).
    if top == 0:
        parts = [nothing, row_fused(rows_f, rows_b, weight_scale, geometry, hw - w, hw - 1), *parts]
    if bottom == h:
        parts = [*parts, row_fused(rows_f, rows_b, weight_scale, geometry, 1, w), nothing]
    scores = paddle.concat(parts, axis=1)  # one row more at either end
    scores[:, :, geometry.hw_b :] = 0.0
    fused = shift_sum(scores, vertical_steps(geometry))[:, w:-w]
    hw_b, w_b = geometry.hw_b, geometry.grid_b[1]
    if w_b > 1:
        last, first = slice(hw_b - w_b, hw_b - 1), slice(1, w_b)
        fused[:, :, last] = fused[:, :, last] + scores[:, 2 * w :, first]
        fused[:, :, first] = fused[:, :, first] + scores[:, : -2 * w, last]
    return fused


def row_fused(rows_f, rows_b, weight_scale, geometry: Geometry, first: int, last: int):
    """Normalised scores, fused row by row, of the foreground positions first .. last - 1: [N, last - first, l']."""
    n, channels, l_f = rows_f.shape
    w, hw = geometry.grid_f[1], geometry.hw_f
    margin = w + 1  # what patches and fusion read beyond the range
    start, stop = first - margin, last + margin
    parts = [
        paddle.zeros([n, channels, max(-start, 0)]),
        rows_f[:, :, max(start, 0) : min(stop, l_f)],
        paddle.zeros([n, channels, max(stop - l_f, 0)]),
    ]
    part = paddle.concat([p for p in parts if p.shape[2]], axis=2)
    inside = paddle.zeros([n, stop - start, 1])
    inside[:, max(-start, 0) : hw - start] = 1.0
    scores = paddle.matmul(part, rows_b, transpose_x=True)
    scores = shift_sum(scores, vertical_steps(geometry))
    scores = scores * outer(inside, weight_scale)
    if geometry.fuse:
        scores = shift_sum(scores, [(1, 1), (-1, -1)])
    return scores[:, margin : margin + last - first]


class _Attend(PyLayer):
    """`attend` with its gradient written out; keeps the inputs, the scores and the weights."""

    @staticmethod
    def forward(ctx, rows_f, rows_b, weight_scale, available, even, odd, geometry):
        even_out, odd_out, best, scores, weights = attend(
            rows_f, rows_b, weight_scale, available, even, odd, geometry
        )
        ctx.save_for_backward(rows_f, rows_b, weight_scale, even, odd, scores, weights)
        ctx.geometry = geometry
        ctx.wanted = [not x.stop_gradient for x in (rows_f, rows_b, weight_scale, available, even, odd)]
        ctx.mark_non_differentiable(best)
        return even_out, odd_out, best

    @staticmethod
    def backward(ctx, grad_even, grad_odd, _):
        rows_f, rows_b, weight_scale, even, odd, scores, weights = ctx.saved_tensor()
        geometry = ctx.geometry
        below, above = vertical_steps(geometry)
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
        grad = shift_sum(grad, vertical_steps(geometry))
        grad_f = paddle.matmul(rows_b, grad, transpose_y=True)
        grad_b = paddle.matmul(rows_f, grad)
        gradients = (grad_f, grad_b, grad_scale, None, grad_rows_even, grad_rows_odd)
        return tuple(g if wanted else None for g, wanted in zip(gradients, ctx.wanted))
