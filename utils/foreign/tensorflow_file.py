"""Reads TensorFlow's checkpoints (<prefix>.index and <prefix>.data-?????-of-?????) without TensorFlow.

The index is a sorted table in LevelDB's format: blocks of keys and values, each with a checksum, and a footer that
finds them. A key is a variable's name, its value a BundleEntryProto: type, shape, and where in the data files its
bytes lie, with a checksum of theirs. Both checksums are verified.
"""

from __future__ import annotations

import math
import os
import re
import struct
from collections.abc import Iterator

import numpy as np

from utils.foreign.arrays import ForeignArray, WeightsError, checked_shape, open_bounded, reading
from utils.foreign.crc32c import masked_crc32c

_MAX_INDEX = 2**24  # bytes; the full-width networks with both Adam moments take about 30 000
_MAX_VARIABLES = 20_000
_MAX_NAME = 1024
_MAX_SHARDS = 1000
_FOOTER = 48
_MAGIC = 0xDB4775248B80FB57
# TensorFlow's DataType; others can be listed but not read
_TYPES = {1: "<f4", 2: "<f8", 3: "<i4", 4: "|u1", 5: "<i2", 6: "|i1", 9: "<i8", 10: "|b1", 19: "<f2"}


def checkpoint_prefix(path: str) -> str | None:
    """The prefix of the checkpoint that `path` names: itself, or one of its files; None if there is none."""
    prefix = re.sub(r"\.(index|meta|data-\d{5}-of-\d{5})$", "", path)
    if os.path.isfile(f"{prefix}.index"):
        return prefix
    if os.path.exists(f"{prefix}.data-00000-of-00001"):
        raise WeightsError(f"{prefix}.index: is missing, without which the data file beside it cannot be read")
    return None


def checkpoint_in_folder(folder: str) -> str | None:
    """The prefix of a folder's checkpoint: that which its file `checkpoint` names, else the one of largest number."""
    record = os.path.join(folder, "checkpoint")
    if os.path.isfile(record):
        with reading(record), open_bounded(record, _MAX_INDEX) as (file, _):
            match = re.search(r'^model_checkpoint_path:\s*"([^"\\]+)"', file.read().decode(), re.MULTILINE)
        if match:
            # Folders get moved and renamed, and the path may be absolute: what counts is the last part.
            prefix = checkpoint_prefix(os.path.join(folder, re.split(r"[/\\]", match[1])[-1]))
            if prefix is None:
                raise WeightsError(f"{record}: names {match[1]}, but there is no {match[1]}.index")
            return prefix
    found = [name[: -len(".index")] for name in os.listdir(folder) if name.endswith(".index")]
    found.sort(key=lambda name: (int((re.findall(r"\d+", name) or [0])[-1]), name))
    return os.path.join(folder, found[-1]) if found else None


def checkpoint_files(prefix: str) -> list[str]:
    """The index and the data files of a checkpoint."""
    folder, name = os.path.split(prefix)
    pattern = re.compile(re.escape(name) + r"\.data-\d{5}-of-\d{5}")
    shards = sorted(entry for entry in os.listdir(folder or ".") if pattern.fullmatch(entry))
    return [f"{prefix}.index", *(os.path.join(folder, shard) for shard in shards)]


def read_tensorflow(prefix: str) -> dict[str, ForeignArray]:
    """All variables of a checkpoint by name; WeightsError if it is damaged or incomplete."""
    index = f"{prefix}.index"
    with reading(index):
        with open_bounded(index, _MAX_INDEX) as (file, _):
            entries = _read_table(file.read())
        if b"" not in entries:
            raise WeightsError("is not the index of a TensorFlow checkpoint: it has no header")
        header = _fields(entries.pop(b""))
        shards = header.get(1, [0])[-1]
        if header.get(2, [0])[-1] != 0:
            raise WeightsError("was written on a big-endian machine, which is not supported")
        if type(shards) is not int or not 1 <= shards <= _MAX_SHARDS:
            raise WeightsError("has an impossible number of data files")
    paths = [f"{prefix}.data-{i:05d}-of-{shards:05d}" for i in range(shards)]
    sizes = []
    for path in paths:
        with reading(path), open_bounded(path) as (_, size):
            sizes.append(size)
    with reading(index):
        return {key.decode(): _variable(_fields(value), paths, sizes) for key, value in entries.items()}


def _variable(entry: dict[int, list], paths: list[str], sizes: list[int]) -> ForeignArray:
    """A BundleEntryProto: 1 type, 2 shape, 3 number of the data file, 4 offset, 5 size, 6 checksum, 7 slices."""
    number = entry.get(1, [0])[-1]
    shape = checked_shape([_fields(side).get(1, [0])[-1] for side in _fields(entry.get(2, [b""])[-1]).get(2, [])])
    shard, offset, size = (entry.get(field, [0])[-1] for field in (3, 4, 5))
    if 7 in entry or number not in _TYPES:
        return ForeignArray(shape, "(stored in slices)" if 7 in entry else f"TensorFlow's type {number}")
    dtype = np.dtype(_TYPES[number])
    if shard >= len(paths) or size != dtype.itemsize * math.prod(shape):
        raise WeightsError("is damaged: a variable is not as long as its shape says")
    with reading(paths[shard]):
        if offset + size > sizes[shard]:
            raise WeightsError("is incomplete: shorter than its index says")
    checksum = entry.get(6, [0])[-1]

    def read() -> np.ndarray:
        with reading(paths[shard]), open(paths[shard], "rb") as file:
            file.seek(offset)
            data = file.read(size)
            if masked_crc32c(data) != checksum:
                raise WeightsError("is damaged: a checksum is wrong")
            return np.frombuffer(data, dtype).reshape(shape)

    return ForeignArray(shape, dtype.name, read)


def _read_table(data: bytes) -> dict[bytes, bytes]:
    """All keys and values of a table: the footer finds the index block, and that the data blocks."""
    if len(data) < _FOOTER or struct.unpack("<Q", data[-8:])[0] != _MAGIC:
        raise WeightsError("is cut off, or not the index of a TensorFlow checkpoint")
    footer = data[-_FOOTER:]
    position = 0
    for _ in range(2):  # where the block of remarks lies: not needed
        _, position = _varint(footer, position)
    entries: dict[bytes, bytes] = {}
    for _, handle in _read_block(data, *_handle(footer, position)):
        for key, value in _read_block(data, *_handle(handle, 0)):
            if key in entries or len(entries) > _MAX_VARIABLES:
                raise WeightsError("lists a variable twice, or too many of them")
            entries[key] = value
    return entries


def _handle(data: bytes, position: int) -> tuple[int, int]:
    offset, position = _varint(data, position)
    return offset, _varint(data, position)[0]


def _read_block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """A block's keys and values. A key is stored as what differs from the one before; at the end stand the places
    where a key is whole, which are needed for searching only. A byte for the compression and a checksum follow."""
    end = offset + size
    if end + 5 > len(data) or size < 4:
        raise WeightsError("is damaged: a block lies outside of it")
    if masked_crc32c(data[offset : end + 1]) != struct.unpack_from("<I", data, end + 1)[0]:
        raise WeightsError("is damaged: a checksum is wrong")
    if data[end] != 0:
        kind = "with snappy" if data[end] == 1 else f"in the unknown way {data[end]}"
        raise WeightsError(f"is compressed {kind}, which is not supported; save it again with TensorFlow 1.x's Saver")
    block = data[offset:end]
    stop = size - 4 - 4 * struct.unpack("<I", block[-4:])[0]
    if stop < 0:
        raise WeightsError("is damaged: a block contradicts itself")
    key, position = b"", 0
    while position < stop:
        shared, position = _varint(block, position)
        own, position = _varint(block, position)
        length, position = _varint(block, position)
        if shared > len(key) or shared + own > _MAX_NAME or position + own + length > stop:
            raise WeightsError("is damaged: a block contradicts itself")
        key = key[:shared] + block[position : position + own]
        position += own + length
        yield key, block[position - length : position]


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """A number in groups of 7 bits, lowest first, and the position behind it."""
    value = 0
    for i in range(10):
        byte = data[position + i]
        value |= (byte & 127) << 7 * i
        if byte < 128:
            return value, position + i + 1
    raise WeightsError("is damaged: a number without an end")


def _fields(message: object) -> dict[int, list]:
    """The fields of a protocol buffer by number: whole numbers, or bytes."""
    if not isinstance(message, bytes):
        raise WeightsError("is damaged: a number in place of a message")
    fields: dict[int, list] = {}
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        kind = tag & 7
        if kind == 0:
            value, position = _varint(message, position)
        else:
            if kind == 2:
                length, position = _varint(message, position)
            else:
                length = {1: 8, 5: 4}[kind]
            value = message[position : position + length]
            if len(value) != length:
                raise WeightsError("is damaged: a message is cut off")
            position += length
            value = value if kind == 2 else int.from_bytes(value, "little")
        fields.setdefault(tag >> 3, []).append(value)
    return fields
