"""Contextual attention: rebuild each foreground patch from the background patches that resemble it.

Paper: section 4.1; TF1: `contextual_attention`. With f = foreground, b = background and features [N, C, H, W]:

1. f, b and the mask are halved by nearest neighbour to h x w.
2. score[p, q] = <3x3 patch of f at p, 3x3 patch of b at q / its norm>, for all p and q.
3. Fusion: neighbours that move together reinforce each other. The score matrix is summed over three diagonal
   neighbours, once with positions numbered row by row and once column by column.
4. Patches that touch the hole have their scores multiplied by 0 before the softmax over q and their weights
   multiplied by 0 after it.
5. The 4x4 patches of the full-size b are pasted at stride 2, weighted, and divided by 4.

Steps 2 to 5 are in `models/patch_matching.py`; this file prepares what they need and puts their result together.
"""

from __future__ import annotations

import paddle
import paddle.nn as nn
import paddle.nn.functional as F

from models.layers import check_dialect, nearest_index
from models.patch_matching import (
    LIVE_MATRICES,
    Geometry,
    chunk_logits,
    match_and_paste,
    softmax_between_masks,
)
from models.static_attention import attend_statically, resize_statically

# A 4x4 patch at stride 2 covers rows 2r-1 .. 2r+2. Its upper two rows are pasted at position (r, c); its lower
# two are the upper two of the patch below, and so come from M shifted by a row (`patch_matching.paste`).
PASTE = {"strides": 2, "paddings": 1}

# On a CPU as many samples are handled at a time as have matrices of this many bytes (at 256x256 one): more at once
# are no faster there, and take memory in proportion. A GPU has them all at once.
GROUP_BUDGET = 2**25


class ContextualAttention(nn.Layer):
    """The attention layer; it has no parameters.

    Args:
        rate: side of the downscaling before matching; only the paper's 2 is implemented.
        kernel_size: side of the matching patches; only the paper's 3.
        fuse_kernel: how many diagonal neighbours fusion sums, the position itself included; only TF1's 3.
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
        if (rate, kernel_size, fuse_kernel) != (2, 3, 3):
            given = f"{rate}, {kernel_size} and {fuse_kernel}"
            raise ValueError(f"only rate 2, kernel_size 3 and fuse_kernel 3 are implemented, not {given}")
        self.softmax_scale = softmax_scale
        self.fuse = fuse
        self.dialect = check_dialect(dialect)

    def forward(self, foreground, background, mask=None):
        if not paddle.in_dynamic_mode():  # a program being made: only for a generator's own use of the layer
            if background is not foreground or mask is None:
                raise ValueError("in a program the layer attends from the foreground to itself, and needs a mask")
            return attend_statically(foreground, mask, self.softmax_scale, self.fuse, self.dialect)
        n = foreground.shape[0]
        if background.shape[0] != n or (mask is not None and mask.shape[0] not in (1, n)):
            masks = "" if mask is None else f" and {mask.shape[0]} masks"
            raise ValueError(f"{n} foregrounds, {background.shape[0]} backgrounds{masks}")
        sizes = group_sizes(foreground, background)
        if len(sizes) == 1:
            return self.attend(foreground, background, mask)
        foregrounds = paddle.split(foreground, sizes)
        backgrounds = foregrounds if background is foreground else paddle.split(background, sizes)
        masks = [mask] * len(sizes) if mask is None or mask.shape[0] == 1 else paddle.split(mask, sizes)
        features, offsets = zip(*map(self.attend, foregrounds, backgrounds, masks))
        return paddle.concat(features), paddle.concat(offsets)

    def attend(self, foreground, background, mask):
        """The call for as many samples as are handled at a time."""
        rows_f, rows_b, weight_scale, available, geometry = self.prepare(foreground, background, mask)
        patches = F.unfold(background, [2, 4], **PASTE)  # [N, C*8, l']
        pasted, best = match_and_paste(rows_f, rows_b, weight_scale, available, patches, geometry)
        height, width = foreground.shape[2:]
        features = F.fold(pasted, [height, width], [2, 4], **PASTE) * 0.25
        return features, relative_offsets(best, geometry)

    @paddle.no_grad()
    def weights_at(self, foreground, background, mask, row: int, column: int):
        """Where one position copies from; arguments as for the call, without gradients.

        row, column: a position of the halved foreground. Returns its weight on every background position,
        [N, H'/2, W'/2], from 0 to 1; only the scores of its own row are computed for it.
        """
        rows_f, rows_b, weight_scale, available, geometry = self.prepare(foreground, background, mask)
        height, width = geometry.grid_f
        if not (0 <= row < height and 0 <= column < width):
            raise ValueError(f"position ({row}, {column}) is outside the foreground's {height}x{width}")
        logits = chunk_logits(rows_f, rows_b, weight_scale, geometry, row, row + 1)[:, column : column + 1]
        weights, _ = softmax_between_masks(logits, available, geometry)
        return weights[:, 0, : geometry.hw_b].reshape([-1, *geometry.grid_b])

    def prepare(self, foreground, background, mask):
        """What matching needs: pixel rows of both sides, scale and availability [N, 1, l'] of patches, grids."""
        n, c, height, width = foreground.shape
        if height % 2 or width % 2 or background.shape[2] % 2 or background.shape[3] % 2:
            raise ValueError(f"feature sides must be even: {foreground.shape[2:]}, {background.shape[2:]}")
        small_f = halve(foreground, self.dialect)  # [N, C, h, w]
        small_b = small_f if background is foreground else halve(background, self.dialect)
        grid_f, grid_b = tuple(small_f.shape[2:]), tuple(small_b.shape[2:])

        available = paddle.ones([1, *grid_b]) if mask is None else self.available_patches(mask)
        available = available.expand([n, *grid_b])
        weight_scale = self.softmax_scale / self.patch_norms(small_b)  # [N, h', w']

        rows_f = pixel_rows(small_f)  # [N, C*3, l]
        rows_b = rows_f if background is foreground else pixel_rows(small_b)
        geometry = Geometry(grid_f, grid_b, self.fuse)
        return rows_f, rows_b, add_slack(weight_scale), add_slack(available), geometry

    def available_patches(self, mask):
        """1 where a background patch holds no hole pixel: [N or 1, 1, H', W'] -> [N or 1, h', w']."""
        holes = (halve(mask, self.dialect) != 0).astype("float32")
        touched = F.max_pool2d(holes, 3, stride=1, padding=1)
        return 1.0 - touched[:, 0]

    def patch_norms(self, small_b):
        """Norms of the zero-padded patches around each position: [N, C, h', w'] -> [N, h', w']."""
        energy = (small_b * small_b).sum(axis=1, keepdim=True)
        energy = F.avg_pool2d(energy, 3, stride=1, padding=1, exclusive=False)[:, 0] * 9  # sum over 3x3
        if self.dialect == "pytorch":
            return paddle.sqrt(energy + 1e-4 * 9 * small_b.shape[1])
        # max(norm, 1e-4), with the floor inside the root so that an all-zero patch has a finite gradient
        return paddle.sqrt(paddle.clip(energy, min=1e-8))


def group_sizes(foreground, background) -> list[int]:
    """How many samples to handle at a time; see GROUP_BUDGET."""
    n, _, height, width = foreground.shape
    matrix = (height // 2 + 1) * (width // 2) * (background.shape[2] // 2 + 1) * (background.shape[3] // 2)
    size = max(GROUP_BUDGET // (4 * LIVE_MATRICES * matrix), 1) if foreground.place.is_cpu_place() else n
    return [min(size, n - first) for first in range(0, n, size)]


def resize_nearest(x, factor: int, dialect: str):
    """Nearest-neighbour downscale by an integer factor: [N, C, H, W] -> [N, C, H/factor, W/factor]."""
    if not paddle.in_dynamic_mode():
        return resize_statically(x, factor, dialect)
    n, c, height, width = x.shape
    rows, columns = (nearest_index(side, side // factor, dialect) for side in (height, width))
    pixels = paddle.to_tensor((rows[:, None] * width + columns).reshape(1, -1))
    # The gradient of index_select is slow on the CPU, and that of gather wrong in Paddle 2.6.
    x = paddle.take_along_axis(x.reshape([n * c, height * width]), pixels, axis=1)
    return x.reshape([n, c, height // factor, width // factor])


def halve(x, dialect: str):
    """[N, C, H, W] -> [N, C, H/2, W/2]."""
    return resize_nearest(x, 2, dialect)


def pixel_rows(x):
    """Each position's row of three pixels, zeros beyond the border: [N, C, h, w] -> [N, C*3, l]."""
    return F.unfold(x, [1, 3], paddings=[0, 1, 1, 1])  # one row more below: the slack


def add_slack(values):
    """[N, h, w] -> [N, 1, l], zero in the slack."""
    n, h, w = values.shape
    return F.pad(values.unsqueeze(1), [0, 0, 0, 1]).reshape([n, 1, (h + 1) * w])


def relative_offsets(best, geometry: Geometry):
    """Flat index of the best patch, [N, h*w] -> row and column offsets [N, 2, h, w], int64."""
    (h, w), (_, w_b) = geometry.grid_f, geometry.grid_b
    best = best.reshape([-1, h, w])
    rows = best // w_b - paddle.arange(h, dtype="int64").reshape([1, h, 1])
    columns = best % w_b - paddle.arange(w, dtype="int64").reshape([1, 1, w])
    return paddle.stack([rows, columns], axis=1)
