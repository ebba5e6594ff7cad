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
from typing import Any

import numpy as np

from utils.cli import UserError
from utils.convert.files import checked_shape, checkpoint_prefix, naming, read_file

_MAX_INDEX = 2**24  # bytes; the full-width networks with both Adam moments take about 30 000
_MAX_VARIABLES, _MAX_NAME, _MAX_SHARDS = 20_000, 1024, 1000
_FOOTER, _MAGIC = 48, 0xDB4775248B80FB57
# TensorFlow's DataType; others can be listed but not read
_TYPES = {1: "<f4", 2: "<f8", 3: "<i4", 4: "|u1", 5: "<i2", 6: "|i1", 9: "<i8", 10: "|b1", 19: "<f2"}


def checkpoint_in_folder(folder: str) -> str | None:
    """The prefix of a folder's checkpoint: that which its file `checkpoint` names, else the one of largest number."""
    record = os.path.join(folder, "checkpoint")
    if os.path.isfile(record):
        match = re.search(rb'^model_checkpoint_path:\s*"([^"\\]+)"', read_file(record, _MAX_INDEX), re.MULTILINE)
        if match:
            # Folders get moved and renamed, and the path may be absolute: what counts is the last part.
            name = re.split(r"[/\\]", match[1].decode())[-1]
            prefix = checkpoint_prefix(os.path.join(folder, name))
            if prefix is None:
                raise UserError(f"its file `checkpoint` names {name}, but there is no {name}.index")
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


def read_tensorflow(prefix: str) -> dict[str, Any]:
    """All variables of a checkpoint by name; UserError if it is damaged or incomplete.

    A variable of another type than plain numbers is given as text that says so.
    """
    index = f"{prefix}.index"
    with naming(index):
        entries = _read_table(read_file(index, _MAX_INDEX))
        if b"" not in entries:
            raise UserError("is not the index of a TensorFlow checkpoint: it has no header")
        header = _fields(entries.pop(b""))
        shards = header.get(1, 0)
        if header.get(2, 0) != 0:
            raise UserError("was written on a big-endian machine, which is not supported")
        if type(shards) is not int or not 1 <= shards <= _MAX_SHARDS:
            raise UserError("has an impossible number of data files")
        places = {key.decode(): _place(_fields(value), shards) for key, value in entries.items()}
    variables: dict[str, Any] = {name: place for name, place in places.items() if isinstance(place, str)}
    for shard in range(shards):
        path = f"{prefix}.data-{shard:05d}-of-{shards:05d}"
        here = {name: place[1:] for name, place in places.items() if place[0] == shard}
        with naming(path):
            data = memoryview(read_file(path))
            if any(offset + size > len(data) for offset, size, *_ in here.values()):
                raise UserError("is incomplete: shorter than its index says")
            if sum(size for _, size, *_ in here.values()) > len(data):
                raise UserError("is damaged: its variables overlap")
            for name, (offset, size, checksum, dtype, shape) in here.items():
                if masked_crc32c(data[offset : offset + size]) != checksum:
                    raise UserError("is damaged: a checksum is wrong")
                variables[name] = np.frombuffer(data[offset : offset + size], dtype).reshape(shape)
    return variables


def _place(entry: dict[int, Any], shards: int) -> tuple | str:
    """Where a variable lies: data file, offset, size, checksum, type and shape; or what it is, if it cannot be read.

    entry: a BundleEntryProto's: 1 type, 2 shape, 3 number of the data file, 4 offset, 5 size, 6 checksum, 7 slices.
    """
    shape = checked_shape([_fields(side).get(1, 0) for side in _fields(entry.get(2, b""), True).get(2, [])])
    if 7 in entry or entry.get(1, 0) not in _TYPES:
        return "stored in slices" if 7 in entry else f"of TensorFlow's type {entry.get(1, 0)}"
    shard, offset, size, checksum = (entry.get(field, 0) for field in (3, 4, 5, 6))
    dtype = np.dtype(_TYPES[entry[1]])
    if shard >= shards or size != dtype.itemsize * math.prod(shape):
        raise UserError("is damaged: a variable is not as long as its shape says")
    return shard, offset, size, checksum, dtype, shape


def _read_table(data: bytes) -> dict[bytes, bytes]:
    """All keys and values of a table: the footer finds the index block, and that the data blocks."""
    if len(data) < _FOOTER or struct.unpack("<Q", data[-8:])[0] != _MAGIC:
        raise UserError("is cut off, or not the index of a TensorFlow checkpoint")
    footer = _varints(data[-_FOOTER:], 4)  # where two blocks lie: the first is not needed
    entries: dict[bytes, bytes] = {}
    for _, handle in _read_block(data, *footer[2:4]):
        for key, value in _read_block(data, *_varints(handle, 2)[:2]):
            if key in entries or len(entries) > _MAX_VARIABLES:
                raise UserError("lists a variable twice, or too many of them")
            entries[key] = value
    return entries


def _read_block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """A block's keys and values. A key is stored as what differs from the one before; at the end stand the places
    where a key is whole, which are needed for searching only. A byte for the compression and a checksum follow."""
    end = offset + size
    if end + 5 > len(data) or size < 4:
        raise UserError("is damaged: a block lies outside of it")
    if masked_crc32c(data[offset : end + 1]) != struct.unpack_from("<I", data, end + 1)[0]:
        raise UserError("is damaged: a checksum is wrong")
    if data[end] != 0:
        kind = "with snappy" if data[end] == 1 else f"in the unknown way {data[end]}"
        raise UserError(f"is compressed {kind}, which is not supported; save it again with TensorFlow 1.x's Saver")
    block = data[offset:end]
    stop = size - 4 - 4 * struct.unpack("<I", block[-4:])[0]
    key, position = b"", 0
    while position < stop:
        shared, own, length, position = _varints(block, 3, position)
        if shared > len(key) or shared + own > _MAX_NAME or position + own + length > stop:
            raise UserError("is damaged: a block contradicts itself")
        key = key[:shared] + block[position : position + own]
        position += own + length
        yield key, block[position - length : position]
    if position != stop:
        raise UserError("is damaged: a block contradicts itself")


def _varints(data: bytes, count: int, position: int = 0) -> list[int]:
    """Numbers in groups of 7 bits, lowest first, and the position behind them."""
    values = []
    for _ in range(count):
        value, shift = 0, 0
        while data[position] > 127 and shift < 63:
            value |= (data[position] & 127) << shift
            position, shift = position + 1, shift + 7
        if data[position] > 127:
            raise UserError("is damaged: a number without an end")
        values.append(value | data[position] << shift)
        position += 1
    return [*values, position]


def _fields(message: object, several: bool = False) -> dict[int, Any]:
    """The fields of a protocol buffer by number, whole numbers or bytes: with `several` all of each, or the last."""
    if not isinstance(message, bytes):
        raise UserError("is damaged: a number in place of a message")
    fields: dict[int, Any] = {}
    position = 0
    while position < len(message):
        tag, position = _varints(message, 1, position)
        if tag & 7 == 0:
            value, position = _varints(message, 1, position)
        else:
            length, position = _varints(message, 1, position) if tag & 7 == 2 else ({1: 8, 5: 4}[tag & 7], position)
            value = message[position : position + length]
            if len(value) != length:
                raise UserError("is damaged: a message is cut off")
            position += length
            value = value if tag & 7 == 2 else int.from_bytes(value, "little")
        fields[tag >> 3] = [*fields.get(tag >> 3, []), value] if several else value
    return fields


def _crc_table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = (table >> 1) ^ np.where(table & 1, np.uint32(0x82F63B78), np.uint32(0))  # Castagnoli's, bits reversed
    return table


_TABLE = _crc_table()
_LANE = 1024  # bytes


def crc32c(data: bytes | memoryview) -> int:
    """The CRC-32C of `data`; 0xE3069283 for b"123456789".

    The register after some bytes is linear in the register before and in the bytes. So all lanes of 1024 bytes
    are run side by side from a register of 0, together with the 32 single bits over 1024 zero bytes, which then
    carry a register across a lane.
    """
    lanes = len(data) // _LANE
    columns = np.zeros((_LANE, lanes + 32), np.uint8)
    columns[:, :lanes] = np.frombuffer(data, np.uint8, lanes * _LANE).reshape(lanes, _LANE).T
    registers = np.concatenate([np.zeros(lanes, np.uint32), np.uint32(1) << np.arange(32, dtype=np.uint32)])
    for column in columns if lanes else ():
        registers = _TABLE[(registers ^ column) & 0xFF] ^ (registers >> 8)
    register, *ends = [0xFFFFFFFF, *registers.tolist()]
    for end in ends[:lanes]:
        for bit in range(32):
            end ^= ends[lanes + bit] if register >> bit & 1 else 0
        register = end
    table = _TABLE.tolist()
    for byte in bytes(data[lanes * _LANE :]):
        register = table[(register ^ byte) & 0xFF] ^ (register >> 8)
    return register ^ 0xFFFFFFFF


def masked_crc32c(data: bytes | memoryview) -> int:
    """As TensorFlow stores it: rotated right by 15 bits, plus a constant."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
