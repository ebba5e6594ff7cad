"""Reads the pickles of other programs without running anything in them.

A pickle is a program for a stack machine that may call any function. The machine here is not Python's: it knows
only what arrays in plain containers need, calls nothing but the few functions of `pickled_arrays`, imports
nothing, and keeps its memory in proportion to the file.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO

from utils.foreign.arrays import WeightsError
from utils.foreign.pickled_arrays import FUNCTIONS, TYPES, Name, build

MAX_STEPS = 1_000_000  # a full-width generator takes about 5000
_MARK = object()

# Their argument is the value.
_LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLE_SIZES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


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
            build(target, state)
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
