"""Opens the weights of other DeepFill v1 implementations: what a file or folder holds, and its arrays."""

from __future__ import annotations

import io
import json
import math
import os
import re
import zipfile
from typing import Any

from utils.checkpoint import parse_array
from utils.cli import UserError
from utils.convert.files import (
    MAX_FILE_BYTES,
    MMAGIC,
    PREDECESSOR,
    PYTORCH,
    TF1,
    checked_shape,
    checkpoint_prefix,
    kind_of,
    naming,
    numbers,
    read_file,
)
from utils.convert.pickles import read_old_pytorch, read_pickle, read_pytorch
from utils.convert.tensorflow_file import checkpoint_files, checkpoint_in_folder, read_tensorflow
from utils.convert.weights import CRITICS, Source, networks

_KINDS = "TensorFlow's .index and .data files, .npz of its variables, PyTorch's .pt, Paddle's .pdparams, .safetensors"
_SAVED = {PYTORCH: re.compile(r"gen_(\d+)\.pt"), PREDECESSOR: re.compile(r"gen_(\d+)\.pdparams")}
_MMAGIC_NAME = re.compile(
    rb"stage[12]\.(encoder|encoder_conv|encoder_attention|dilation_neck|contextual_attention_neck|decoder)\."
)
_MMAGIC_REFUSED = (
    "is mmagic's DeepFillv1, a dialect of its own that is not supported: its convolutions pad by reflection and its "
    "attention masks scores with -inf, where the networks here pad with zeros and multiply by 0"
)


def open_source(path: str, program: str | None = None, critics: str | None = None) -> Source:
    """The arrays of a file or folder.

    program: which of `files.PROGRAMS` it comes from; needed for a folder that holds files of several. critics: the
    second file of the ports, which hold generator and critics apart; from a folder it is taken along. UserError.
    """
    if os.path.isdir(path):
        with naming(path):
            path, program, found_critics = _in_folder(path, program)
        critics = critics or found_critics
    with naming(path):
        prefix = checkpoint_prefix(path)
    if prefix:
        found, variables, files = TF1, read_tensorflow(prefix), tuple(checkpoint_files(prefix))
    else:
        found, variables = _read(path, program)
        files = (path,)
    with naming(path):
        if program not in (None, found):
            raise UserError(f"looks like a file of {found}, not of {program} as --from says")
        if found == TF1:
            if critics:
                raise UserError("holds the critics itself: leave --critics out")
            return Source(found, variables, files)
        arrays, ignored = networks(variables)
    if critics:
        same, variables = _read(critics, found)
        with naming(critics):
            if same != found:
                raise UserError(f"looks like a file of {same}, not of {found} as the generator's")
            more = {name: value for name, value in networks(variables)[0].items() if name.startswith(CRITICS)}
            if not more:
                raise UserError("holds something else than critics, which --critics is for")
        arrays = {**{name: value for name, value in arrays.items() if not name.startswith(CRITICS)}, **more}
    return Source(found, arrays, (path, critics) if critics else (path,), ignored)


def _in_folder(folder: str, program: str | None) -> tuple[str, str, str | None]:
    """The newest checkpoint of a folder, the implementation, and the file with its critics if that is another one."""
    found: dict[str, tuple[str, str | None]] = {}
    prefix = checkpoint_in_folder(folder)
    if prefix:
        found[TF1] = os.path.basename(prefix), None
    names = set(os.listdir(folder))
    for kind, pattern in _SAVED.items():
        saved = sorted((int(match[1]), match[0]) for match in map(pattern.fullmatch, names) if match)
        if saved:
            generator = saved[-1][1]
            critics = f"dis{generator[3:]}"
            found[kind] = generator, critics if critics in names else None
    kinds = [kind for kind in found if program in (kind, None)]
    if not kinds:
        raise UserError(f"holds none of these: {_KINDS}")
    if len(kinds) > 1:
        raise UserError(f"holds checkpoints of {' and '.join(kinds)}: say which with --from")
    main, critics = found[kinds[0]]
    return os.path.join(folder, main), kinds[0], critics and os.path.join(folder, critics)


def _read(path: str, program: str | None) -> tuple[str, dict[str, Any]]:
    """The implementation that a file comes from, and its entries by name."""
    with naming(path):
        data = read_file(path)
        kind = kind_of(path)
        if kind == "ours":
            raise UserError("is a checkpoint of this project already; test.py takes it as it is")
        if kind is None or kind.startswith("is "):
            raise UserError(kind or f"is none of these: {_KINDS}")
        if kind == "npz":
            return TF1, _read_npz(data)
        if kind == "safetensors":  # says nothing of its origin
            return PREDECESSOR if program == PREDECESSOR else PYTORCH, _read_safetensors(data)
        if kind == "pickle":
            return PREDECESSOR, read_pickle(data)
        if _MMAGIC_NAME.search(data):
            raise UserError(_MMAGIC_REFUSED)
        if program == MMAGIC:
            raise UserError("has none of the parameter names of mmagic's DeepFillv1")
        return PYTORCH, read_pytorch(data) if kind == "pytorch" else read_old_pytorch(data)


def _read_npz(data: bytes) -> dict[str, Any]:
    """The variables of an .npz file, by TensorFlow's names with or without ":0"; compressed or not."""
    variables = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
        # Trained weights hardly get shorter, Adam's moments of a fresh start do.
        if sum(member.file_size for member in members) > min(MAX_FILE_BYTES, 100 * len(data)):
            raise UserError("unpacks to more than weights can")
        for member in members:
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise UserError(f"{member.filename[:100]} is compressed in a way that NumPy never uses")
            name = re.sub(r"(:0)?\.npy$", "", member.filename)
            if name in variables:
                raise UserError(f"holds two arrays named {name[:100]}")
            variables[name] = parse_array(member.filename[:100], archive.read(member))
    return variables


_SAFETENSORS = {
    **{"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "bfloat16", "BOOL": "|b1", "U8": "|u1", "I8": "|i1"},
    **{"I16": "<i2", "I32": "<i4", "I64": "<i8"},
}


def _read_safetensors(data: bytes) -> dict[str, Any]:
    """The tensors of a .safetensors file: 8 bytes with the length of a JSON object that says where each one lies."""
    start = 8 + int.from_bytes(data[:8], "little")
    if start > min(len(data), 2**24):
        raise UserError("is cut off, or its header is too long")
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    places = {name: checked_shape(entry["data_offsets"]) for name, entry in header.items()}
    if any(a > b for a, b in places.values()) or sum(b - a for a, b in places.values()) != len(data) - start:
        raise UserError("is cut off, or holds overlapping tensors")
    tensors = {}
    for name, entry in header.items():
        shape, (first, last) = checked_shape(entry["shape"]), places[name]
        if entry["dtype"] not in _SAFETENSORS:
            raise UserError(f"{name[:100]} is of type {str(entry['dtype'])[:20]}, which is not supported")
        values = numbers(data[start + first : start + last], _SAFETENSORS[entry["dtype"]])
        if values.size != math.prod(shape):
            raise UserError(f"{name[:100]} is not as long as its shape says")
        tensors[name] = values.reshape(shape)
    return tensors


def iteration_of(source: Source) -> int:
    """The number at the end of the file's name, as its implementation counts; 0 if there is none."""
    stem = re.sub(r"\.(index|npz|pt|pdparams|safetensors)$", "", os.path.basename(source.files[0]))
    match = re.search(r"[-_](\d{1,12})$", stem)
    return int(match[1]) if match else 0
