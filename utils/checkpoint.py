"""Checkpoints: written whole or not at all, verified when read, and never code. Does not import paddle.

A checkpoint is one uncompressed .npz file: arrays by name and "meta", a JSON object as bytes. The zip
container carries a CRC-32 of every array; "meta" lists all arrays, so none can go missing unnoticed.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import math
import os
import re
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from utils.cli import UserError, one_line
from utils.convert.files import explain

# The generator that comes with the project, where there is one; see checkpoints/README.md.
PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RELEASED = os.path.join(PROJECT, "checkpoints", "released", "generator.npz")
FORMAT_VERSION = 1
_NAME = re.compile(r"checkpoint_(\d{8,})\.npz")
_STALE = re.compile(r"(checkpoint_\d{8,}\.npz|train\.txt|config\.yaml)\.tmp-\d+")
_KINDS = "biuf"  # dtype kinds that may be stored: bool, signed, unsigned, float
_SHOWN = 3  # names in an error message


class CheckpointError(UserError):
    """A checkpoint cannot be written, read or used; the message names the file."""


def save_checkpoint(path: str, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
    """Writes a checkpoint such that ``path`` holds either its old content or all of the new one.

    arrays: by name, of bool, whole or real numbers; every real number must be finite. meta: what JSON can
    hold, without NaN; "format_version" and "arrays" are set here. The folder is made if it is missing.
    The same content gives the same bytes. Raises CheckpointError; ``path`` is then as it was and nothing
    else is left.
    """
    stored = {name: _storable(path, name, array) for name, array in arrays.items()}
    listing = {name: [array.dtype.str, list(array.shape)] for name, array in stored.items()}
    document = {**meta, "format_version": FORMAT_VERSION, "arrays": listing}
    text = json.dumps(document, allow_nan=False, sort_keys=True)
    stored["meta"] = np.frombuffer(text.encode(), np.uint8)

    folder = os.path.dirname(os.path.abspath(path))
    temporary = f"{path}.tmp-{os.getpid()}"
    try:
        os.makedirs(folder, exist_ok=True)
        with open(temporary, "wb") as file:
            _write_members(file, stored)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(folder)
    except BaseException as error:  # Ctrl-C too must leave no half-written file
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            reason = error.strerror or one_line(error)
            raise CheckpointError(f"{path}: the checkpoint cannot be written: {reason}") from error
        raise


def _storable(path: str, name: str, array: np.ndarray) -> np.ndarray:
    array = np.asarray(array, order="C")
    if not name or name == "meta" or "\0" in name:
        raise CheckpointError(f"{path}: not saved: {name!r} cannot be the name of an array")
    if array.dtype.kind not in _KINDS:
        raise CheckpointError(f"{path}: not saved: {name} is of type {array.dtype}, not numbers")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise CheckpointError(f"{path}: not saved: {name} holds values that are not finite")
    return array


def _write_members(file: io.BufferedWriter, stored: Mapping[str, np.ndarray]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in stored.items():
            member = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            with archive.open(member, "w", force_zip64=True) as target:
                np.lib.format.write_array(target, array, version=(1, 0), allow_pickle=False)


def _sync_folder(folder: str) -> None:
    """Makes a rename in the folder survive a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot sync folders
            raise
    finally:
        os.close(handle)


def load_checkpoint(path: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads a checkpoint and verifies all of it: (arrays by name, meta with "format_version").

    Nothing in the file is executed, and no more memory is asked for than the file is long. Raises
    CheckpointError that names the file and the reason: missing, empty, truncated, damaged, something
    else than a checkpoint, another format version, values that are not finite.
    """
    try:
        return _read(path)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {explain(path) or error}") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or one_line(error)}") from None
    except MemoryError:
        raise
    except Exception as error:  # damage can surface anywhere in zipfile, numpy's header parser or JSON
        reason = one_line(error) or type(error).__name__
        raise CheckpointError(f"{path}: the checkpoint is damaged or incomplete: {reason}") from error


def _read(path: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    if not os.path.isfile(path):
        raise CheckpointError("not a file" if os.path.exists(path) else "no such checkpoint")
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(4)
        if size == 0:
            raise CheckpointError("the checkpoint is empty (0 bytes)")
        if start != b"PK\x03\x04":
            raise CheckpointError("not a checkpoint of this program, or damaged at its start")
        return _read_members(file, size)


def _read_members(file: io.BufferedReader, size: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if sum(m.file_size for m in members) > size or any(
            m.compress_type != zipfile.ZIP_STORED or m.file_size != m.compress_size for m in members
        ):
            raise CheckpointError("holds compressed or overlapping data, which this program never writes")
        if len({m.filename for m in members}) != len(members):
            raise CheckpointError("holds two arrays of one name")
        arrays = {m.filename[: -len(".npy")]: parse_array(m.filename, archive.read(m)) for m in members}
    if "meta" not in arrays:
        raise CheckpointError("not a checkpoint of this program: it says nothing about itself (no meta)")
    meta = json.loads(arrays.pop("meta").tobytes().decode())
    if not isinstance(meta, dict) or type(meta.get("format_version")) is not int:
        raise CheckpointError("not a checkpoint of this program: its meta has no format_version")
    if meta["format_version"] != FORMAT_VERSION:
        raise CheckpointError(
            f"is of format version {meta['format_version']}; this program reads version {FORMAT_VERSION}"
        )
    found = {name: [array.dtype.str, list(array.shape)] for name, array in arrays.items()}
    if meta.pop("arrays", None) != found:
        raise CheckpointError("the checkpoint is damaged: its arrays are not those it lists")
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise CheckpointError(f"{name} holds values that are not finite")
    return arrays, meta


def parse_array(filename: str, data: bytes) -> np.ndarray:
    """The array of one .npy member; its header is judged before anything is allocated."""
    if not filename.endswith(".npy"):
        raise CheckpointError(f"not a checkpoint of this program: it holds {filename}, which is not an array")
    stream = io.BytesIO(data)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise CheckpointError(f"{filename} is in a format that this program never writes")
    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.hasobject:
        raise CheckpointError(f"{filename} is a pickle, which could run code; it was not read")
    if dtype.kind not in _KINDS:
        raise CheckpointError(f"{filename} is of type {dtype}, not numbers")
    if dtype.itemsize * math.prod(shape) != len(data) - stream.tell():
        raise CheckpointError(f"{filename} is not as long as its shape says")
    stream.seek(0)
    return np.lib.format.read_array(stream, allow_pickle=False)


def checkpoint_path(folder: str, iteration: int) -> str:
    """folder/checkpoint_<iteration, 8 digits>.npz"""
    return os.path.join(folder, f"checkpoint_{iteration:08d}.npz")


def checkpoint_iteration(path: str) -> int:
    """The iteration in the name of a run's checkpoint."""
    return int(_NAME.fullmatch(os.path.basename(path))[1])


def list_checkpoints(folder: str) -> list[tuple[int, str]]:
    """(iteration, path) of every checkpoint in the folder, oldest first; a missing folder holds none."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be read: {error.strerror}") from None
    matches = [_NAME.fullmatch(name) for name in names]
    return sorted((int(m[1]), os.path.join(folder, m[0])) for m in matches if m)


def latest_checkpoint(folder: str, warn: Callable[[str], None]) -> str:
    """The path of the newest checkpoint that passes ``load_checkpoint``.

    Each damaged one on the way is named through ``warn``. CheckpointError when there is none at all, and
    when all are damaged: a run must then stop rather than start afresh over them.
    """
    found = list_checkpoints(folder)
    if not found:
        raise CheckpointError(f"{folder}: holds no checkpoint; a new run starts without --resume")
    for _, path in reversed(found):
        try:
            load_checkpoint(path)
        except CheckpointError as error:
            warn(f"skipped {error}")
        else:
            return path
    raise CheckpointError(f"{folder}: none of its {len(found)} checkpoints can be used; see the lines before")


def rotate_checkpoints(folder: str, keep: int, every: int = 0) -> None:
    """Removes old checkpoints, and what interrupted saves left.

    The newest ``keep`` (at least 1) stay; so do those whose iteration is a multiple of ``every``, unless it is 0.
    """
    if keep < 1:
        raise ValueError(f"keep must be at least 1, not {keep}")
    old = [path for k, path in list_checkpoints(folder)[:-keep] if not every or k % every]
    try:
        old += [os.path.join(folder, name) for name in os.listdir(folder) if _STALE.fullmatch(name)]
        for path in old:
            os.unlink(path)
    except OSError as error:
        raise CheckpointError(f"{error.filename}: cannot be removed: {error.strerror}") from None


def set_aside_newer(folder: str, iteration: int) -> list[str]:
    """Renames the checkpoints of later iterations and returns the new names.

    For a run that resumes from an earlier one: those are damaged, or of a run segment that was left. Among the
    checkpoints they would pass for the newest, and rotation would remove good ones in their place.
    """
    renamed = []
    for found, path in list_checkpoints(folder):
        if found > iteration:
            count = 1
            while os.path.exists(f"{path}.superseded-{count}"):
                count += 1
            try:
                os.rename(path, f"{path}.superseded-{count}")
            except OSError as error:
                raise CheckpointError(f"{path}: cannot be renamed: {error.strerror}") from None
            renamed.append(f"{path}.superseded-{count}")
    return renamed


def section(arrays: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """The arrays called "<name>/...", without that beginning: section(arrays, "generator")."""
    start = name + "/"
    return {key[len(start) :]: array for key, array in arrays.items() if key.startswith(start)}


def load_parameters(network: Any, arrays: Mapping[str, np.ndarray], source: str) -> None:
    """Sets every parameter of ``network`` from ``arrays``, by name; all of them or, on an error, none.

    network: has state_dict() and set_state_dict() as a paddle Layer. source: what the arrays come from,
    for messages. CheckpointError lists missing, left-over and misshapen parameters.
    """
    wanted = {name: (list(value.shape), _dtype_name(value)) for name, value in network.state_dict().items()}
    given = {name: (list(value.shape), _dtype_name(value)) for name, value in arrays.items()}
    shared = [name for name in wanted if name in given]
    differing = [name for name in shared if wanted[name] != given[name]]
    forms = [f"{name} is {_form(given[name])}, not {_form(wanted[name])}" for name in differing]
    problems = [
        listed("missing", [name for name in wanted if name not in given]),
        listed("left over", [name for name in given if name not in wanted]),
        listed("of another shape or type", forms),
    ]
    if not any(problems):
        network.set_state_dict(dict(arrays))
        return
    width = ""
    # The first layer's outputs are the width; other layers may differ for other reasons (the dialect).
    if differing and differing[0] == next(iter(wanted)):
        ours, theirs = wanted[differing[0]][0], given[differing[0]][0]
        if ours[:1] != theirs[:1]:
            width = f" of another width ({(theirs or [0])[0]} channels, here {ours[0]}; see ngf and ndf)"
    reasons = "; ".join(filter(None, problems))
    raise CheckpointError(f"{source}: weights{width} do not fit this network: {reasons}")


def _dtype_name(value: Any) -> str:
    return str(value.dtype).rpartition(".")[2]  # paddle says paddle.float32, numpy float32


def _form(form: tuple[list[int], str]) -> str:
    return f"{form[1]} {form[0]}"


def listed(what: str, names: list[str]) -> str:
    """"5 missing: a, b, c and 2 more" for a message; empty where there are no names."""
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} {what}: {', '.join(names[:_SHOWN])}{more}"
