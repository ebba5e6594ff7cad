"""Reads the pickles of other programs without running anything in them.

A pickle is a program for a stack machine that may call any function. The machine here is not Python's: it knows
only what arrays in plain containers need, calls nothing but the few functions at the end of this file, imports
nothing, and keeps its memory in proportion to the file.
"""

from __future__ import annotations

import math
import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from utils.foreign_arrays import ForeignArray, WeightsError, checked_shape

MAX_STEPS = 1_000_000  # a full-width generator takes about 5000
_NUMBER_TYPE = re.compile(r"[<>=|]?([fiu][1248]|b1)")
_MARK = object()

# Their argument is the value.
_LITERALS = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE "
    "SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8".split()
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLE_SIZES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(frozen=True)
class Name:
    """Something that the pickle calls by its name, e.g. "numpy.dtype"; never the thing itself."""

    text: str


@dataclass
class NumberType:
    """A NumPy dtype under construction."""

    text: str


def read_pickle(stream: BinaryIO, load: Callable[[Any], Any] | None = None) -> Any:
    """The first object in `stream`, of plain Python values, ForeignArrays and Names; the stream is left behind it.

    load: makes something of a persistent id (PyTorch's storages). Raises WeightsError for whatever arrays have no
    use for, and any exception for a damaged pickle.
    """
    machine = _Machine(load)
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if count >= MAX_STEPS:
            raise WeightsError(f"takes more than {MAX_STEPS} steps to read, which no file of weights does")
        if opcode.name == "STOP":
            return machine.pop()
        machine.step(opcode.name, argument)
    raise WeightsError("is a pickle without an end")


class _Machine:
    def __init__(self, load: Callable[[Any], Any] | None):
        self.load = load
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("a mark in place of a value")
        return value

    def pop_to_mark(self) -> list[Any]:
        start = len(self.stack) - 1
        while self.stack[start] is not _MARK:
            start -= 1
            if start < 0:
                raise ValueError("no mark on the stack")
        values = self.stack[start + 1 :]
        del self.stack[start:]
        return values

    def pop_count(self, count: int) -> tuple[Any, ...]:
        return tuple([self.pop() for _ in range(count)][::-1])

    def top(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise ValueError(f"{type(self.stack[-1]).__name__} where a {kind.__name__} is needed")
        return self.stack[-1]

    def step(self, opcode: str, argument: Any) -> None:
        if opcode in _LITERALS:
            self.stack.append(argument)
        elif opcode in _CONSTANTS:
            self.stack.append(_CONSTANTS[opcode])
        elif opcode in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif opcode == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif opcode in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif opcode in ("GLOBAL", "STACK_GLOBAL", "INST"):
            name = ".".join(self.pop_count(2)) if opcode == "STACK_GLOBAL" else argument.replace(" ", ".")
            self.stack.append(_admitted(name))
            if opcode == "INST":
                raise WeightsError(f"makes an instance of {name}, which a file of arrays has no use for")
        elif opcode == "REDUCE":
            function, arguments = self.pop_count(2)
            self.stack.append(_call(function, arguments))
        elif opcode == "BUILD":
            target, state = self.stack[-2], self.pop()
            _build(target, state)
        elif opcode == "BINPERSID" and self.load is not None:
            self.stack.append(self.load(self.pop()))
        elif opcode not in ("PROTO", "FRAME"):
            self.step_container(opcode)

    def step_container(self, opcode: str) -> None:
        if opcode == "MARK":
            self.stack.append(_MARK)
        elif opcode == "POP":
            self.stack.pop()
        elif opcode == "POP_MARK":
            self.pop_to_mark()
        elif opcode in _TUPLE_SIZES:
            self.stack.append(self.pop_count(_TUPLE_SIZES[opcode]))
        elif opcode == "TUPLE":
            self.stack.append(tuple(self.pop_to_mark()))
        elif opcode == "EMPTY_LIST":
            self.stack.append([])
        elif opcode == "LIST":
            self.stack.append(self.pop_to_mark())
        elif opcode == "APPEND":
            value = self.pop()
            self.top(list).append(value)
        elif opcode == "APPENDS":
            values = self.pop_to_mark()
            self.top(list).extend(values)
        elif opcode in ("EMPTY_DICT", "DICT"):
            values = self.pop_to_mark() if opcode == "DICT" else []
            self.stack.append({})
            self.set_items(values)
        elif opcode in ("SETITEM", "SETITEMS"):
            self.set_items(self.pop_count(2) if opcode == "SETITEM" else self.pop_to_mark())
        else:
            raise WeightsError(f"uses the pickle instruction {opcode}, which a file of arrays has no use for")

    def set_items(self, values: list[Any] | tuple[Any, ...]) -> None:
        target = self.top(dict)
        for key, value in zip(values[::2], values[1::2]):
            if not isinstance(key, (str, int, float, bytes)):  # hashing a nested key could take for ever
                raise WeightsError(f"has a {type(key).__name__} as the key of a table")
            target[key] = value


def _admitted(name: str) -> Name:
    """NumPy moved its core and Python 3 renamed the builtins; both names of a thing give one."""
    for old, new in (("__builtin__.", "builtins."), ("numpy._core.", "numpy.core.")):
        name = new + name[len(old) :] if name.startswith(old) else name
    if name not in FUNCTIONS and name not in TYPES:
        raise WeightsError(f"asks for {name[:80]}, which a file of arrays has no use for; nothing in it was run")
    return Name(name)


def _call(function: Any, arguments: Any) -> Any:
    if not isinstance(function, Name) or function.text not in FUNCTIONS or not isinstance(arguments, tuple):
        raise WeightsError(f"calls {getattr(function, 'text', type(function).__name__)}; nothing in it was run")
    return FUNCTIONS[function.text](*arguments)


def _build(target: Any, state: Any) -> None:
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
    if isinstance(data, str):  # Python 2's bytes
        data = data.encode("latin-1")
    if not isinstance(data, (bytes, bytearray)) or len(data) != dtype.itemsize * math.prod(shape):
        raise WeightsError(f"an array in it is not as long as its shape {list(shape)} says")
    array.shape, array.dtype = shape, dtype.name
    array.read = lambda: np.frombuffer(data, dtype).reshape(shape, order=order)


def _number_type(value: Any) -> NumberType:
    if not isinstance(value, NumberType):
        raise WeightsError(f"has a {type(value).__name__} where the type of an array is needed")
    return value


def _dtype(text: Any, align: Any = False, copy: Any = True) -> NumberType:
    if not isinstance(text, str) or not _NUMBER_TYPE.fullmatch(text):
        raise WeightsError(f"has an array of the type {str(text)[:20]!r}, which is not plain numbers")
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


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise WeightsError(f"encodes text as {str(encoding)[:20]!r}")
    return text.encode("latin-1")


def _small_tuple(values: Any = ()) -> tuple[Any, ...]:
    if not isinstance(values, (tuple, list)) or len(values) > SHORT:
        raise WeightsError("makes a tuple of something long")
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


SHORT = 8

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "_codecs.encode": _encode,
    "builtins.bytes": bytes().__class__ and (lambda: b""),
    "builtins.tuple": _small_tuple,
    "collections.OrderedDict": dict().__class__ and (lambda: {}),
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
