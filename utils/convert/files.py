"""What the readers of weights share: one-line errors, bounded reading, and what a file is by its first bytes."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import zipfile
from collections.abc import Iterator

import numpy as np

from utils.cli import UserError, one_line

MAX_FILE_BYTES = 2**30  # the full-width networks with both Adam moments are about 130 MB
TF1, PYTORCH, PREDECESSOR, MMAGIC = PROGRAMS = "tf1", "pytorch", "predecessor", "mmagic"
OLD_PYTORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # a pickled number: the start of files before PyTorch 1.6
# What a wrong download or upload is, by the first bytes of the file.
_NOT_WEIGHTS = (
    (rb"\s*<(!doctype|html|head|\?xml)", "is a web page, not weights: open the link in a browser and download there"),
    (rb"version https://git-lfs", "is a Git LFS pointer, not the file itself: fetch that with `git lfs pull`"),
    (rb".{4}ftyp(hei|hev|mif|msf|avif)", "is a HEIC or AVIF image, not weights"),
    (rb"\xff\xd8\xff|\x89PNG|GIF8|RIFF....WEBP|II\*\0|MM\0\*", "is an image, not weights"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|Rar!", "is a packed archive: unpack it and name what is in it"),
)


@contextlib.contextmanager
def naming(path: str) -> Iterator[None]:
    """Turns whatever goes wrong with the file at `path` into a UserError of one line that begins with the path."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {one_line(error)}") from None  # names in a file may hold anything
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or one_line(error)}") from None
    except Exception as error:  # damage can surface anywhere in zipfile, pickle, json or NumPy's header parser
        reason = one_line(error)[:200] or type(error).__name__
        raise UserError(f"{path}: is damaged, incomplete or no file of weights: {reason}") from error


def read_file(path: str, limit: int = MAX_FILE_BYTES) -> bytes:
    """The content of an ordinary, non-empty file of at most `limit` bytes."""
    if not os.path.isfile(path):
        raise UserError("is not an ordinary file" if os.path.exists(path) else "no such file")
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            raise UserError("is empty (0 bytes)")
        if size > limit:
            raise UserError(f"is {size / 2**20:.0f} MiB long; such a file has at most {limit / 2**20:.0f}")
        return file.read(size)


def numbers(data: bytes, kind: str) -> np.ndarray:
    """The numbers in `data`; kind: NumPy's name of their type, or "bfloat16", the upper half of a float32."""
    if kind == "bfloat16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(data, kind)


def checked_shape(value: object) -> tuple[int, ...]:
    """A sequence of whole numbers that can be the sides of an array in a file, as a tuple."""
    sides = value if isinstance(value, (tuple, list)) and len(value) <= 8 else [-1]
    if any(type(side) is not int or not 0 <= side <= MAX_FILE_BYTES for side in sides):
        raise UserError("an array in it has an impossible shape")
    return tuple(sides)


def checkpoint_prefix(path: str) -> str | None:
    """The prefix of the TensorFlow checkpoint that `path` or one of its files is; None if there is none."""
    prefix = re.sub(r"\.(index|meta|data-\d{5}-of-\d{5})$", "", path)
    if os.path.isfile(f"{prefix}.index"):
        return prefix
    if os.path.exists(f"{prefix}.data-00000-of-00001"):
        raise UserError(f"{prefix}.index: is missing, without which the data file alongside it cannot be read")
    return None


def kind_of(path: str) -> str | None:
    """What a file holds: "ours", "npz" (TF1's variables), "pytorch", "old pytorch", "safetensors", "pickle"
    (Paddle's) or, beginning with "is", a sentence on something else; None if nothing is known of it."""
    with open(path, "rb") as file:
        start = file.read(512)
    if start.startswith(b"PK"):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if "meta.npy" in names:
            return "ours"
        if any(name.rpartition("/")[2] == "data.pkl" for name in names):
            return "pytorch"
        return "npz" if all(name.endswith(".npy") for name in names) else "is a zip archive: unpack it first"
    if start.startswith(OLD_PYTORCH):
        return "old pytorch"
    if start.startswith(b"\x80"):
        return "pickle"
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < MAX_FILE_BYTES:
        return "safetensors"
    return next((text for pattern, text in _NOT_WEIGHTS if re.match(pattern, start, re.DOTALL | re.IGNORECASE)), None)


def explain(path: str) -> str | None:
    """Why a file or folder is no checkpoint of this project, and what to do; None if nothing is known of it."""
    with contextlib.suppress(UserError, OSError, zipfile.BadZipFile):
        if os.path.isdir(path):
            names = sorted(os.listdir(path))
            own = [name for name in names if re.fullmatch(r"checkpoint_\d{8,}\.npz", name)]
            if own:
                return f"is a folder: name a checkpoint in it, such as {own[-1]}"
            if not any(re.search(r"\.(index|pt|pth|pdparams|safetensors)$", name) for name in names):
                return None
        elif not checkpoint_prefix(path):
            kind = kind_of(path)
            if kind in ("ours", "npz", None):
                return None
            if kind.startswith("is "):
                return kind
        return (
            "holds weights of another implementation: convert them with "
            f"`python tools/convert_weights.py {shlex.quote(path)} weights.npz`, and name weights.npz here"
        )
    return None
