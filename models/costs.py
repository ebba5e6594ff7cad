"""How many operations the networks and their updates need, and what they keep: formulas, without paddle.

An operation is a multiplication or an addition of a convolution, a dense layer or the attention; the rest is not
counted. Sizes are (height, width) of the picture; everything is for one picture.
"""

from __future__ import annotations

import math

FORMULAS = {
    "convolution": "2 k^2 C_in C_out H_out W_out",
    "attention, published": "L^2 (2*9 C + 2*2*9 + 2*16 C), L = (H/8)(W/8), C = 4c: scores, two fusions, pasting",
    "attention, ours": "L^2 (2*3 C + 2*8 C + 8): Gram matrix of pixel rows, pasting by rows, eight shifted sums",
    "forward+backward": "3 forward",
    "critic update": "generator forward + 10 critic forwards a picture: 3 each for real and fake, and 4 for the "
                     "penalty (forward, slope, and the slope's two gradients)",
    "generator update": "3 generator forwards + 2 critic forwards (critics frozen); 3 in the published form",
    "iteration": "5 critic updates + 1 generator update",
}


def convolution_operations(kernel_area: int, channels_in: int, channels_out: int, positions: float) -> float:
    """positions: output pixels, H_out * W_out; a dense layer is a convolution with one."""
    return 2 * kernel_area * channels_in * channels_out * positions


def attention_operations(positions: float, channels: int, plain: bool = False) -> float:
    """positions: of the halved feature map, L; plain: in the published form."""
    per_pair = (18 + 32) * channels + 36 if plain else (6 + 16) * channels + 8
    return positions**2 * per_pair


def generator_convolutions(c: int) -> float:
    """Operations of all convolutions of both stages, per picture pixel; see the table in models/generator.py."""
    # kernel side, channels in and out, picture pixels per output pixel
    decoder = [(4 * c, 4 * c, 16), (4 * c, 2 * c, 4), (2 * c, 2 * c, 4)]
    decoder += [(2 * c, c, 1), (c, c // 2, 1), (c // 2, 3, 1)]
    coarse = [(c, 2 * c, 4), (2 * c, 2 * c, 4), (2 * c, 4 * c, 16), *[(4 * c, 4 * c, 16)] * 7, *decoder]
    branch = [(c, c, 4), (c, 2 * c, 4), (2 * c, 2 * c, 16), (2 * c, 4 * c, 16), *[(4 * c, 4 * c, 16)] * 5]
    attention = [(c, c, 4), (c, 2 * c, 4), (2 * c, 4 * c, 16), *[(4 * c, 4 * c, 16)] * 4]
    layers = [*coarse, *branch, *attention, (8 * c, 4 * c, 16), *decoder]
    return sum(2 * 9 * i * o / area for i, o, area in layers) + 3 * 2 * 25 * 5 * c


def generator_operations(size, c: int, plain: bool = False) -> float:
    return generator_convolutions(c) * size[0] * size[1] + attention_operations(size[0] * size[1] / 64, 4 * c, plain)


def critic_operations(size, c: int) -> float:
    """Both critics: the local one sees a box of half the sides."""
    total = 0.0
    for (h, w), last in (((size[0] // 2, size[1] // 2), 8 * c), (size, 4 * c)):
        widths = [3, c, 2 * c, 4 * c, last]
        for i, o in zip(widths, widths[1:]):
            h, w = math.ceil(h / 2), math.ceil(w / 2)
            total += convolution_operations(25, i, o, h * w)
        total += convolution_operations(1, last, 1, h * w)
    return total


def update_operations(generator: float, critics: float, n_critic: int, plain: bool = False) -> dict[str, float]:
    """Of the updates and of a whole iteration, from the operations of the forward passes.

    generator, critics: of one picture through the generator and through both critics; critics 0: there are none.
    plain: in the published form.
    """
    critic_update = generator + 10 * critics if critics else 0.0
    generator_update = 3 * generator + (3 if plain else 2) * critics
    iteration = n_critic * critic_update + generator_update
    return {"critics": critic_update, "generator": generator_update, "iteration": iteration}


def kept_bytes(generator: int, critics: int) -> dict[str, int]:
    """What the updates keep for their backward passes, from what one forward pass keeps of one picture.

    The critics' update keeps nothing of the generator, and of the critics four passes: real, fake, the picture
    between them, and the way back to its slope.
    """
    return {"critics": 4 * critics, "generator": generator + critics}


def attention_kept_floats(positions: int, channels: int) -> int:
    """Numbers that the attention keeps: its two matrices, and the pixel rows (3) and patches (8) of each position.

    positions: of the halved feature map with its slack (see models/patch_matching.py).
    """
    return 2 * positions**2 + (3 + 8) * channels * positions
