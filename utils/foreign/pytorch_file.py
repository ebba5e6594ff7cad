"""Reads PyTorch's files of tensors without PyTorch and without running anything in them.

Since PyTorch 1.6 such a file is a zip archive: a pickle (data.pkl) that describes the tensors, and each storage as a
member of its own. Before, it was several pickles one behind the other, and then the storages.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

import numpy as np

from utils.foreign.arrays import WeightsError, open_bounded, reading
from utils.foreign.pickle_reader import read_pickle
from utils.foreign.pickled_arrays import TYPES, Name

LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the pickle of a number that says what the file is
_LEGACY_PROTOCOL = 1001
_MAX_MEMBERS = 100_000
_MAX_INDEX = 2**26  # bytes of data.pkl


@dataclass
class Storage:
    """A run of numbers that tensors are cut from."""

    dtype: np.dtype
    count: int
    read: Callable[[], np.ndarray] | None = None


def read_pytorch(path: str) -> Any:
    """The content of a PyTorch file, with ForeignArrays for tensors; WeightsError if it cannot be read safely."""
    with reading(path), open_bounded(path) as (file, _):
        start = file.read(len(LEGACY_START))
        file.seek(0)
        return _read_legacy(file) if start == LEGACY_START else _read_zip(path)


def pickled_names(path: str) -> bytes:
    """The part of a PyTorch file in which the names of the tensors stand, as it is."""
    with reading(path), open_bounded(path) as (file, _):
        if file.read(len(LEGACY_START)) == LEGACY_START:
            return file.read(_MAX_INDEX)
        with _archive(path) as (archive, members, index):
            return archive.read(members[index])


@contextmanager
def _archive(path: str) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo], str]]:
    """An archive, its members by name and the name of its data.pkl; nothing in it is longer than in the file."""
    with open_bounded(path) as (file, size), zipfile.ZipFile(file) as archive:
        members = {member.filename: member for member in archive.infolist()}
        if len(members) != len(archive.infolist()) or len(members) > _MAX_MEMBERS:
            raise WeightsError("holds members of one name, or too many of them")
        if sum(member.file_size for member in members.values()) > size or any(
            member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size
            for member in members.values()
        ):
            raise WeightsError("holds compressed or overlapping data, which PyTorch never writes")
        indices = [name for name in members if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(indices) != 1:
            raise WeightsError("is a zip archive, but not one of PyTorch (it has no data.pkl, or several)")
        if members[indices[0]].file_size > _MAX_INDEX:
            raise WeightsError(f"has a data.pkl of {members[indices[0]].file_size} bytes, which is too long")
        yield archive, members, indices[0]


def _read_zip(path: str) -> Any:
    with _archive(path) as (archive, members, index):
        folder = index[: -len("data.pkl")]
        byte_order = members.get(folder + "byteorder")
        if byte_order and archive.read(byte_order).strip() != b"little":
            raise WeightsError("was written on a big-endian machine, which is not supported")

        def load(identity: Any) -> Storage:
            key, storage = _storage(identity)
            member = members.get(f"{folder}data/{key}")
            if member is None or member.file_size != storage.count * storage.dtype.itemsize:
                raise WeightsError(f"its storage {key} is missing or not as long as it says")
            storage.read = lambda: _read_member(path, member, storage.dtype)
            return storage

        return read_pickle(io.BytesIO(archive.read(members[index])), load)


def _read_member(path: str, member: zipfile.ZipInfo, dtype: np.dtype) -> np.ndarray:
    with _archive(path) as (archive, _, _):
        return np.frombuffer(archive.read(member), dtype)


def _storage(identity: Any) -> tuple[str, Storage]:
    """PyTorch's persistent id: "storage", its type, its name, a device, the count of numbers and, once, a view."""
    word, kind, key, _, count, *view = identity
    if word != "storage" or not isinstance(kind, Name) or not TYPES.get(kind.text):
        raise WeightsError("refers to something else than a storage")
    if not isinstance(key, str) or type(count) is not int or count < 0 or any(part is not None for part in view):
        raise WeightsError("refers to a storage in a way that is not supported")
    return key, Storage(np.dtype(TYPES[kind.text]), count)


def _read_legacy(file: BinaryIO) -> Any:
    data = file.read()
    stream = io.BytesIO(data)
    stream.seek(len(LEGACY_START))
    if read_pickle(stream) != _LEGACY_PROTOCOL:
        raise WeightsError("is in an old format of PyTorch that is not supported")
    system = read_pickle(stream)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise WeightsError("was written on a big-endian machine, which is not supported")
    storages: dict[str, Storage] = {}

    def load(identity: Any) -> Storage:
        key, storage = _storage(identity)
        known = storages.setdefault(key, storage)
        if (known.dtype, known.count) != (storage.dtype, storage.count):
            raise WeightsError(f"its storage {key} is described in two ways")
        return known

    content = read_pickle(stream, load)
    keys = read_pickle(stream)
    if not isinstance(keys, list) or set(keys) != set(storages) or len(keys) != len(storages):
        raise WeightsError("its list of storages is not that of its tensors")
    for key in keys:  # each begins with the count of its numbers
        start, storage = stream.tell() + 8, storages[key]
        stated = int.from_bytes(stream.read(8), "little")
        length = storage.count * storage.dtype.itemsize
        if stated != storage.count or start + length > len(data):
            raise WeightsError(f"its storage {key} is cut off or not as long as it says")
        storage.read = partial(np.frombuffer, data, storage.dtype, storage.count, start)
        stream.seek(length, io.SEEK_CUR)
    return content
