"""What a file is by its first bytes, and what the user of a wrong one is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.weight_writers import (
    write_old_torch,
    write_paddle,
    write_safetensors,
    write_tensorflow,
    write_torch,
)
from utils.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from utils.cli import UserError
from utils.convert.files import explain, numbers
from utils.convert.sources import open_source

STATE = {"coarse_generator.conv1.conv.weight": np.ones((2, 3), np.float32)}
WRONG = {
    "page": (b"\n<!DOCTYPE html><html><head><title>Sign in", "is a web page, not weights"),
    "page2": (b"<HTML lang=en>", "is a web page, not weights"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a Git LFS pointer.*git lfs pull"),
    "phone": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "is a HEIC or AVIF image"),
    "photo": (b"\xff\xd8\xff\xe0\0\x10JFIF", "is an image"),
    "drawing": (b"\x89PNG\r\n\x1a\n", "is an image"),
    "packed": (b"\x1f\x8b\x08\0", "is a packed archive: unpack it"),
}


@pytest.mark.parametrize("suffix", [".pt", ".npz", ".pdparams", ".safetensors", ""])
@pytest.mark.parametrize("kind", WRONG)
def test_wrong_downloads_are_called_what_they_are(tmp_path: Path, kind: str, suffix: str) -> None:
    content, reason = WRONG[kind]
    path = tmp_path / f"gen_1{suffix}"
    path.write_bytes(content)
    for read in (open_source, load_checkpoint):
        with pytest.raises(UserError, match=rf"^{path}: {reason}[^\n]*$"):
            read(str(path))


def test_a_checkpoint_of_another_implementation_names_the_converter(tmp_path: Path) -> None:
    write_tensorflow(tmp_path / "snap-0", {"inpaint_net/conv1/kernel": np.ones(3, np.float32)})
    writers = {
        "a.pt": write_torch,
        "old.pth": write_old_torch,
        "a.pdparams": write_paddle,
        "b b.safetensors": write_safetensors,
    }
    for name, write in writers.items():
        write(tmp_path / name, STATE)
    for name in (*writers, "", "snap-0", "snap-0.index", "snap-0.data-00000-of-00001"):
        path = str(tmp_path / name)
        with pytest.raises(CheckpointError) as caught:
            load_checkpoint(path)
        text, quoted = str(caught.value), f"'{path}'" if " " in path else path
        assert text.startswith(f"{path}: holds weights of another implementation: convert them with ")
        assert f"`python tools/convert_weights.py {quoted} weights.npz`" in text


def test_folders_and_unknown_files(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a file"):
        load_checkpoint(str(tmp_path))
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_checkpoint(str(tmp_path / "absent.npz"))
    (tmp_path / "notes").write_text("hello")
    with pytest.raises(CheckpointError, match="not a checkpoint of this program"):
        load_checkpoint(str(tmp_path / "notes"))
    for number in (5, 20):
        save_checkpoint(str(tmp_path / f"checkpoint_{number:08d}.npz"), STATE, {})
    with pytest.raises(
        CheckpointError, match="is a folder: name a checkpoint in it, such as checkpoint_00000020.npz"
    ):
        load_checkpoint(str(tmp_path))


def test_a_damaged_checkpoint_is_not_explained_away(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    save_checkpoint(str(path), STATE, {})
    for damaged in (path.read_bytes()[:-40], path.read_bytes().replace(b"meta", b"beta")):
        path.write_bytes(damaged)
        assert explain(str(path)) is None


def test_bfloat16() -> None:
    assert numbers(b"\x80\x3f\x20\xc0", "bfloat16").tolist() == [1, -2.5]
