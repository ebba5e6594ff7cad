"""The losses of DeepFill v1 as small pure functions; `trainer.py` puts them together.

Paper: sections 3.1 (spatially discounted reconstruction) and 3.2 (WGAN-GP on local and global critics).
TF1: `build_graph_with_losses` and neuralgym's `gan_wgan_loss`, `random_interpolates`, `gradients_penalty`.
"""

from __future__ import annotations

import numpy as np
import paddle

from models.convolution import input_gradients_only


def discount_mask(height: int, width: int, gamma: float = 0.99) -> np.ndarray:
    """Weight of each box pixel in the reconstruction loss, float32 [1, 1, height, width] in (0, 1].

    gamma to the power of the distance to the box's border: pixels deep in the hole have many plausible
    values and count less. TF1 (`spatial_discounting_mask`) takes max(gamma^min(i, H-i), gamma^min(j, W-j)) with
    i and j from 0, so the first row weighs 1 and the last one gamma. The paper has gamma 0.99, TF1's file 0.9.
    """
    if not 0.0 < gamma <= 1.0:
        raise ValueError(f"gamma must be in (0, 1], not {gamma}")

    def weights(size):
        i = np.arange(size)
        return np.float64(gamma) ** np.minimum(i, size - i)

    mask = np.maximum(weights(height)[:, None], weights(width)[None, :])
    return mask.astype(np.float32)[None, None]


def weighted_l1(prediction, target, weight=1.0):
    """mean(|prediction - target| * weight), the mean over all elements; shapes broadcast to [N, C, H, W]."""
    return (paddle.abs(prediction - target) * weight).mean()


def known_fraction(mask):
    """mean(1 - mask), floored so that an all-hole mask gives a loss of 0 and not 0/0."""
    return paddle.clip((1.0 - mask).mean(), min=1e-8)


def critic_loss(real_scores, fake_scores):
    """Wasserstein loss of a critic: mean(fake) - mean(real); scores [N, 1]."""
    return fake_scores.mean() - real_scores.mean()


def adversarial_loss(fake_scores):
    """Wasserstein loss of the generator: -mean(fake); scores [N, 1]."""
    return -fake_scores.mean()


def interpolate(real, fake, alpha):
    """A random point between real and fake, real + alpha * (fake - real); alpha [N, 1, 1, 1] in [0, 1)."""
    return real + alpha * (fake - real)


def gradient_penalty(critic, samples, mask=None):
    """mean((||mask * d critic(samples) / d samples|| - 1)^2): pushes the critic's slope to 1.

    samples [N, 3, H, W], or with channels after the colours (the mask), which are shown to the critic and do
    not count; mask [N or 1, 1, H, W] counts the slope in the hole only, since only the hole can
    change (paper, equation 6; TF1 multiplies the squared gradient by it). None counts every pixel, as the
    ports do. Differentiable in the critic's parameters; finite at zero slope.
    """
    samples = samples.detach()
    samples.stop_gradient = False
    scores = critic(samples)
    with input_gradients_only():
        (gradients,) = paddle.grad(scores, samples, grad_outputs=paddle.ones_like(scores), create_graph=True)
    squares = gradients[:, :3] ** 2
    if mask is not None:
        squares = squares * mask
    # The floor lies below any slope float32 can tell from 0 and keeps the root's gradient finite there.
    norms = paddle.sqrt(paddle.clip(squares.sum(axis=[1, 2, 3]), min=1e-16))
    return ((norms - 1.0) ** 2).mean()
