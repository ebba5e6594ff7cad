"""Reads PyTorch's and Paddle's files of weights, without either library and without running anything in them.

Both are pickles: lists of instructions that can call any function. Here the instructions are looked through first,
and only what arrays in plain containers need may pass, few enough to keep memory in proportion to the file. Python's
unpickler then follows them, but notes each call instead of making it; arrays are made of the notes of known calls.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from utils.cli import UserError
from utils.convert.files import checked_shape, numbers

MAX_INSTRUCTIONS = 1_000_000  # a full-width generator takes about 5000
_LITERAL = re.compile(
    r"NONE|NEWTRUE|NEWFALSE|(BIN)?(INT[12]?|FLOAT)|LONG1?|(SHORT_)?(BIN)?(STRING|UNICODE|BYTES)8?|BYTEARRAY8"
)
_OTHER = re.compile(
    r"PROTO|FRAME|STOP|MARK|(LONG_)?(BIN)?(PUT|GET)|MEMOIZE|(EMPTY_)?(TUPLE|LIST|DICT)|TUPLE[123]|APPENDS?|SETITEMS?|"
    r"(STACK_)?GLOBAL|REDUCE|BUILD|BINPERSID"
)
_LITERALS = {code.name for code in pickletools.opcodes if _LITERAL.fullmatch(code.name)}
_ADMITTED = _LITERALS | {code.name for code in pickletools.opcodes if _OTHER.fullmatch(code.name)}
# What may be asked for by name: NumPy's and Paddle's arrays, PyTorch's tensors and the types of their storages.
_NUMPY = "numpy.core.multiarray._reconstruct", "numpy.core.numeric._frombuffer", "numpy.core.multiarray.scalar"
_TENSOR, _PARAMETER = "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"
_TABLE, _PAIR, _TYPE, _TEXT = "collections.OrderedDict", "builtins.tuple", "numpy.dtype", "_codecs.encode"
_STORAGES = {
    **{"torch.BoolStorage": "|b1", "torch.ByteStorage": "|u1", "torch.CharStorage": "|i1"},
    **{"torch.ShortStorage": "<i2", "torch.IntStorage": "<i4", "torch.LongStorage": "<i8"},
    **{"torch.HalfStorage": "<f2", "torch.FloatStorage": "<f4", "torch.DoubleStorage": "<f8"},
    "torch.BFloat16Storage": "bfloat16",
}
_KNOWN = {*_NUMPY, _TENSOR, _PARAMETER, _TABLE, _PAIR, _TYPE, _TEXT, *_STORAGES, "numpy.ndarray", "builtins.bytes"}


def _unused(what: str) -> UserError:
    return UserError(f"{what}, which a file of weights has no use for; nothing in it was run")


def _inspect(stream: BinaryIO) -> None:
    """Reads one pickle as a list of instructions and refuses what weights do not need.

    It follows by which instruction each value on the unpickler's stack is made, so that keys are words and numbers: a
    tuple of twice the same tuple of twice ... is short in a file, and takes for ever to hash.
    """
    stack, marks, memo = [], [], {}
    for count, (instruction, argument, _) in enumerate(pickletools.genops(stream)):
        name, taken = instruction.name, instruction.stack_before
        if name not in _ADMITTED:
            raise _unused(f"uses the pickle instruction {name}")
        if count >= MAX_INSTRUCTIONS or ("PUT" in name and argument > MAX_INSTRUCTIONS):
            raise _unused(f"takes more than {MAX_INSTRUCTIONS} steps to read")
        if "PUT" in name or name == "MEMOIZE":
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif "GET" in name:
            stack.append(memo[argument])
        elif name == "MARK":
            marks.append(len(stack))
        else:
            to_mark = pickletools.markobject in taken
            top = marks.pop() if to_mark else len(stack)  # what lies above it is taken, and some below
            keys = {"SETITEM": stack[-2:-1], "SETITEMS": stack[top::2], "DICT": stack[top::2]}.get(name, [])
            if not _LITERALS.issuperset(keys):
                raise _unused("has something else than words and numbers as the key of a table")
            del stack[top - (taken.index(pickletools.markobject) if to_mark else len(taken)) :]
            stack += [name] * len(instruction.stack_after)


class _Note(dict):
    """A name that the pickle asks for or, with arguments, a call of it; then with its entries and its state."""

    def __init__(self, name: str, *arguments: Any):
        super().__init__()
        self.name, self.arguments, self.state = name, arguments, ()

    def __call__(self, *arguments: Any) -> _Note:
        return _Note(self.name, *arguments)

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: BinaryIO):
        super().__init__(stream, encoding="latin-1")
        self.storages: dict[str, tuple[str, int]] = {}  # type and count of numbers by name

    def find_class(self, module: str, name: str) -> _Note:
        # Python 3 renamed the builtins, and NumPy moved its core.
        full = re.sub(r"^__builtin__\.", "builtins.", f"{module}.{name}").replace("numpy._core.", "numpy.core.")
        if full not in _KNOWN:
            raise _unused(f"asks for {full[:80]}")
        return _Note(full)

    def persistent_load(self, identity: Any) -> str:
        """PyTorch's storage: "storage", its type, its name, a device, the count of numbers and, once, a view."""
        word, kind, key, _, count, *view = identity
        known = isinstance(kind, _Note) and kind.name in _STORAGES and isinstance(key, str) and view in ([], [None])
        if word != "storage" or not known:
            raise _unused("refers to something else than a storage")
        form = _STORAGES[kind.name], *checked_shape([count])
        if self.storages.setdefault(key, form) != form:
            raise UserError(f"its storage {key[:20]} is described in two ways")
        return key


def _unpickle(stream: BinaryIO) -> tuple[Any, dict[str, tuple[str, int]]]:
    """The next object of the stream, which is left behind it, and the storages that it refers to."""
    start = stream.tell()
    _inspect(stream)
    stream.seek(start)
    unpickler = _Unpickler(stream)
    return unpickler.load(), unpickler.storages


def _array(note: Any, storages: dict[str, np.ndarray]) -> np.ndarray | None:
    """The array that a note describes, checked against what the file holds; None for anything else."""
    if isinstance(note, (tuple, list)) and len(note) == 2:  # Paddle's pair of a name and an array
        note = note[1]
    if not isinstance(note, _Note) or note.name not in (*_NUMPY, _TENSOR, _PARAMETER, _PAIR):
        return None
    if note.name in (_PARAMETER, _PAIR):
        return _array(note.arguments[0], storages)
    if note.name == _TENSOR:
        key, offset, shape, stride, *_ = note.arguments
        (offset,), shape, stride, values = *map(checked_shape, ([offset], shape, stride)), storages[key]
        reach = offset + sum((n - 1) * step for n, step in zip(shape, stride)) + 1
        if 0 in shape:
            return values[:0].reshape(shape)
        # A stride of 0 could make much out of little.
        if len(shape) != len(stride) or not reach <= len(values) >= math.prod(shape):
            raise UserError(f"a tensor in it of shape {list(shape)} does not fit its storage")
        strides = [step * values.itemsize for step in stride]
        return np.lib.stride_tricks.as_strided(values[offset:], shape, strides, writeable=False)
    if note.name == _NUMPY[0]:
        _, shape, kind, fortran, data = note.state
    elif note.name == _NUMPY[1]:
        (data, kind, shape), fortran = note.arguments[:3], note.arguments[3] == "F"
    else:
        (kind, data), shape, fortran = note.arguments, (), False
    if isinstance(data, _Note):  # bytes, in protocols 0 to 2: nothing, or text
        data = data.arguments[0].encode("latin-1") if data.name == _TEXT else b""
    data = data.encode("latin-1") if isinstance(data, str) else data
    shape, dtype = checked_shape(shape), _dtype(kind)
    if len(data) != dtype.itemsize * math.prod(shape):
        raise UserError(f"an array in it is not as long as its shape {list(shape)} says")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def _dtype(note: Any) -> np.dtype:
    """NumPy's type of plain numbers: a call with a name like "f4", and a state with the byte order."""
    text = note.arguments[0] if isinstance(note, _Note) and note.name == _TYPE else note
    if not isinstance(text, str) or not re.fullmatch(r"[<>=|]?([fiu][1248]|b1)", text):
        shown = text[:20] if isinstance(text, str) else type(text).__name__
        raise UserError(f"has an array of the type {shown}, which is not plain numbers")
    order = note.state[1] if note.state else ""
    return np.dtype(order + text.lstrip("<>|="))


def flatten(content: Any, storages: dict[str, np.ndarray], length: int) -> dict[str, Any]:
    """The entries of a table, and of the tables in it, by dotted name: {"netG.conv1.conv.weight": array, ...}.

    length: of the file in bytes. Its arrays together are at most four times as long: few have several names, and
    those of 16 bits become 32.
    """
    if not isinstance(content, dict) or (isinstance(content, _Note) and content.name != _TABLE):
        raise UserError("holds no table of parameters")
    found: dict[str, Any] = {}
    tables, size, entries = [("", content)], 0, 0
    while tables:
        start, table = tables.pop()
        for key, value in table.items():
            name, entries = f"{start}{key}", entries + 1
            array = _array(value, storages)
            size += 0 if array is None else array.nbytes
            if name in found or size > 4 * length + 2**20 or entries > MAX_INSTRUCTIONS:
                raise UserError(f"lists {name[:100]} twice, or more arrays than it can hold")
            if array is None and isinstance(value, dict) and name.count(".") < 20:
                tables.append((f"{name}.", value))
            else:
                found[name] = value if array is None else array
    return found


def read_pickle(data: bytes) -> dict[str, Any]:
    """A table of arrays as Paddle saves it; see `flatten`."""
    return flatten(_unpickle(io.BytesIO(data))[0], {}, len(data))


def read_pytorch(data: bytes) -> dict[str, Any]:
    """A file of PyTorch since 1.6: a zip archive of a pickle, data.pkl, and each storage as a member of its own."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
        stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
        if not stored or sum(member.file_size for member in members) > len(data):
            raise UserError("holds compressed or overlapping data, which PyTorch never writes")
        names = archive.namelist()
        indices = [name for name in names if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(indices) != 1:
            raise UserError("is a zip archive, but not one of PyTorch (it has no data.pkl, or several)")
        folder = indices[0][: -len("data.pkl")]
        if f"{folder}byteorder" in names and archive.read(f"{folder}byteorder").strip() != b"little":
            raise UserError("was written on a big-endian machine, which is not supported")
        content, forms = _unpickle(io.BytesIO(archive.read(indices[0])))
        return flatten(content, _fill(forms, lambda key, size: archive.read(f"{folder}data/{key}")), len(data))


def read_old_pytorch(data: bytes) -> dict[str, Any]:
    """A file of PyTorch before 1.6: five pickles one behind the other, and then the storages, with their lengths."""
    stream = io.BytesIO(data)
    (_, protocol, system), (content, forms), (keys, _) = (
        [_unpickle(stream)[0] for _ in range(3)],
        _unpickle(stream),
        _unpickle(stream),
    )
    if protocol != 1001 or not isinstance(system, dict) or system.get("little_endian") is not True:
        raise UserError("is of an older PyTorch or from a big-endian machine, which is not supported")
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(forms):
        raise UserError("its list of storages is not that of its tensors")

    def read(key: str, size: int) -> bytes:
        count = int.from_bytes(stream.read(8), "little")
        return stream.read(size) if count == forms[key][1] else b""

    return flatten(content, _fill({key: forms[key] for key in keys}, read), len(data))


def _fill(forms: dict[str, tuple[str, int]], read: Callable[[str, int], bytes]) -> dict[str, np.ndarray]:
    """The numbers of all storages, in the order of `forms`; read: given a name and a length in bytes."""
    storages = {}
    for key, (kind, count) in forms.items():
        size = count * (2 if kind == "bfloat16" else np.dtype(kind).itemsize)
        content = read(key, size)
        if len(content) != size:
            raise UserError(f"its storage {key[:20]} is missing, cut off or not as long as it says")
        storages[key] = numbers(content, kind)
    return storages
