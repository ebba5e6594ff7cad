"""Pieces shared by the networks: convolution block, nearest upsampling, compositing, box crops, mosaic."""

from __future__ import annotations

import functools

import numpy as np
import paddle
import paddle.nn as nn
import paddle.nn.functional as F

from models import convolution
from models.onednn import LEAKY_SLOPE, Geometry

# The two families of published weights; the differences stand where they apply (padding here, attention in
# contextual_attention.py, width of the local critic in critics.py, reductions in losses.py and trainer.py).
DIALECTS = ("tf1", "pytorch")

ACTIVATIONS = {
    None: lambda x: x,
    "elu": F.elu,
    "relu": F.relu,
    "leaky_relu": functools.partial(F.leaky_relu, negative_slope=LEAKY_SLOPE),
}


def check_dialect(dialect: str) -> str:
    if dialect not in DIALECTS:
        raise ValueError(f"dialect must be one of {DIALECTS}, not {dialect!r}")
    return dialect


class ConvBlock(nn.Layer):
    """Convolution with "same" padding, bias and an activation (TF1: `gen_conv` and `dis_conv`).

    Input [N, in_channels, H, W]; output [N, out_channels, ceil(H/stride), ceil(W/stride)].
    Weights start Glorot uniform, biases at zero, as TF1's defaults do. On CPUs the convolution is that of
    `models/convolution.py`; elsewhere `conv`, Paddle's own, which also holds the parameters.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        activation: str | None = "elu",  # "elu", "relu", "leaky_relu" (slope 0.2) or None
        dialect: str = "tf1",
    ):
        super().__init__()
        padding = dilation * (kernel_size - 1) // 2
        self.stride, self.padding, self.dilation = stride, padding, dilation
        if stride > 1 and check_dialect(dialect) == "tf1":
            # TensorFlow's SAME pads more at the bottom right: 0/1 for 3x3, 1/2 for 5x5 on even sides.
            # Paddle resets the dilation to 1 under "SAME", so only the strided (undilated) layers use it.
            self.padding = "SAME"
        self.conv = nn.Conv2D(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=self.padding,
            dilation=dilation,
            weight_attr=nn.initializer.XavierUniform(),
            bias_attr=nn.initializer.Constant(0.0),
        )
        self.activation = activation

    def forward(self, x):
        if convolution.usable(x):
            return convolution.convolve(x, self.conv.weight, self.conv.bias, self.geometry(x), self.activation)
        return ACTIVATIONS[self.activation](self.conv(x))

    def geometry(self, x) -> Geometry:
        """Stride, dilation and padding for the sides of x [N, C, H, W]."""
        if self.padding != "SAME":
            return Geometry(self.stride, self.dilation, (self.padding,) * 2, (self.padding,) * 2)
        kernel = self.conv.weight.shape[2]
        beyond = [max((-(-side // self.stride) - 1) * self.stride + kernel - side, 0) for side in x.shape[2:]]
        before = tuple(padding // 2 for padding in beyond)
        return Geometry(self.stride, 1, before, tuple(p - b for p, b in zip(beyond, before)))


def upsample_x2(x):
    """Nearest-neighbour upsampling: [N, C, H, W] -> [N, C, 2H, 2W]; both dialects agree on integer factors.

    In programs as pixel shuffle, which all inference engines accept with dynamic sizes, unlike `F.interpolate`.
    """
    if not paddle.in_dynamic_mode():
        return F.pixel_shuffle(paddle.stack([x] * 4, axis=2).flatten(1, 2), 2)
    n, c, h, w = x.shape
    x = x.transpose([0, 2, 3, 1]).unsqueeze(3)  # [N, H, W, 1, C], as the convolutions leave it in memory
    x = paddle.concat([x, x], axis=3).reshape([n, h, 1, 2 * w * c])
    return paddle.concat([x, x], axis=2).reshape([n, 2 * h, 2 * w, c]).transpose([0, 3, 1, 2])


def concat_channels(*tensors):
    """[N, C, H, W], [N, C', H, W], ... -> [N, C + C' + ..., H, W]; where channels lie last in memory, as they lie."""
    if not paddle.in_dynamic_mode():
        return paddle.concat(tensors, axis=1)
    return paddle.concat([x.transpose([0, 2, 3, 1]) for x in tensors], axis=3).transpose([0, 3, 1, 2])


def composite(generated, image, mask):
    """The generated pixels in the hole, the image's elsewhere; [N, 3, H, W], mask [N or 1, 1, H, W], 1 = hole."""
    return generated * mask + image * (1.0 - mask)


def crop_boxes(x, boxes):
    """Cut boxes of one size out of a batch (TF1: `local_patch`).

    x [N, C, H, W]; boxes: integer rows (top, left, height, width), one for the whole batch or one a sample.
    Returns [N, C, height, width].
    """
    boxes = [[int(value) for value in box] for box in boxes]
    if len(boxes) not in (1, x.shape[0]):
        raise ValueError(f"{len(boxes)} boxes for a batch of {x.shape[0]}; give one, or one a sample")
    if len({tuple(box[2:]) for box in boxes}) != 1:
        raise ValueError(f"the boxes of a batch must have one size, not {sorted({tuple(b[2:]) for b in boxes})}")
    for top, left, height, width in boxes:
        if min(top, left) < 0 or top + height > x.shape[2] or left + width > x.shape[3]:
            raise ValueError(f"the box {(top, left, height, width)} does not lie in the image {x.shape[2:]}")
    if len(boxes) == 1:
        top, left, height, width = boxes[0]
        return x[:, :, top : top + height, left : left + width]
    crops = [
        x[i : i + 1, :, top : top + height, left : left + width]
        for i, (top, left, height, width) in enumerate(boxes)
    ]
    return paddle.concat(crops)


def nearest_index(size: int, out_size: int, dialect: str) -> np.ndarray:
    """Source positions of a nearest-neighbour resize, int64 [out_size].

    tf1: floor(i * (size-1)/(out_size-1) + 0.5) in float32, corners aligned (neuralgym's `resize`);
    pytorch: floor(i * size/out_size).
    """
    position = np.arange(out_size)
    if check_dialect(dialect) == "pytorch":
        return position * size // out_size
    scale = np.float32((size - 1) / max(out_size - 1, 1))
    index = np.floor(position.astype(np.float32) * scale + np.float32(0.5)).astype(np.int64)
    return np.minimum(index, size - 1) if out_size > 1 else np.zeros(1, np.int64)


def hide_hole(image, mask, mask_type: str = "hole", mosaic_unit_size: int = 12):
    """What the generator is shown: zeros in the hole, or the image in blocks of `mosaic_unit_size` pixels.

    image [N, 3, H, W] in [-1, 1], mask [N or 1, 1, H, W]. The mosaic is PORT's `mask_type: mosaic`:
    nearest down by the unit, nearest up again.
    """
    if mask_type == "hole":
        return image * (1.0 - mask)
    if mask_type != "mosaic":
        raise ValueError(f"mask_type must be 'hole' or 'mosaic', not {mask_type!r}")
    blocks = image
    for axis in (2, 3):
        size = image.shape[axis]
        units = max(size // mosaic_unit_size, 1)
        # Down takes row unit*k, up takes k = floor(i*units/size); together one gather a side.
        index = nearest_index(units, size, "pytorch") * mosaic_unit_size
        blocks = paddle.index_select(blocks, paddle.to_tensor(index), axis=axis)
    return composite(blocks, image, mask)
