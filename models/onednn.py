"""oneDNN's primitives for convolutions on CPUs, by the library in Paddle's wheels and its C interface (version 3).

It is called with ctypes: no compiler, no header, no further package. A primitive is made once for every kind, shape
and memory layout, and kept in a bounded table. Errors are RuntimeErrors with oneDNN's status and the shapes.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import weakref
from typing import NamedTuple

import paddle

LEAKY_SLOPE = 0.2
PRIMITIVES = 1024  # how many are kept, by shape: an iteration of training at one size uses about 200

# Numbers of oneDNN's C interface (dnnl_types.h)
CPU, IN_ORDER, FLOAT32, ANY_LAYOUT, TRAINING, DIRECT = 1, 1, 3, 1, 64, 1
# Name of an argument -> (its number, the number of the query for its layout or None)
ARGUMENTS = {
    "src": (1, 129), "diff_src": (129, 130), "weights": (33, 131), "diff_weights": (161, 132),
    "dst": (17, 133), "diff_dst": (145, 134), "bias": (41, None), "diff_bias": (169, None),
}  # fmt: skip
STATUS = {1: "out of memory", 2: "invalid arguments", 3: "unimplemented", 5: "runtime error"}
# Activation -> (algorithm, the same with its gradient taken from the result, alpha)
ELTWISE = {"elu": (0x22, 0x102, 1.0), "relu": (0x20, 0x100, 0.0), "leaky_relu": (0x20, 0x100, LEAKY_SLOPE)}


class Geometry(NamedTuple):
    """What a convolution is beside its tensors; padding in pixels."""

    stride: int
    dilation: int
    before: tuple[int, int]  # padding at the top and at the left
    after: tuple[int, int]  # and at the bottom and at the right

    def output_shape(self, x_shape, w_shape) -> tuple[int, int, int, int]:
        sides = (
            (size + before + after - self.dilation * (kernel - 1) - 1) // self.stride + 1
            for size, kernel, before, after in zip(x_shape[2:], w_shape[2:], self.before, self.after)
        )
        return (x_shape[0], w_shape[0], *sides)


class _Argument(ctypes.Structure):
    _fields_ = [("index", ctypes.c_int), ("memory", ctypes.c_void_p)]


class _Library:
    """libdnnl with an engine and a stream for the CPU. Raises OSError or AttributeError where it cannot be had."""

    def __init__(self):
        folder = os.path.join(os.path.dirname(paddle.__file__), "libs")
        names = {"darwin": "libdnnl.3.dylib", "win32": "mkldnn.dll"}
        self.dll = ctypes.CDLL(os.path.join(folder, names.get(sys.platform, "libdnnl.so.3")))
        self.dll.dnnl_primitive_desc_query_md.restype = ctypes.c_void_p
        self.dll.dnnl_memory_desc_get_size.restype = ctypes.c_size_t
        self.dll.dnnl_version.restype = ctypes.POINTER(ctypes.c_int)
        major = self.dll.dnnl_version()[0]
        if major != 3:  # another version has another interface
            raise OSError(f"oneDNN {major} instead of 3")
        self.engine = self.make("dnnl_engine_create", CPU, ctypes.c_size_t(0))
        self.stream = self.make("dnnl_stream_create", self.engine, IN_ORDER)

    def call(self, name: str, *arguments) -> None:
        status = getattr(self.dll, name)(*arguments)
        if status:
            raise RuntimeError(f"oneDNN: {name}: {STATUS.get(status, status)}")

    def make(self, name: str, *arguments) -> ctypes.c_void_p:
        made = ctypes.c_void_p()
        self.call(name, ctypes.byref(made), *arguments)
        return made


@functools.lru_cache(maxsize=1)
def library() -> _Library | None:
    """oneDNN, or None where it is turned off, missing, or lacks what is used of it."""
    if os.environ.get("DEEPFILL_CONVOLUTION", "onednn") == "paddle":
        return None
    try:
        return _Library()
    except (OSError, AttributeError, RuntimeError):
        return None


def _destroyed_with(owner, function: str) -> None:
    """Gives the owner's handle back when it is collected; not at the interpreter's end, which unloads the library."""
    weakref.finalize(owner, getattr(library().dll, function), owner.handle).atexit = False


def _dims(*sizes):
    return (ctypes.c_int64 * 12)(*sizes)


class _Layout:
    """A memory descriptor: dims and strides, or a layout that oneDNN is free to choose."""

    def __init__(self, dims, strides=None, borrowed=None):
        one = library()
        if borrowed is not None:
            self.handle = one.make("dnnl_memory_desc_clone", ctypes.c_void_p(borrowed))
        elif strides is None:
            self.handle = one.make("dnnl_memory_desc_create_with_tag", len(dims), _dims(*dims), FLOAT32, ANY_LAYOUT)
        else:
            self.handle = one.make(
                "dnnl_memory_desc_create_with_strides", len(dims), _dims(*dims), FLOAT32, _dims(*strides)
            )
        _destroyed_with(self, "dnnl_memory_desc_destroy")
        self.elements = -(-one.dll.dnnl_memory_desc_get_size(self.handle) // 4)

    def __eq__(self, other) -> bool:
        return bool(library().dll.dnnl_memory_desc_equal(self.handle, other.handle))

    __hash__ = None


def channels_last_strides(shape) -> tuple[int, int, int, int]:
    """Strides of [N, C, H, W] that lies as [N, H, W, C]."""
    _, c, h, w = shape
    return (h * w * c, 1, w * c, c)


def plain_strides(shape) -> tuple[int, ...]:
    """Strides of a tensor whose last axis is the fastest."""
    strides = [1]
    for size in reversed(shape[1:]):
        strides.insert(0, strides[0] * size)
    return tuple(strides)


class _Primitive:
    """A oneDNN primitive, and the reorders between how its tensors lie and how it wants them.

    descriptor: its primitive descriptor, which it takes over. layouts: how each argument lies, by its name.
    results: the names of those that it writes.
    """

    def __init__(self, descriptor, layouts: dict[str, _Layout], *results: str):
        one = library()
        self.handle = one.make("dnnl_primitive_create", descriptor)
        _destroyed_with(self, "dnnl_primitive_destroy")
        self.results = results
        self.arguments = []  # (name, how it lies, how it is wanted, reorder between the two or None)
        for name, layout in layouts.items():
            wanted, reorder, query = layout, None, ARGUMENTS[name][1]
            if query is not None:
                found = one.dll.dnnl_primitive_desc_query_md(descriptor, query, 0)
                wanted = _Layout(None, borrowed=found)
            if wanted != layout:
                reorder = _reorder(wanted, layout) if name in results else _reorder(layout, wanted)
            self.arguments.append((name, layout, wanted, reorder))
        one.call("dnnl_primitive_desc_destroy", descriptor)

    def __call__(self, **tensors) -> None:
        """Runs it on tensors by the names of their arguments; the results are written into theirs."""
        memories, workspaces, arguments, late = [], [], [], []

        def memory(layout, tensor):
            address = ctypes.c_void_p(tensor.data_ptr())
            memories.append(library().make("dnnl_memory_create", layout.handle, library().engine, address))
            return memories[-1]

        try:
            for name, layout, wanted, reorder in self.arguments:
                own = memory(layout, tensors[name])
                if reorder is not None:
                    workspaces.append(paddle.empty([wanted.elements]))
                    reordered = memory(wanted, workspaces[-1])
                    if name in self.results:
                        late.append((reorder, reordered, own))
                    else:
                        reorder.execute(src=own, dst=reordered)
                    own = reordered
                arguments.append((name, own))
            self.execute(**dict(arguments))
            for reorder, reordered, own in late:
                reorder.execute(src=reordered, dst=own)
        finally:
            for each in memories:
                library().dll.dnnl_memory_destroy(each)

    def execute(self, **memories) -> None:
        arguments = (_Argument * len(memories))(*((ARGUMENTS[name][0], m) for name, m in memories.items()))
        library().call("dnnl_primitive_execute", self.handle, library().stream, len(arguments), arguments)


def _reorder(source: _Layout, target: _Layout) -> _Primitive:
    one = library()
    made = one.make(
        "dnnl_reorder_primitive_desc_create", source.handle, one.engine, target.handle, one.engine, None
    )
    return _Primitive(made, {})


def _attributes(activation: str | None):
    """Primitive attributes with the activation fused, and the list that holds it; to be destroyed both."""
    one = library()
    attributes, operations = one.make("dnnl_primitive_attr_create"), one.make("dnnl_post_ops_create")
    if activation is not None:
        algorithm, _, alpha = ELTWISE[activation]
        one.call("dnnl_post_ops_append_eltwise", operations, algorithm, ctypes.c_float(alpha), ctypes.c_float(0.0))
    one.call("dnnl_primitive_attr_set_post_ops", attributes, operations)
    return attributes, operations


@functools.lru_cache(maxsize=PRIMITIVES)
def convolution(kind: str, x_shape, w_shape, geometry: Geometry, x_strides, y_strides, activation=None):
    """The primitive "forward" (with bias and activation), "data" or "weights" (with the bias gradient)."""
    one = library()
    y_shape = geometry.output_shape(x_shape, w_shape)
    x_lies, y_lies = _Layout(x_shape, x_strides), _Layout(y_shape, y_strides)
    weights, bias = _Layout(w_shape, plain_strides(w_shape)), _Layout(w_shape[:1], (1,))
    # The layout of gradients of weights is oneDNN's to choose: its kernels for [N, H, W, C] are slow there.
    free = kind == "weights"
    x = _Layout(x_shape, None if free else channels_last_strides(x_shape))
    y = _Layout(y_shape, None if free else channels_last_strides(y_shape))
    w = _Layout(w_shape)
    sizes = [
        _dims(geometry.stride, geometry.stride),
        _dims(geometry.dilation - 1, geometry.dilation - 1),
        _dims(*geometry.before),
        _dims(*geometry.after),
    ]
    attributes, operations = _attributes(activation if kind == "forward" else None)
    name = "dnnl_convolution_{}_primitive_desc_create"
    try:
        forward = one.make(
            name.format("forward"),
            one.engine, TRAINING, DIRECT, x.handle, w.handle, bias.handle, y.handle, *sizes, attributes,
        )  # fmt: skip
        if kind == "forward":
            return _Primitive(forward, {"src": x_lies, "weights": weights, "bias": bias, "dst": y_lies}, "dst")
        if kind == "data":
            made = one.make(
                name.format("backward_data"), one.engine, DIRECT, x.handle, w.handle, y.handle, *sizes, forward, None
            )
            layouts, results = {"diff_src": x_lies, "weights": weights, "diff_dst": y_lies}, ["diff_src"]
        else:
            made = one.make(
                name.format("backward_weights"),
                one.engine, DIRECT, x.handle, w.handle, bias.handle, y.handle, *sizes, forward, None,
            )  # fmt: skip
            layouts = {"src": x_lies, "diff_weights": weights, "diff_bias": bias, "diff_dst": y_lies}
            results = ["diff_weights", "diff_bias"]
        one.call("dnnl_primitive_desc_destroy", forward)
        return _Primitive(made, layouts, *results)
    except RuntimeError as error:
        raise RuntimeError(f"{error}; {kind} of x {list(x_shape)}, weights {list(w_shape)}, {geometry}") from None
    finally:
        one.dll.dnnl_primitive_attr_destroy(attributes)
        one.dll.dnnl_post_ops_destroy(operations)


@functools.lru_cache(maxsize=PRIMITIVES)
def activation_gradient(activation: str, shape):
    """Gradient of an activation from its result, all three [N, H, W, C]."""
    one, layout = library(), _Layout(shape, channels_last_strides(shape))
    algorithm, from_result, alpha = ELTWISE[activation]
    numbers = ctypes.c_float(alpha), ctypes.c_float(0.0)
    forward = one.make(
        "dnnl_eltwise_forward_primitive_desc_create",
        one.engine, TRAINING, from_result, layout.handle, layout.handle, *numbers, None,
    )  # fmt: skip
    made = one.make(
        "dnnl_eltwise_backward_primitive_desc_create",
        one.engine, from_result, layout.handle, layout.handle, layout.handle, *numbers, forward, None,
    )  # fmt: skip
    one.call("dnnl_primitive_desc_destroy", forward)
    return _Primitive(made, {"dst": layout, "diff_dst": layout, "diff_src": layout}, "diff_src")
