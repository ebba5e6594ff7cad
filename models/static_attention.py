"""Contextual attention in programs: the sizes are unknown while they are made, and nothing is changed in place.

The steps of `models/contextual_attention.py`, written out with what Paddle's and other inference engines have in
common: whole patches instead of shifted pixels, padding instead of a slack row. A generator attends to itself, so
foreground and background are one here. All l x l matrices are held whole: [N, l, l] with l = H*W/4.
"""

from __future__ import annotations

import paddle
import paddle.nn.functional as F

# Weights below this change nothing that float32 can show, but as denormal numbers, which the softmax of inference
# engines makes of them, they slow a CPU matmul 20 times.
NEGLIGIBLE_WEIGHT = 1e-30


def sides(x) -> tuple:
    """Height and width of [N, C, H, W], as int64 tensors."""
    size = paddle.shape(x).astype("int64")
    return size[2], size[3]


def nearest_positions(size, factor: int, dialect: str):
    """`layers.nearest_index` of a size that is a tensor, to size // factor: the same numbers."""
    out_size = size // factor
    position = paddle.arange(0, out_size, dtype="int64")
    if dialect == "pytorch":
        return position * size // out_size
    scale = (size - 1).astype("float32") / paddle.clip(out_size - 1, min=1).astype("float32")
    return paddle.floor(position.astype("float32") * scale + 0.5).astype("int64")


def resize_statically(x, factor: int, dialect: str):
    """`contextual_attention.resize_nearest`: [N, C, H, W] -> [N, C, H/factor, W/factor]."""
    for axis, size in zip((2, 3), sides(x)):
        x = paddle.index_select(x, nearest_positions(size, factor, dialect), axis=axis)
    return x


def attend_statically(features, mask, softmax_scale: float, fuse: bool, dialect: str):
    """The attention of features [N, C, H, W] to themselves; mask [N or 1, 1, H, W], 1 = hole.

    Returns features [N, C, H, W] and offsets [N, 2, H/2, W/2] (int64).
    """
    channels = features.shape[1]
    small = resize_statically(features, 2, dialect)
    h, w = sides(small)

    patches = F.unfold(small, 3, paddings=1)  # [N, C*9, l]
    energy = (patches * patches).sum(axis=1, keepdim=True)
    energy = energy + 1e-4 * 9 * channels if dialect == "pytorch" else paddle.clip(energy, min=1e-8)
    # Not a quotient: oneDNN in Paddle 2.6 divides wrongly where the dividend is broadcast.
    normalised = patches * (paddle.rsqrt(energy) * softmax_scale)
    scores = paddle.matmul(patches, normalised, transpose_x=True)  # [N, l, l]
    if fuse:
        scores = fuse_neighbours(scores.unsqueeze(1))
        by_columns = fuse_neighbours(renumber(scores, h, w))
        scores = renumber(by_columns, w, h).squeeze(1)

    touched = F.max_pool2d((resize_statically(mask, 2, dialect) != 0).astype("float32"), 3, stride=1, padding=1)
    keep = 1.0 - touched.flatten(2)  # [N, 1, l]
    weights = F.softmax(scores * keep, axis=-1)
    weights = F.thresholded_relu(weights, NEGLIGIBLE_WEIGHT) * keep

    pasted = paddle.matmul(F.unfold(features, 4, strides=2, paddings=1), weights, transpose_y=True)
    return overlap(pasted.reshape([-1, 16 * channels, h, w]), channels) * 0.25, offsets(weights, h, w)


def fuse_neighbours(scores):
    """M[p, q] + M[p + 1, q + 1] + M[p - 1, q - 1], zero beyond the ends; [N, 1, l, l]."""
    padded = with_border(scores)  # first, so that no slice of a single patch is empty
    return scores + padded[:, :, 2:, 2:] + padded[:, :, :-2, :-2]


def with_border(x):
    """[N, C, h, w] -> [N, C, h+2, w+2], zeros around.

    Not by F.pad: of its two operators paddle2onnx 2.1 leaves the zero of one unset; with the other a run
    of Paddle 3.3 with oneDNN ended in a damaged heap.
    """
    row = paddle.zeros_like(x[:, :, :1])
    x = paddle.concat([row, x, row], axis=2)
    column = paddle.zeros_like(x[:, :, :, :1])
    return paddle.concat([column, x, column], axis=3)


def renumber(scores, h, w):
    """[N, 1, h*w, h*w] with positions numbered row by row -> column by column; or back, with w and h."""
    scores = scores.reshape([-1, h, w, h, w]).transpose([0, 2, 1, 4, 3])
    return scores.reshape([-1, 1, h * w, h * w])


def overlap(pasted, channels: int):
    """Sums 4x4 patches, pasted at stride 2 with one pixel beyond the border: [N, C*16, h, w] -> [N, C, 2h, 2w]."""
    padded = with_border(pasted)
    # The patch at r covers rows 2r-1 .. 2r+2: its row 3 falls on an even row of the next patch, row 0 on an odd one
    # of the patch before, and columns likewise.
    own, before, after = slice(1, -1), slice(None, -2), slice(2, None)
    patch = {0: after, 1: own, 2: own, 3: before}

    def at(row: int, column: int):
        return padded[:, 4 * row + column :: 16, patch[row], patch[column]]

    pixels = []
    for i, k in ((1, 3), (2, 0)):
        for j, m in ((1, 3), (2, 0)):
            pixels.append(at(i, j) + at(i, m) + at(k, j) + at(k, m))
    return F.pixel_shuffle(paddle.stack(pixels, axis=2).flatten(1, 2), 2)


def offsets(weights, h, w):
    """[N, l, l] -> row and column of the best patch less the own, [N, 2, h, w], int64; ties go to the first."""
    best = paddle.argmax(weights, axis=-1)
    own = paddle.arange(0, h * w, dtype="int64")
    rows, own_rows = best // w, own // w
    columns, own_columns = best - rows * w, own - own_rows * w
    return paddle.stack([rows - own_rows, columns - own_columns], axis=1).reshape([-1, 2, h, w])
