"""The two-stage generator: coarse network, then refinement with contextual attention.

Paper: section 3.1 (coarse-to-fine) and 4.2 (unified network); TF1: `build_inpaint_net`. Channel counts are
multiples of c = 32. Every convolution is followed by ELU unless its line says otherwise. Parameter names are
those of the PyTorch port and of the earlier Paddle port, so that their checkpoints fit without renaming.
"""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn as nn

from models.contextual_attention import ContextualAttention, resize_nearest
from models.layers import ConvBlock, check_dialect, composite, concat_channels, upsample_x2


def with_border_and_mask(image, mask):
    """[N, 3, H, W] and [N or 1, 1, H, W] -> [N, 5, H, W]: image, a plane of ones, mask.

    The ones let the network see where the picture ends, since padding is with zeros.
    """
    n, _, h, w = image.shape
    return paddle.concat([image, paddle.ones_like(image[:, :1]), mask.expand([n, 1, h, w])], axis=1)


# What pmconv9 to allconv17 read beyond a pixel, in features of 4 pixels: 2 + 2 + 2/2 + 3/4; rounded up.
REACH = 6


def hole_region(mask: np.ndarray) -> tuple[slice, slice] | None:
    """Rows and columns of the features (4 pixels each) that the pixels in the hole depend on after the atrous layers.

    mask [N or 1, 1, H, W], 1 = hole. For the `region` of the networks below; None where there is no hole. Its sides
    are multiples of 8 where the image has the room, so that few sizes occur.
    """
    region = []
    for axis in (2, 3):
        inside = np.flatnonzero(mask.any(axis=tuple({0, 1, 2, 3} - {axis})))
        if not inside.size:
            return None
        size = mask.shape[axis] // 4
        first, stop = inside[0] // 4 - REACH, inside[-1] // 4 + 1 + REACH
        length = min(-(-(stop - first) // 8) * 8, size)
        start = int(np.clip(first, 0, size - length))
        region.append(slice(start, start + length))
    return tuple(region)


def crop_region(x, region):
    """The region's part of [N, C, H, W]; all of it for None."""
    return x if region is None else x[:, :, region[0], region[1]]


class CoarseNetwork(nn.Layer):
    """First stage: a rough inpainting result. [N, 5, H, W] -> [N, 3, H, W] in [-1, 1], or the region's part of it."""

    def __init__(self, channels: int = 32, dialect: str = "tf1"):
        super().__init__()
        c = channels
        self.conv1 = ConvBlock(5, c, kernel_size=5)
        self.conv2_downsample = ConvBlock(c, 2 * c, stride=2, dialect=dialect)
        self.conv3 = ConvBlock(2 * c, 2 * c)
        self.conv4_downsample = ConvBlock(2 * c, 4 * c, stride=2, dialect=dialect)
        self.conv5 = ConvBlock(4 * c, 4 * c)
        self.conv6 = ConvBlock(4 * c, 4 * c)
        self.conv7_atrous = ConvBlock(4 * c, 4 * c, dilation=2)
        self.conv8_atrous = ConvBlock(4 * c, 4 * c, dilation=4)
        self.conv9_atrous = ConvBlock(4 * c, 4 * c, dilation=8)
        self.conv10_atrous = ConvBlock(4 * c, 4 * c, dilation=16)
        self.conv11 = ConvBlock(4 * c, 4 * c)
        self.conv12 = ConvBlock(4 * c, 4 * c)
        self.conv13 = ConvBlock(4 * c, 2 * c)
        self.conv14 = ConvBlock(2 * c, 2 * c)
        self.conv15 = ConvBlock(2 * c, c)
        self.conv16 = ConvBlock(c, c // 2)
        self.conv17 = ConvBlock(c // 2, 3, activation=None)

    def forward(self, x, region=None):
        x = self.conv1(x)  # [N, c, H, W]
        x = self.conv2_downsample(x)  # [N, 2c, H/2, W/2]
        x = self.conv3(x)
        x = self.conv4_downsample(x)  # [N, 4c, H/4, W/4]
        x = self.conv6(self.conv5(x))
        x = self.conv7_atrous(x)
        x = self.conv8_atrous(x)
        x = self.conv9_atrous(x)
        x = crop_region(self.conv10_atrous(x), region)
        x = self.conv12(self.conv11(x))
        x = upsample_x2(x)
        x = self.conv14(self.conv13(x))  # [N, 2c, H/2, W/2]
        x = upsample_x2(x)
        x = self.conv16(self.conv15(x))  # [N, c/2, H, W]
        return paddle.clip(self.conv17(x), -1.0, 1.0)


class RefinementNetwork(nn.Layer):
    """Second stage: a convolutional branch and an attention branch over one input, merged by a decoder.

    Input [N, 5, H, W] and the mask [N or 1, 1, H, W]; returns the picture [N, 3, H, W] in [-1, 1] and the
    attention's offsets [N, 2, H/8, W/8] (int64). contextual_attention=False leaves the layer out and nothing else:
    the branch keeps its convolutions, the weights and their initial values are the same, the offsets are None.
    """

    def __init__(self, channels: int = 32, dialect: str = "tf1", contextual_attention: bool = True):
        super().__init__()
        c = channels
        self.dialect = check_dialect(dialect)
        self.conv1 = ConvBlock(5, c, kernel_size=5)
        self.conv2_downsample = ConvBlock(c, c, stride=2, dialect=dialect)
        self.conv3 = ConvBlock(c, 2 * c)
        self.conv4_downsample = ConvBlock(2 * c, 2 * c, stride=2, dialect=dialect)
        self.conv5 = ConvBlock(2 * c, 4 * c)
        self.conv6 = ConvBlock(4 * c, 4 * c)
        self.conv7_atrous = ConvBlock(4 * c, 4 * c, dilation=2)
        self.conv8_atrous = ConvBlock(4 * c, 4 * c, dilation=4)
        self.conv9_atrous = ConvBlock(4 * c, 4 * c, dilation=8)
        self.conv10_atrous = ConvBlock(4 * c, 4 * c, dilation=16)

        self.pmconv1 = ConvBlock(5, c, kernel_size=5)
        self.pmconv2_downsample = ConvBlock(c, c, stride=2, dialect=dialect)
        self.pmconv3 = ConvBlock(c, 2 * c)
        self.pmconv4_downsample = ConvBlock(2 * c, 4 * c, stride=2, dialect=dialect)
        self.pmconv5 = ConvBlock(4 * c, 4 * c)
        self.pmconv6 = ConvBlock(4 * c, 4 * c, activation="relu")
        self.contextual_attention = ContextualAttention(dialect=dialect) if contextual_attention else None
        self.pmconv9 = ConvBlock(4 * c, 4 * c)
        self.pmconv10 = ConvBlock(4 * c, 4 * c)

        self.allconv11 = ConvBlock(8 * c, 4 * c)
        self.allconv12 = ConvBlock(4 * c, 4 * c)
        self.allconv13 = ConvBlock(4 * c, 2 * c)
        self.allconv14 = ConvBlock(2 * c, 2 * c)
        self.allconv15 = ConvBlock(2 * c, c)
        self.allconv16 = ConvBlock(c, c // 2)
        self.allconv17 = ConvBlock(c // 2, 3, activation=None)

    def forward(self, x, mask, region=None):
        # Convolutional branch
        h = self.conv1(x)  # [N, c, H, W]
        h = self.conv2_downsample(h)  # [N, c, H/2, W/2]
        h = self.conv3(h)
        h = self.conv4_downsample(h)  # [N, 2c, H/4, W/4]
        h = self.conv6(self.conv5(h))  # [N, 4c, H/4, W/4]
        h = self.conv7_atrous(h)
        h = self.conv8_atrous(h)
        h = self.conv9_atrous(h)
        h = crop_region(self.conv10_atrous(h), region)

        # Attention branch
        a = self.pmconv1(x)  # [N, c, H, W]
        a = self.pmconv2_downsample(a)  # [N, c, H/2, W/2]
        a = self.pmconv3(a)
        a = self.pmconv4_downsample(a)  # [N, 4c, H/4, W/4]
        a = self.pmconv6(self.pmconv5(a))
        offsets = None
        if self.contextual_attention is not None:
            a, offsets = self.contextual_attention(a, a, resize_nearest(mask, 4, self.dialect))
        a = self.pmconv10(self.pmconv9(crop_region(a, region)))

        # Decoder
        x = concat_channels(h, a)  # [N, 8c, H/4, W/4]
        x = self.allconv12(self.allconv11(x))
        x = upsample_x2(x)
        x = self.allconv14(self.allconv13(x))  # [N, 2c, H/2, W/2]
        x = upsample_x2(x)
        x = self.allconv16(self.allconv15(x))  # [N, c/2, H, W]
        return paddle.clip(self.allconv17(x), -1.0, 1.0), offsets


class InpaintingGenerator(nn.Layer):
    """Coarse stage, composite, refinement stage; no stop-gradient between them.

    Args:
        channels: the paper's c (`ngf`); 32 in the paper.
        dialect: "tf1" (authors' release) or "pytorch" (the ports); see docs/method.md for their differences.
        contextual_attention: False for the comparison without it; see `RefinementNetwork`.

    Call with image [N, 3, H, W] in [-1, 1] whose hole is zeroed (or shows a mosaic), mask
    [N or 1, 1, H, W], 1 = hole; H and W divisible by 8. Returns (coarse [N, 3, H, W], refined [N, 3, H, W], both in
    [-1, 1] and not composited, offsets [N, 2, H/8, W/8] int64 or None).

    region: the mask's `hole_region` where only the pixels in the hole count, as in a composite. The decoders compute
    no more than that, and outside the hole the outputs are meaningless.
    """

    def __init__(self, channels: int = 32, dialect: str = "tf1", contextual_attention: bool = True):
        super().__init__()
        self.coarse_generator = CoarseNetwork(channels, dialect)
        self.fine_generator = RefinementNetwork(channels, dialect, contextual_attention)

    def coarse(self, image, mask, region=None):
        """The first stage alone: [N, 3, H, W] in [-1, 1]."""
        coarse = self.coarse_generator(with_border_and_mask(image, mask), region)
        return coarse if region is None else beside_zeros(coarse, region, image)

    def forward(self, image, mask, region=None):
        check_inputs(image, mask)
        coarse = self.coarse(image, mask, region)
        refinement_input = with_border_and_mask(composite(coarse, image, mask), mask)
        refined, offsets = self.fine_generator(refinement_input, mask, region)
        return coarse, refined if region is None else beside_zeros(refined, region, image), offsets


def beside_zeros(x, region, image):
    """Puts the region's part of an image where it belongs, [N, 3, H, W], with zeros around it."""
    whole = paddle.zeros_like(image)
    rows, columns = (slice(4 * part.start, 4 * part.stop) for part in region)
    whole[:, :, rows, columns] = x
    return whole


def check_inputs(image, mask):
    """ValueError unless the shapes are those that `InpaintingGenerator` takes."""
    if not paddle.in_dynamic_mode():
        return  # a program being traced may have sizes that are not known yet
    n, c, h, w = image.shape
    if c != 3 or h % 8 or w % 8:
        raise ValueError(f"image must be [N, 3, H, W] with H and W divisible by 8, not {list(image.shape)}")
    if list(mask.shape) not in ([n, 1, h, w], [1, 1, h, w]):
        raise ValueError(f"mask must be [{n} or 1, 1, {h}, {w}], not {list(mask.shape)}")
