"""What the reader of pickles can make: arrays of NumPy, Paddle and PyTorch, from their descriptions.

The functions stand for those that pickles call by the same names. Each checks its arguments, which may be anything,
and none makes more than the file holds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from utils.foreign.arrays import ForeignArray, WeightsError, checked_shape

_NUMBER_TYPE = re.compile(r"[<>=|]?([fiu][1248]|b1)")


@dataclass(frozen=True)
class Name:
    """Something that the pickle calls by its name, e.g. "numpy.dtype"; never the thing itself."""

    text: str


@dataclass
class NumberType:
    """A NumPy dtype under construction."""

    text: str


def build(target: Any, state: Any) -> None:
    """Completes a type or an array from its state, as NumPy's `__setstate__` does; nothing else has one."""
    if isinstance(target, NumberType):
        order = state[1]
        if order not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
            raise WeightsError("has an array of a type that is not plain numbers")
        target.text = order + target.text.lstrip("<>|=")
    elif isinstance(target, ForeignArray):
        _, shape, number_type, fortran, data = state
        _fill(target, data, number_type, shape, "F" if fortran else "C")
    elif not isinstance(target, dict):  # PyTorch hangs remarks on its tables of parameters: not needed
        raise WeightsError(f"sets up a {type(target).__name__}, which a file of arrays has no use for")


def _fill(array: ForeignArray, data: Any, number_type: Any, shape: Any, order: str) -> None:
    shape = checked_shape(shape)
    dtype = np.dtype(_number_type(number_type).text)
    if not isinstance(data, (bytes, bytearray, str)) or len(data) != dtype.itemsize * math.prod(shape):
        raise WeightsError(f"an array in it is not as long as its shape {list(shape)} says")

    def read() -> np.ndarray:
        content = data.encode("latin-1") if isinstance(data, str) else data
        return np.frombuffer(content, dtype).reshape(shape, order=order)

    array.shape, array.dtype, array.read = shape, dtype.name, read


def _number_type(value: Any) -> NumberType:
    if not isinstance(value, NumberType):
        raise WeightsError(f"has a {type(value).__name__} where the type of an array is needed")
    return value


def _dtype(text: Any, align: Any = False, copy: Any = True) -> NumberType:
    if not isinstance(text, str) or not _NUMBER_TYPE.fullmatch(text):
        shown = text[:20] if isinstance(text, str) else type(text).__name__
        raise WeightsError(f"has an array of the type {shown}, which is not plain numbers")
    return NumberType(text)


def _reconstruct(kind: Any, shape: Any, code: Any) -> ForeignArray:
    if kind != Name("numpy.ndarray"):
        raise WeightsError("has an array of an unknown kind")
    return ForeignArray()  # BUILD brings the content


def _from_buffer(data: Any, number_type: Any, shape: Any, order: Any) -> ForeignArray:
    array = ForeignArray()
    _fill(array, data, number_type, shape, "F" if order == "F" else "C")
    return array


def _scalar(number_type: Any, data: Any) -> int | float | bool:
    array = ForeignArray()
    _fill(array, data, number_type, (), "C")
    return array.read().item()


def _encode(text: Any, encoding: Any) -> str:
    """Protocols 0 to 2 write bytes as text; it stays text until an array is read, so that it cannot multiply."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise WeightsError("encodes text in a way that a file of arrays has no use for")
    return text


def _pair(values: Any = ()) -> tuple[Any, ...]:
    if not isinstance(values, (tuple, list)) or len(values) > 2:  # Paddle's pairs of a name and an array
        raise WeightsError("makes a tuple of something else than a pair")
    return tuple(values)


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> ForeignArray:
    """PyTorch's `_rebuild_tensor_v2`: a view of a storage; needs `storage.count`, `.dtype` and `.read()`."""
    (offset,), size, stride = checked_shape([offset]), checked_shape(size), checked_shape(stride)
    reach = offset + sum((n - 1) * step for n, step in zip(size, stride)) + 1
    # A stride of 0 could make much out of little.
    inside = len(size) == len(stride) and (reach <= storage.count >= math.prod(size) or 0 in size)
    if not inside:
        raise WeightsError(f"a tensor in it of shape {list(size)} does not fit its storage")

    def read() -> np.ndarray:
        values = storage.read()
        strides = [step * values.itemsize for step in stride]
        if 0 in size:
            return np.zeros(size, values.dtype)
        return np.lib.stride_tricks.as_strided(values[offset:], size, strides, writeable=False)

    return ForeignArray(size, storage.dtype.name, read)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "_codecs.encode": _encode,
    "builtins.bytes": lambda: b"",
    "builtins.tuple": _pair,
    "collections.OrderedDict": lambda: {},
    "numpy.core.multiarray._reconstruct": _reconstruct,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _from_buffer,
    "numpy.dtype": _dtype,
    "torch._utils._rebuild_parameter": lambda tensor, requires_grad, hooks: tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
}
# Named, but not called.
TYPES = {
    "numpy.ndarray": None,
    "torch.BoolStorage": "|b1",
    "torch.ByteStorage": "|u1",
    "torch.CharStorage": "|i1",
    "torch.DoubleStorage": "<f8",
    "torch.FloatStorage": "<f4",
    "torch.HalfStorage": "<f2",
    "torch.IntStorage": "<i4",
    "torch.LongStorage": "<i8",
    "torch.ShortStorage": "<i2",
}
