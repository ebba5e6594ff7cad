"""float16 convolutions on a CPU, which has none: their inputs and outputs, and the gradients of both, are rounded.

Stands in for `paddle.amp.auto_cast`: what is inside it and what is not can be seen, and what the rounding does.
"""

from __future__ import annotations

import contextlib

import paddle
from paddle.autograd import PyLayer

from models.layers import ConvBlock


class Rounded(PyLayer):
    @staticmethod
    def forward(ctx, x):
        return x.astype("float16").astype("float32")

    @staticmethod
    def backward(ctx, gradient):
        return gradient.astype("float16").astype("float32")


class Half:
    """inside: whether the code runs within auto_cast. calls: its arguments. seen: (network, inside) of every pass."""

    def __init__(self, monkeypatch):
        self.inside, self.calls, self.seen = False, [], []
        monkeypatch.setattr(paddle.amp, "auto_cast", self.auto_cast)

    @contextlib.contextmanager
    def auto_cast(self, **options):
        self.calls.append(options)
        self.inside = True
        try:
            yield
        finally:
            self.inside = False

    def watch(self, trainer, rounding=True):
        for name, network in trainer.networks().items():
            first = next(layer for layer in network.sublayers() if isinstance(layer, ConvBlock))
            first.register_forward_pre_hook(lambda layer, _, name=name: self.seen.append((name, self.inside)))
            for layer in network.sublayers():
                if rounding and isinstance(layer, ConvBlock):
                    layer.register_forward_pre_hook(lambda layer, x: Rounded.apply(x[0]) if self.inside else None)
                    layer.register_forward_post_hook(lambda layer, _, y: Rounded.apply(y) if self.inside else None)
        return trainer
