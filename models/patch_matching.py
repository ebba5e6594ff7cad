"""The heart of contextual attention: from rows of pixels to pasted rows, by shifts of one matrix.

M[p, q] belongs to foreground position p and background position q, numbered row by row. A sum over the pixels
of two patches is a sum over shifts of M to M[p + d, q + d], and in a flattened matrix such a diagonal shift is
one contiguous shift:

* scores: the Gram matrix of rows of three pixels, summed over three vertical shifts;
* fusion: two more sums over three shifts;
* pasting: the upper half of a 4x4 patch at stride 2 is the lower half of the patch above, so that one matmul
  of M + M shifted down with the upper halves does both.

Positions carry one row of zeros after the last one ("slack", so l = (h + 1) * w), which a vertical shift
reads where it leaves the picture, at either end. Every step is symmetric in p and q or has a simple adjoint,
so the backward pass is written out and keeps two matrices a sample instead of a dozen.
"""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle.autograd import PyLayer

# Without gradients, matrices are made for as many foreground rows at a time as fit into this many bytes.
MEMORY_BUDGET = 2**29
LIVE_MATRICES = 4  # how many of them `attend` holds at its peak
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
    `matrix` is zero; in the slack it can be rubbish, but for the first row of it where only rows above are
    summed.
    """
    n, l_f, l_b = matrix.shape
    flat = matrix.reshape([-1])
    total = flat.clone()
    for i, j in steps:
        k = i * l_b + j
        here, there = (total[:-k], flat[k:]) if k > 0 else (total[-k:], flat[:k])
        here.add_(there)  # `here` is a view of `total`
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
    return fuse_columns_of(with_rows_around(scores, geometry), geometry)


def with_rows_around(scores, geometry: Geometry):
    """What `fuse_columns_of` needs of all scores: [N, l, l'] -> [N, (h + 2) * w, l']."""
    w, hw = geometry.grid_f[1], geometry.hw_f
    nothing = paddle.zeros([scores.shape[0], 1, scores.shape[2]])
    # One row more at either end: above (0, c) is (h-1, c-1), below (h-1, c) is (0, c+1).
    parts = [take_rows(scores, first, last) for first, last in ((hw - w, hw - 1), (0, hw), (1, w)) if first < last]
    return paddle.concat([nothing, *parts, nothing], axis=1)


def fuse_columns_of(extended, geometry: Geometry):
    """Column fusion of foreground rows whose upper and lower neighbours stand before and after them.

    [N, (rows + 2) * w, l'] -> [N, (rows + 1) * w, l'], slack of q zero before and after, slack of p after.
    """
    w = geometry.grid_f[1]
    inner = slice(w, extended.shape[1] - w)
    fused = shift_sum(extended, vertical_steps(geometry))
    hw_b, w_b = geometry.hw_b, geometry.grid_b[1]
    if w_b > 1:  # the same for q, whose columns go on at the top of the next one
        bottom, top = slice(hw_b - w_b, hw_b - 1), slice(1, w_b)
        fused[:, inner, bottom] = fused[:, inner, bottom] + extended[:, 2 * w :, top]
        fused[:, inner, top] = fused[:, inner, top] + extended[:, : -2 * w, bottom]
    fused[:, :, hw_b:] = 0.0
    fused[:, inner.stop :] = 0.0
    return take_rows(fused, w, fused.shape[1])  # sliced last: Paddle assigns to parts of a slice slowly


def take_rows(matrix, first: int, last: int):
    """matrix[:, first:last]; of a single sample a view that Paddle sees to be contiguous, and need not copy."""
    return matrix[0, first:last].unsqueeze(0) if matrix.shape[0] == 1 else matrix[:, first:last]


def outer(column, row):
    """[N, l, 1] x [N, 1, l'] -> [N, l, l']; as a matmul, since broadcasting over a matrix is slow on the CPU."""
    return paddle.matmul(column, row)


def slack_column(n: int, positions: int, geometry: Geometry):
    """[N, positions + w, 1]: 1 on so many foreground positions, 0 in the slack behind them."""
    return paddle.concat([paddle.ones([n, positions, 1]), paddle.zeros([n, geometry.grid_f[1], 1])], axis=1)


def attend(rows_f, rows_b, weight_scale, available, patches, geometry: Geometry):
    """Scores, fusion, softmax and pasting.

    rows_f [N, C*3, l], rows_b [N, C*3, l']: `pixel_rows`; weight_scale [N, 1, l']: softmax scale / patch norm;
    available [N, 1, l'], all with slack zero; patches [N, C*8, l']: rows 2r-1 and 2r of the patches to paste.
    Returns the pasted patches [N, C*8, l] and the best patch [N, h*w].
    """
    logits = fuse_scores(normalised_scores(rows_f, rows_b, weight_scale, geometry), geometry)
    return paste(logits, available, patches, geometry)[:2]


def normalised_scores(rows_f, rows_b, weight_scale, geometry: Geometry):
    """Products of all 3x3 patches, the background's of norm 1, times the softmax's scale: [N, l, l'], slack zero."""
    scores = paddle.matmul(rows_f, rows_b, transpose_x=True)  # rows of three pixels
    scores = shift_sum(scores, vertical_steps(geometry))
    inside = slack_column(rows_f.shape[0], geometry.hw_f, geometry)
    return scores.multiply_(outer(inside, weight_scale))  # also clears the slack


def fuse_scores(scores, geometry: Geometry):
    """The logits: always another matrix than the scores, which may be needed for the backward pass."""
    if not geometry.fuse:
        return scores.clone()
    scores = fuse_by_rows(scores, geometry)  # one name for all, so that none is kept longer than it is needed
    scores = with_rows_around(scores, geometry)
    return fuse_columns_of(scores, geometry)


def paste(logits, available, patches, geometry: Geometry):
    """Softmax and pasting: the pasted patches, the best ones, and the weights, which take the place of the logits."""
    inside = slack_column(logits.shape[0], geometry.hw_f, geometry)
    weights, best = softmax_between_masks(logits, outer(inside, available), geometry)
    pasted = paddle.matmul(patches, with_row_above(weights, geometry), transpose_y=True)
    return pasted, best[:, : geometry.hw_f], weights


def softmax_between_masks(logits, keep, geometry: Geometry):
    """Final weights [N, m, l'] and the best patch of each of the m positions; keep: 1 = available, [N, m, l'].

    The weights take the place of the logits. None of them is a denormal number, which would slow a CPU matmul 20
    times: on the CPU Paddle's softmax gives no position less than e^-64 of what the best one gets.
    """
    logits = logits.multiply_(keep)
    logits[:, :, geometry.hw_b :] = -1e30  # no mass outside the picture
    weights = F.softmax_(logits, axis=-1).multiply_(keep)
    return weights, paddle.argmax(weights, axis=-1)


def with_row_above(weights, geometry: Geometry):
    """M + M one row down: what is pasted at a position's upper two rows, slack row (the last lower half) included."""
    _, above = vertical_steps(geometry)
    return shift_sum(weights, [above])


def match_and_paste(rows_f, rows_b, weight_scale, available, patches, geometry: Geometry):
    """`attend` without its intermediate results, in the way that suits: with gradients, whole, or in chunks."""
    inputs = (rows_f, rows_b, weight_scale, available, patches, geometry)
    if paddle.is_grad_enabled():
        return _Attend.apply(*inputs)
    row_bytes = 4 * LIVE_MATRICES * rows_f.shape[0] * geometry.grid_f[1] * rows_b.shape[2]
    affordable = MEMORY_BUDGET // row_bytes  # foreground rows at a time
    if affordable > geometry.grid_f[0]:
        return attend(*inputs)
    return attend_in_chunks(*inputs, max(affordable - HALO_ROWS, 1))


def attend_in_chunks(rows_f, rows_b, weight_scale, available, patches, geometry: Geometry, rows: int):
    """`attend` for `rows` foreground rows at a time: the same results (without the matrices), bounded memory."""
    (h, w), n = geometry.grid_f, rows_f.shape[0]
    pasted = paddle.zeros([n, patches.shape[1], (h + 1) * w])
    best = []
    for top in range(0, h, rows):
        bottom = min(top + rows, h)
        logits = chunk_logits(rows_f, rows_b, weight_scale, geometry, top, bottom)
        positions = (bottom - top) * w
        # One row more, of zero weights: there the chunk's last row pastes its lower halves.
        keep = outer(slack_column(n, positions, geometry), available)
        weights, chunk_best = softmax_between_masks(logits, keep, geometry)
        best.append(chunk_best[:, :positions])
        part = paddle.matmul(patches, with_row_above(weights, geometry), transpose_y=True)
        place = slice(top * w, (bottom + 1) * w)
        pasted[:, :, place] = pasted[:, :, place] + part
    return pasted, paddle.concat(best, axis=1)


def chunk_logits(rows_f, rows_b, weight_scale, geometry: Geometry, top: int, bottom: int):
    """Fused scores of the foreground rows top .. bottom - 1: [N, (bottom - top + 1) * w, l'], the last w anything."""
    (h, w), hw = geometry.grid_f, geometry.hw_f
    if not geometry.fuse:
        return row_fused(rows_f, rows_b, weight_scale, geometry, top * w, (bottom + 1) * w)
    parts = [row_fused(rows_f, rows_b, weight_scale, geometry, max(top - 1, 0) * w, min(bottom + 1, h) * w)]
    nothing = paddle.zeros([rows_f.shape[0], 1, rows_b.shape[2]])
    if top == 0:
        parts = [nothing, row_fused(rows_f, rows_b, weight_scale, geometry, hw - w, hw - 1), *parts]
    if bottom == h:
        parts = [*parts, row_fused(rows_f, rows_b, weight_scale, geometry, 1, w), nothing]
    extended = paddle.concat([x for x in parts if x.shape[1]], axis=1)
    extended[:, :, geometry.hw_b :] = 0.0
    return fuse_columns_of(extended, geometry)


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
    scores = scores.multiply_(outer(inside, weight_scale))
    if geometry.fuse:
        scores = shift_sum(scores, [(1, 1), (-1, -1)])
    return scores[:, margin : margin + last - first]


class _Attend(PyLayer):
    """`attend` with its gradient written out; keeps the inputs, the scores and the weights."""

    @staticmethod
    def forward(ctx, rows_f, rows_b, weight_scale, available, patches, geometry):
        scores = normalised_scores(rows_f, rows_b, weight_scale, geometry)
        pasted, best, weights = paste(fuse_scores(scores, geometry), available, patches, geometry)
        ctx.save_for_backward(rows_f, rows_b, weight_scale, patches, scores, weights)
        ctx.geometry = geometry
        ctx.wanted = [not x.stop_gradient for x in (rows_f, rows_b, weight_scale, available, patches)]
        ctx.mark_non_differentiable(best)
        return pasted, best

    @staticmethod
    def backward(ctx, grad_pasted, _):
        rows_f, rows_b, weight_scale, patches, scores, weights = ctx.saved_tensor()
        geometry = ctx.geometry
        # Pasting: the adjoint of a shift down is a shift up.
        grad_patches = paddle.matmul(grad_pasted, with_row_above(weights, geometry))
        below, _ = vertical_steps(geometry)
        grad = shift_sum(paddle.matmul(grad_pasted, patches, transpose_x=True), [below])
        # Softmax between its two masks; the weights are zero outside both, and in the slack
        weighted = grad.multiply_(weights)
        ones = paddle.ones([weights.shape[0], 1, weights.shape[2]])
        grad = weighted.subtract_(outer(weighted.sum(axis=-1, keepdim=True), ones).multiply_(weights))
        if geometry.fuse:
            grad = fuse_by_rows(fuse_by_columns(grad, geometry), geometry)
        # Scale by the patch norms: scores = raw * scale
        inside = slack_column(weights.shape[0], geometry.hw_f, geometry)
        grad_scale = paddle.matmul(inside, grad * scores, transpose_x=True)  # sum over p
        tiny = paddle.full_like(weight_scale, 1e-30)  # the slack has scale 0 and gradient 0
        grad_scale = grad_scale / paddle.maximum(weight_scale, tiny)
        grad = grad.multiply_(outer(inside, weight_scale))
        # Gram matrix
        grad = shift_sum(grad, vertical_steps(geometry))
        grad_f = paddle.matmul(rows_b, grad, transpose_y=True)
        grad_b = paddle.matmul(rows_f, grad)
        gradients = (grad_f, grad_b, grad_scale, None, grad_patches)
        return tuple(g if wanted else None for g, wanted in zip(gradients, ctx.wanted))
