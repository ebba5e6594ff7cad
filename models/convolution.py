"""The convolution of `layers.ConvBlock` on CPUs, by the oneDNN library that Paddle's own wheels carry.

Paddle's eager convolution on CPUs unrolls its input (im2col) and multiplies; oneDNN (see `models/onednn.py`)
convolves directly and applies bias and activation on the way. Activations lie in memory as [N, H, W, C], its fastest
layout for float32, and are handed on as transposed views [N, C, H, W]: a block that follows a block reorders nothing,
and every other operator of Paddle takes them.

A convolution is linear in its input and in its weights, so its three functions are each other's gradients:

    forward(x, w) = y        gradients: data(g, w) = dx      weights(x, g) = dw
    data(g, w) = dx          gradients: forward(u, w) = dg   weights(u, g) = dw
    weights(x, g) = dw       gradients: data(g, v) = dx      forward(x, v) = dg

Written so, gradients of any order follow; the gradient penalty needs the second. DEEPFILL_CONVOLUTION=paddle in the
environment turns all of this off.
"""

from __future__ import annotations

import contextlib

import paddle
from paddle.autograd import PyLayer

from models.onednn import (
    Geometry,
    activation_gradient,
    channels_last_strides,
    convolution,
    library,
    plain_strides,
)


def usable(x) -> bool:
    """Whether `convolve` takes x: float32 on the CPU in dynamic mode, and the library is there."""
    cpu = x.place.is_cpu_place() if paddle.in_dynamic_mode() else False
    return cpu and x.dtype == paddle.float32 and library() is not None


def backend() -> str:
    """For logs: which convolution float32 tensors get on Paddle's present device."""
    return "oneDNN" if paddle.get_device() == "cpu" and library() is not None else "Paddle"


def _empty(shape):
    """An uninitialised tensor [N, C, H, W] that lies as [N, H, W, C]."""
    n, c, h, w = shape
    return paddle.empty([n, h, w, c]).transpose([0, 3, 1, 2])


def _lying(x):
    """The tensor itself and its strides where they are of one of the two known layouts, or else a plain copy's."""
    shape, strides = tuple(x.shape), tuple(x.strides)
    for known in (channels_last_strides(shape), plain_strides(shape)):
        if all(size == 1 or a == b for size, a, b in zip(shape, strides, known)):
            return x, known
    return x.contiguous(), plain_strides(shape)


def _in_channels_last(x):
    """x as it is where it lies as [N, H, W, C], or else a copy that does."""
    shape = tuple(x.shape)
    if _lying(x)[1] == channels_last_strides(shape):
        return x
    n, c, h, w = shape
    return x.transpose([0, 2, 3, 1]).contiguous().transpose([0, 3, 1, 2])


def _forward(x, w, b, geometry: Geometry, activation=None):
    x, strides = _lying(x)
    shapes = tuple(x.shape), tuple(w.shape)
    y = _empty(geometry.output_shape(*shapes))
    b = paddle.zeros([w.shape[0]]) if b is None else b
    primitive = convolution("forward", *shapes, geometry, strides, channels_last_strides(y.shape), activation)
    primitive(src=x, weights=w.contiguous(), bias=b, dst=y)
    return y


def _data(g, w, x_shape, geometry: Geometry):
    g, strides = _lying(g)
    dx = _empty(x_shape)
    primitive = convolution("data", x_shape, tuple(w.shape), geometry, channels_last_strides(x_shape), strides)
    primitive(diff_src=dx, weights=w.contiguous(), diff_dst=g)
    return dx


def _weights(x, g, w_shape, geometry: Geometry):
    """Gradients of the weights and of the bias."""
    (x, x_strides), (g, g_strides) = _lying(x), _lying(g)
    dw, db = paddle.empty(list(w_shape)), paddle.empty([w_shape[0]])
    primitive = convolution("weights", tuple(x.shape), w_shape, geometry, x_strides, g_strides)
    primitive(src=x, diff_weights=dw, diff_bias=db, diff_dst=g)
    return dw, db


def _before_activation(g, y, activation):
    """The gradient before an activation, from the one after it and its result y."""
    if activation is None:
        return g
    g, y = _in_channels_last(g), _in_channels_last(y)
    before = _empty(tuple(y.shape))
    activation_gradient(activation, tuple(y.shape))(dst=y, diff_dst=g, diff_src=before)
    return before


class _Convolve(PyLayer):
    """activation(conv(x, w) + b)"""

    @staticmethod
    def forward(ctx, x, w, b, geometry, activation):
        y = _forward(x, w, b, geometry, activation)
        ctx.save_for_backward(x, w, b, y)
        ctx.geometry, ctx.activation = geometry, activation
        ctx.wanted = [not tensor.stop_gradient for tensor in (x, w, b)]
        return y

    @staticmethod
    def backward(ctx, g):
        x, w, b, y = ctx.saved_tensor()
        wants_x, *wants_weights = ctx.wanted
        wants_weights = [wanted and _weights_wanted for wanted in wants_weights]
        again = paddle.is_grad_enabled()  # a gradient that will itself be differentiated
        if not again:
            g = _before_activation(g, y, ctx.activation)
        elif ctx.activation == "elu":  # the only one whose slope is not piecewise constant
            before = _Convolve.apply(x, w, b, ctx.geometry, None)
            g = g * paddle.where(before > 0, paddle.ones_like(before), paddle.exp(paddle.clip(before, max=0.0)))
        elif ctx.activation is not None:
            g = _Slope.apply(g, y.detach(), ctx.activation)
        data, weights = (_Data.apply, _Weights.apply) if again else (_data, _weights)
        dx = data(g, w, tuple(x.shape), ctx.geometry) if wants_x else None
        both = weights(x, g, tuple(w.shape), ctx.geometry) if any(wants_weights) else (None, None)
        return (dx, *(gradient if wanted else None for gradient, wanted in zip(both, wants_weights)))


class _Slope(PyLayer):
    """The gradient before a piecewise linear activation: linear in g, and constant in y but for a null set."""

    @staticmethod
    def forward(ctx, g, y, activation):
        ctx.save_for_backward(y)
        ctx.activation = activation
        return _before_activation(g, y, activation)

    @staticmethod
    def backward(ctx, u):
        (y,) = ctx.saved_tensor()
        slope = _Slope.apply if paddle.is_grad_enabled() else _before_activation
        return slope(u, y, ctx.activation), None


class _Data(PyLayer):
    @staticmethod
    def forward(ctx, g, w, x_shape, geometry):
        ctx.save_for_backward(g, w)
        ctx.geometry, ctx.wanted = geometry, [not tensor.stop_gradient for tensor in (g, w)]
        return _data(g, w, x_shape, geometry)

    @staticmethod
    def backward(ctx, u):
        g, w = ctx.saved_tensor()
        convolve, weights = (_apply, _Weights.apply) if paddle.is_grad_enabled() else (_forward, _weights)
        return (
            convolve(u, w, None, ctx.geometry) if ctx.wanted[0] else None,
            weights(u, g, tuple(w.shape), ctx.geometry)[0] if ctx.wanted[1] else None,
        )


class _Weights(PyLayer):
    @staticmethod
    def forward(ctx, x, g, w_shape, geometry):
        ctx.save_for_backward(x, g)
        ctx.geometry, ctx.wanted = geometry, [not tensor.stop_gradient for tensor in (x, g)]
        return _weights(x, g, w_shape, geometry)

    @staticmethod
    def backward(ctx, v, v_bias):
        x, g = ctx.saved_tensor()
        data, convolve = (_Data.apply, _apply) if paddle.is_grad_enabled() else (_data, _forward)
        return (
            data(g, v, tuple(x.shape), ctx.geometry) if ctx.wanted[0] else None,
            convolve(x, v, v_bias, ctx.geometry) if ctx.wanted[1] else None,
        )


def _apply(x, w, b, geometry: Geometry, activation=None):
    b = paddle.zeros([w.shape[0]]) if b is None else b
    return _Convolve.apply(x, w, b, geometry, activation)


_weights_wanted = True


@contextlib.contextmanager
def input_gradients_only():
    """For `paddle.grad` with respect to an input alone: backward passes leave out the weights' gradients.

    Needed there, and not only faster: Paddle tells a PyLayer which gradients are wanted only by refusing the others.
    """
    global _weights_wanted
    _weights_wanted = False
    try:
        yield
    finally:
        _weights_wanted = True


def convolve(x, w, b, geometry: Geometry, activation: str | None = None):
    """activation(conv(x, w) + b), differentiable as often as is wanted.

    x [N, C, H, W], w [O, C, kernel, kernel], b [O], all float32 on the CPU, in any memory layout; activation: "elu",
    "relu", "leaky_relu" (slope 0.2) or None. Returns [N, O, H', W'], a view of a tensor [N, H', W', O].
    Raises RuntimeError with oneDNN's status and the shapes where it fails.
    """
    if paddle.is_grad_enabled() and not (x.stop_gradient and w.stop_gradient and b.stop_gradient):
        return _apply(x, w, b, geometry, activation)
    return _forward(x, w, b, geometry, activation)
