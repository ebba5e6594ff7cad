"""Finds out which DeepFill v1 program a file or folder comes from, and lists its arrays. Runs nothing in it."""

from __future__ import annotations

import hashlib
import io
import math
import os
import re
import zipfile
from typing import Any

import numpy as np

from utils.foreign.arrays import MAX_FILE_BYTES, ForeignArray, WeightsError, checked_shape, open_bounded, reading
from utils.foreign.pickle_reader import read_pickle
from utils.foreign.pytorch_file import LEGACY_START, pickled_names, read_pytorch
from utils.foreign.tensorflow_file import checkpoint_files, checkpoint_in_folder, checkpoint_prefix, read_tensorflow
from utils.foreign.weights import PREDECESSOR, PYTORCH, TF1, Source

MMAGIC = "mmagic"
PROGRAMS = (TF1, PYTORCH, MMAGIC, PREDECESSOR)
MMAGIC_REFUSED = (
    "is mmagic's DeepFillv1, a dialect of its own that is not supported: its convolutions pad by reflection and its "
    "attention masks scores with -inf, where the networks here pad with zeros and multiply by 0"
)
_MMAGIC_NAME = re.compile(
    rb"stage[12]\.(encoder|encoder_conv|encoder_attention|dilation_neck|contextual_attention_neck|decoder)\."
)
_KINDS = "TensorFlow's .index and .data files, .npz of its variables, PyTorch's gen_*.pt, Paddle's gen_*.pdparams"
_SAVED = {re.compile(r"gen_(\d+)\.pt"): PYTORCH, re.compile(r"gen_(\d+)\.pdparams"): PREDECESSOR}


def open_source(path: str, program: str | None = None, critics: str | None = None) -> Source:
    """The arrays of a file or folder.

    program: which of PROGRAMS it must come from; None finds out. critics: the second file of the ports, which hold
    generator and critics apart; from a folder it is taken along. Nothing but names and shapes is looked at yet.
    Raises WeightsError.
    """
    if os.path.isdir(path):
        path, found_critics = _in_folder(path, program)
        critics = critics or found_critics
    prefix = checkpoint_prefix(path)
    found = TF1 if prefix else recognise(path, program)
    if found == TF1:
        with reading(path):
            _check_program(found, program)
            if critics:
                raise WeightsError("holds the critics itself: leave --critics out")
        variables = read_tensorflow(prefix) if prefix else _read_npz(path)
        return Source(TF1, variables, tuple(checkpoint_files(prefix)) if prefix else (path,))
    variables = _read_pickled(path, found, program)
    if critics:
        recognise(critics, found)
        more = _read_pickled(critics, found, program)
        with reading(critics):
            if not all(name.startswith(("localD.", "globalD.")) for name in more):
                raise WeightsError("holds something else than critics, which --critics is for")
        variables = {**{k: v for k, v in variables.items() if not k.startswith(("localD.", "globalD."))}, **more}
    return Source(found, variables, (path, critics) if critics else (path,))


def _in_folder(folder: str, program: str | None) -> tuple[str, str | None]:
    """The newest checkpoint of a folder, and the file with its critics if that is another one."""
    with reading(folder):
        found: dict[str, tuple[str, str | None]] = {}
        prefix = checkpoint_in_folder(folder)
        if prefix:
            found[TF1] = prefix, None
        names = set(os.listdir(folder))
        for pattern, kind in _SAVED.items():
            saved = sorted((int(match[1]), match[0]) for match in map(pattern.fullmatch, names) if match)
            if saved:
                generator = saved[-1][1]
                critics = f"dis{generator[3:]}"
                path = os.path.join(folder, generator)
                found[kind] = path, os.path.join(folder, critics) if critics in names else None
        kinds = [kind for kind in found if program in (kind, None)]
        if not kinds:
            raise WeightsError(f"holds none of these: {_KINDS}")
        if len(kinds) > 1:
            raise WeightsError(f"holds checkpoints of {' and '.join(kinds)}: say which with --from")
        return found[kinds[0]]


def recognise(path: str, program: str | None = None) -> str:
    """Which program a file comes from, by its first bytes and, for a bare pickle, by its name."""
    with reading(path):
        with open_bounded(path) as (file, _):
            start = file.read(len(LEGACY_START))
        suffix = os.path.splitext(path)[1].lower()
        found = None
        if start.startswith(b"PK"):
            found = _recognise_zip(path)
        elif start == LEGACY_START or suffix in (".pt", ".pth"):
            found = PYTORCH
        elif start.startswith(b"\x80") or suffix in (".pdparams", ".pdopt") or program == PREDECESSOR:
            found = PREDECESSOR
        if found is None:
            raise WeightsError(f"is none of these: {_KINDS}")
        _check_program(found, program)
        return found


def _recognise_zip(path: str) -> str | None:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if "meta.npy" in names:
        raise WeightsError("is a checkpoint of this program already; test.py takes it as it is")
    if any(name.rpartition("/")[2] == "data.pkl" for name in names):
        return PYTORCH
    return TF1 if names and all(name.endswith(".npy") for name in names) else None


def _check_program(found: str, program: str | None) -> None:
    if program not in (None, found) and (found, program) != (PYTORCH, MMAGIC):
        raise WeightsError(f"looks like a file of {found}, not of {program} as --from says")


def _read_pickled(path: str, found: str, program: str | None) -> dict[str, ForeignArray]:
    """The arrays of a file of one of the ports; a critic's names begin with "localD." or "globalD."."""
    if found == PYTORCH:
        with reading(path):
            if _MMAGIC_NAME.search(pickled_names(path)):
                raise WeightsError(MMAGIC_REFUSED)
            if program == MMAGIC:
                raise WeightsError("has none of the parameter names of mmagic's DeepFillv1")
        content = read_pytorch(path)
    else:
        with reading(path), open_bounded(path) as (file, _):
            content = read_pickle(io.BytesIO(file.read()))
    with reading(path):
        if not isinstance(content, dict):
            raise WeightsError("holds no table of parameters")
        if {"gen", "dis"} <= content.keys():
            raise WeightsError("holds an optimiser's state, which is not converted: name gen_* (and dis_*) instead")
        variables = {}
        for key, value in content.items():
            inner = value if isinstance(value, dict) and key in ("localD", "globalD") else None
            for name, item in {key: value}.items() if inner is None else inner.items():
                full = str(name) if inner is None else f"{key}.{name}"
                variables[full] = _array(item)
        return variables


def _array(value: Any) -> ForeignArray:
    """Paddle keeps a parameter as an array, or as a pair of its own name and the array."""
    if isinstance(value, tuple) and len(value) == 2:
        value = value[1]
    return value if isinstance(value, ForeignArray) else ForeignArray(dtype=type(value).__name__)


def _read_npz(path: str) -> dict[str, ForeignArray]:
    """The variables of an .npz file, by TensorFlow's names with or without ":0"; compressed or not."""
    variables = {}
    with reading(path), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if sum(member.file_size for member in members) > MAX_FILE_BYTES:
            raise WeightsError(f"holds more than {MAX_FILE_BYTES >> 20} MiB")
        for member in members:
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise WeightsError(f"{member.filename[:100]} is compressed in a way that NumPy never uses")
            name = re.sub(r":0$", "", member.filename[: -len(".npy")])
            if name in variables:
                raise WeightsError(f"holds two arrays named {name[:100]}")
            variables[name] = _npz_array(path, archive, member)
    return variables


def _npz_array(path: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> ForeignArray:
    with archive.open(member) as stream:
        if np.lib.format.read_magic(stream) != (1, 0):
            raise WeightsError(f"{member.filename[:100]} is in a format that plain arrays do not need")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        start = stream.tell()
    shape = checked_shape(shape)
    if dtype.hasobject:
        raise WeightsError(f"{member.filename[:100]} is a pickle, which could run code; it was not read")
    if start + dtype.itemsize * math.prod(shape) != member.file_size:
        raise WeightsError(f"{member.filename[:100]} is not as long as its shape says")

    def read() -> np.ndarray:
        with zipfile.ZipFile(path) as again, again.open(member) as stream:
            data = stream.read(member.file_size)  # never more, whatever is packed there
        if len(data) != member.file_size:
            raise WeightsError(f"{member.filename[:100]} is cut off")
        return np.frombuffer(data, dtype, offset=start).reshape(shape, order="F" if fortran else "C")

    return ForeignArray(shape, dtype.name, read)


def iteration_of(source: Source) -> int:
    """The number at the end of the file's name, as its program counts; 0 if there is none."""
    stem = re.sub(r"\.(index|npz|pt|pdparams)$", "", os.path.basename(source.files[0]))
    match = re.search(r"[-_](\d{1,12})$", stem)
    return int(match[1]) if match else 0


def checksums(source: Source) -> list[dict[str, str]]:
    """Name and SHA-256 of each file."""
    records = []
    for path in source.files:
        digest = hashlib.sha256()
        with reading(path), open(path, "rb") as file:
            while block := file.read(2**20):
                digest.update(block)
        records.append({"name": os.path.basename(path), "sha256": digest.hexdigest()})
    return records
