"""Writes files as TensorFlow, PyTorch and Paddle do, for tests only and without them."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_TF_TYPES = {"float32": 1, "float64": 2, "int32": 3, "int64": 9}
_STORAGES = {
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "float16": "HalfStorage",
    "int64": "LongStorage",
    "uint16": "BFloat16Storage",
}


def slow_crc32c(data: bytes) -> int:
    """Bit by bit, from the definition."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def _masked(data: bytes, crc: Any) -> int:
    value = crc(data)
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF


def varint(value: int) -> bytes:
    groups = []
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes([*groups, value])


def _entry(array: np.ndarray, shard: int, offset: int, crc: Any) -> bytes:
    sides = b"".join(b"\x12" + varint(len(side)) + side for side in (b"\x08" + varint(n) for n in array.shape))
    message = b"\x08" + varint(_TF_TYPES[array.dtype.name]) + b"\x12" + varint(len(sides)) + sides
    message += b"\x18" + varint(shard) + b"\x20" + varint(offset) + b"\x28" + varint(array.nbytes)
    return message + b"\x35" + struct.pack("<I", _masked(array.tobytes(), crc))


def _block(entries: list[tuple[bytes, bytes]]) -> bytes:
    """Keys share their beginnings but for every fourth, where the table of restarts points."""
    content, restarts, before = b"", [], b""
    for i, (key, value) in enumerate(entries):
        shared = 0
        if i % 4 == 0:
            restarts.append(len(content))
        else:
            while shared < min(len(key), len(before)) and key[shared] == before[shared]:
                shared += 1
        content += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    return content + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def write_table(path: Path, entries: list[tuple[bytes, bytes]], crc: Any = slow_crc32c, compression: int = 0) -> None:
    file = io.BytesIO()

    def add(block: bytes) -> bytes:
        handle = varint(file.tell()) + varint(len(block))
        stored = block + bytes([compression])
        file.write(stored + struct.pack("<I", _masked(stored, crc)))
        return handle

    groups = [entries[i : i + 7] for i in range(0, len(entries), 7)]
    index = [(group[-1][0], add(_block(group))) for group in groups]
    handles = add(_block([])) + add(_block(index))
    file.write(handles.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57))
    path.write_bytes(file.getvalue())


def write_tensorflow(prefix: Path, variables: dict[str, np.ndarray], shards: int = 1, crc: Any = slow_crc32c) -> None:
    """A checkpoint: prefix.index and its data files, the variables dealt out in turn."""
    data = [b""] * shards
    entries = []
    for i, name in enumerate(sorted(variables, key=str.encode)):
        shard = i % shards
        entries.append((name.encode(), _entry(variables[name], shard, len(data[shard]), crc)))
        data[shard] += variables[name].tobytes()
    header = b"\x08" + varint(shards) + b"\x1a\x02\x08\x01"
    write_table(Path(f"{prefix}.index"), [(b"", header), *entries], crc)
    for shard, content in enumerate(data):
        Path(f"{prefix}.data-{shard:05d}-of-{shards:05d}").write_bytes(content)


@dataclass(frozen=True)
class Call:
    """A call that a pickle asks for: "module name" and the arguments; without any, the thing itself."""

    name: str
    arguments: tuple | None = None


def dump(value: Any, storages: list[np.ndarray], old: bool = False) -> bytes:
    """The instructions of protocol 2 for a value; arrays become PyTorch's tensors and go to `storages`."""

    def sequence(values: Any) -> bytes:
        return b"(" + b"".join(dump(part, storages, old) for part in values)

    if isinstance(value, np.ndarray):
        storages.append(value)
        kind = Call(f"torch {_STORAGES[value.dtype.name]}")
        identity: tuple = ("storage", kind, str(len(storages) - 1), "cpu", value.size)
        if old:  # a view, which nothing has
            identity += (None,)
        strides = tuple(step // value.itemsize for step in value.strides)
        rest = sequence((0, value.shape, strides, False, OrderedDict()))[1:]
        return b"ctorch._utils\n_rebuild_tensor_v2\n(" + dump(identity, storages) + b"Q" + rest + b"tR"
    if isinstance(value, dict):
        start = b"ccollections\nOrderedDict\n)R" if isinstance(value, OrderedDict) else b"}"
        return start + sequence(part for item in value.items() for part in item) + b"u"
    if isinstance(value, tuple):
        return sequence(value) + b"t"
    if isinstance(value, Call):
        name = b"c" + value.name.replace(" ", "\n").encode() + b"\n"
        return name if value.arguments is None else name + dump(value.arguments, storages, old) + b"R"
    if isinstance(value, str):
        return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
    return pickle.dumps(value, protocol=2)[2:-1]


def write_torch(path: Path, content: Any, folder: str = "archive") -> None:
    """A zip archive as PyTorch 1.6 and later write it."""
    storages: list[np.ndarray] = []
    index = b"\x80\x02" + dump(content, storages) + b"."
    write_torch_archive(path, index, storages, folder)


def write_torch_archive(path: Path, index: bytes, storages: list[np.ndarray], folder: str = "archive") -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{folder}/data.pkl", index)
        archive.writestr(f"{folder}/byteorder", "little")
        for key, storage in enumerate(storages):
            archive.writestr(f"{folder}/data/{key}", storage.tobytes(order="A"))
        archive.writestr(f"{folder}/version", "3\n")


def write_old_torch(path: Path, content: Any) -> None:
    """As before PyTorch 1.6: five pickles, then the storages, in an order of their own."""
    storages: list[np.ndarray] = []
    body = b"\x80\x02" + dump(content, storages, old=True) + b"."
    keys = [str(i) for i in range(len(storages))][::-1]
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    parts = [pickle.dumps(value, protocol=2) for value in (0x1950A86A20F9469CFC6C, 1001, system)]
    parts += [body, pickle.dumps(keys, protocol=2)]
    for key in keys:
        parts += [struct.pack("<q", storages[int(key)].size), storages[int(key)].tobytes(order="A")]
    path.write_bytes(b"".join(parts))


class NamedArray:
    """What Paddle makes of a parameter: a pair of its own name and the array."""

    def __init__(self, name: str, array: np.ndarray):
        self.pair = name, array

    def __reduce__(self) -> tuple:
        return tuple, (self.pair,)


def write_paddle(path: Path, state: dict, protocol: int = 4) -> None:
    path.write_bytes(pickle.dumps(state, protocol=protocol))


def write_safetensors(path: Path, state: dict[str, np.ndarray]) -> None:
    """8 bytes of length, a JSON object, the data; uint16 stands for bfloat16."""
    kinds = {"float32": "F32", "float64": "F64", "float16": "F16", "int64": "I64", "uint16": "BF16"}
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, array in state.items():
        offsets = [len(data), len(data) + array.nbytes]
        header[name] = {"dtype": kinds[array.dtype.name], "shape": list(array.shape), "data_offsets": offsets}
        data += array.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
