"""The two WGAN-GP critics: one sees the box around the hole, one the whole picture.

Paper: section 3.2 and figure 2; TF1: `build_wgan_local_discriminator`, `build_wgan_global_discriminator`.
"""

from __future__ import annotations

import paddle.nn as nn

from models.layers import ConvBlock, check_dialect


class ConvStack(nn.Layer):
    """Four 5x5 convolutions of stride 2 with leaky ReLU 0.2: [N, in, H, W] -> [N, widths[3], H/16, W/16]."""

    def __init__(self, in_channels: int, widths: list[int], dialect: str):
        super().__init__()
        options = {"kernel_size": 5, "stride": 2, "activation": "leaky_relu", "dialect": dialect}
        self.conv1 = ConvBlock(in_channels, widths[0], **options)
        self.conv2 = ConvBlock(widths[0], widths[1], **options)
        self.conv3 = ConvBlock(widths[1], widths[2], **options)
        self.conv4 = ConvBlock(widths[2], widths[3], **options)

    def forward(self, x):
        return self.conv4(self.conv3(self.conv2(self.conv1(x))))


class Critic(nn.Layer):
    """A convolution stack and one linear unit; call with [N, in_channels, H, W], returns scores [N, 1].

    `size` is the side of the (square) input, or (height, width): the linear unit fixes it. The features are
    flattened C, H, W; converters permute TF1's H, W, C.
    """

    def __init__(self, widths: list[int], size: int | tuple[int, int], in_channels: int, dialect: str):
        super().__init__()
        self.size = (size, size) if isinstance(size, int) else tuple(size)
        self.dis_conv_module = ConvStack(in_channels, widths, check_dialect(dialect))
        rows, columns = (-(-side // 16) for side in self.size)  # four times ceil(side / 2)
        self.linear = nn.Linear(
            widths[3] * rows * columns,
            1,
            weight_attr=nn.initializer.XavierUniform(),
            bias_attr=nn.initializer.Constant(0.0),
        )

    def forward(self, x):
        if tuple(x.shape[2:]) != self.size:
            raise ValueError(f"this critic was built for {self.size} inputs, not {tuple(x.shape[2:])}")
        x = self.dis_conv_module(x)
        # reshape, not flatten: the gradient penalty needs a second gradient, which Paddle's flatten lacks
        return self.linear(x.reshape([x.shape[0], -1]))


class LocalCritic(Critic):
    """Judges the box around the hole (128x128 in the paper): 64, 128, 256, 512 channels.

    The ports stop at 256 in the last layer; dialect "pytorch" follows them.
    """

    def __init__(
        self,
        channels: int = 64,
        size: int | tuple[int, int] = 128,
        dialect: str = "tf1",
        in_channels: int = 3,
    ):
        last = 8 if check_dialect(dialect) == "tf1" else 4
        super().__init__([channels, 2 * channels, 4 * channels, last * channels], size, in_channels, dialect)


class GlobalCritic(Critic):
    """Judges the whole picture (256x256 in the paper): 64, 128, 256, 256 channels.

    in_channels is 4 when the mask is shown to it (TF1: GAN_WITH_MASK).
    """

    def __init__(
        self,
        channels: int = 64,
        size: int | tuple[int, int] = 256,
        dialect: str = "tf1",
        in_channels: int = 3,
    ):
        super().__init__([channels, 2 * channels, 4 * channels, 4 * channels], size, in_channels, dialect)
