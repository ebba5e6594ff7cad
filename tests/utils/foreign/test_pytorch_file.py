"""PyTorch's files, new and old: tensors of any stride come out, crafted archives do not."""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from tests import gadgets, golden_weights
from tests.foreign_writers import Call, dump, write_old_torch, write_torch, write_torch_archive
from utils.foreign.arrays import WeightsError
from utils.foreign.pytorch_file import read_pytorch

WRITERS = pytest.mark.parametrize("write", [write_torch, write_old_torch])


def some_state() -> OrderedDict:
    rng = np.random.default_rng(0)
    return OrderedDict(
        [
            ("weight", rng.normal(size=(4, 3, 2)).astype(np.float32)),
            ("transposed", rng.normal(size=(3, 5)).astype(np.float32).T),
            ("double", rng.normal(size=3)),
            ("half", rng.normal(size=3).astype(np.float16)),
            ("steps", np.array([1, -2], np.int64)),
            ("one", np.array(3.5, np.float32)),
            ("none", np.zeros((0, 3), np.float32)),
        ]
    )


@WRITERS
def test_round_trip(tmp_path: Path, write) -> None:
    write(tmp_path / "a.pt", {"net": some_state(), "epoch": 3})
    found = read_pytorch(str(tmp_path / "a.pt"))
    assert found["epoch"] == 3 and list(found["net"]) == list(some_state())
    for name, expected in some_state().items():
        array = found["net"][name]
        value = array.read()
        assert value.dtype == expected.dtype == array.dtype and array.shape == value.shape
        assert np.array_equal(value, expected)


def test_what_pytorch_wrote(golden: Path) -> None:
    folder = golden / "daa_pytorch" / "ckpt64"
    for name in ("gen_00000005.pt", "dis_00000005.pt"):
        found, expected = read_pytorch(str(folder / name)), golden_weights.load_pt(folder / name)
        for key, value in {"": expected, **expected}.items() if name.startswith("dis") else [("", expected)]:
            for inner, array in value.items():
                if isinstance(array, np.ndarray):
                    assert np.array_equal((found[key] if key else found)[inner].read(), array)
    adam = read_pytorch(str(folder / "optimizer.pt"))["gen"]["state"][0]
    assert adam["exp_avg"].shape == (8, 5, 5, 5) and np.isfinite(adam["exp_avg"].read()).all()


@WRITERS
@pytest.mark.parametrize("share", [0, 0.02, 0.5, 0.95])
def test_truncated(tmp_path: Path, write, share: float) -> None:
    path = tmp_path / "a.pt"
    write(path, some_state())
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(WeightsError, match=r"0 bytes|damaged, incomplete|cut off|not a zip"):
        read_pytorch(str(path))


def test_flipped_byte(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    weight = np.full((16, 16), 1.5, np.float32)
    write_torch(path, {"a": weight})
    data = bytearray(path.read_bytes())
    data[data.index(weight.tobytes()) + 40] ^= 4
    path.write_bytes(data)
    found = read_pytorch(str(path))
    with pytest.raises(zipfile.BadZipFile, match="CRC"):
        found["a"].read()


def tensor(storage_count: int, offset: int, size: tuple, stride: tuple, kind: str = "FloatStorage") -> bytes:
    identity = ("storage", Call(f"torch {kind}"), "0", "cpu", storage_count)
    parts = (offset, size, stride, False, OrderedDict())
    rest = b"".join(dump(part, []) for part in parts)
    return b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + dump(identity, []) + b"Q" + rest + b"tR."


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        (tensor(4, 0, (5,), (1,)), "does not fit its storage"),
        (tensor(4, 1, (4,), (1,)), "does not fit its storage"),
        (tensor(4, 0, (2, 2), (3, 1)), "does not fit its storage"),
        (tensor(4, 0, (100_000_000,), (0,)), "does not fit its storage"),
        (tensor(4, 0, (2, 2), (1,)), "does not fit its storage"),
        (tensor(4, -1, (2,), (1,)), "impossible shape"),
        (tensor(4, 0, (2,), (-1,)), "impossible shape"),
        (tensor(4, 0, (2**62,), (1,)), "impossible shape"),
        (tensor(5, 0, (4,), (1,)), "not as long as it says"),
        (tensor(2**60, 0, (4,), (1,)), "not as long as it says"),
        (tensor(4, 0, (4,), (1,), "DoubleStorage"), "not as long as it says"),
        (tensor(4, 0, (4,), (1,), "BFloat16Storage"), "asks for torch.BFloat16Storage"),
        (b"\x80\x02" + dump(("storage", "torch", "0", "cpu", 4), []) + b"Q.", "something else than a storage"),
        (b"\x80\x02X\x01\x00\x00\x00aQ.", "damaged"),
    ],
)
def test_crafted_tensors(tmp_path: Path, index: bytes, reason: str) -> None:
    write_torch_archive(tmp_path / "a.pt", index, [np.zeros(4, np.float32)])
    with pytest.raises(WeightsError, match=reason):
        read_pytorch(str(tmp_path / "a.pt"))


@pytest.mark.parametrize("protocol", gadgets.protocols())
def test_gadgets_in_an_archive(tmp_path: Path, protocol: int) -> None:
    canary = tmp_path / "canary"
    indices = [
        pickle.dumps(content, protocol=protocol)
        for gadget in gadgets.simple(canary).values()
        for content in gadgets.wrapped(gadget).values()
    ]
    for index in [*indices, *gadgets.handwritten(canary).values()]:
        write_torch_archive(tmp_path / "a.pt", index, [])
        with pytest.raises(WeightsError, match=r"^\S+a\.pt: [^\n]+$"):
            read_pytorch(str(tmp_path / "a.pt"))
        assert not canary.exists()


@pytest.mark.parametrize("place", range(5))
def test_gadgets_in_each_part_of_an_old_file(tmp_path: Path, place: int) -> None:
    canary = tmp_path / "canary"
    system = {"little_endian": True}
    parts = [pickle.dumps(part, protocol=2) for part in (0x1950A86A20F9469CFC6C, 1001, system, {}, [])]
    (tmp_path / "a.pt").write_bytes(b"".join(parts))
    assert read_pytorch(str(tmp_path / "a.pt")) == {}
    for gadget in gadgets.simple(canary).values():
        parts[place] = pickle.dumps(gadget, protocol=2)
        (tmp_path / "a.pt").write_bytes(b"".join(parts))
        with pytest.raises(WeightsError):
            read_pytorch(str(tmp_path / "a.pt"))
        assert not canary.exists()


def test_compressed_archive_is_refused(tmp_path: Path) -> None:
    """A megabyte of these could unpack to a gigabyte."""
    with zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}.")
        archive.writestr("a/data/0", bytes(10**6))
    with pytest.raises(WeightsError, match="compressed or overlapping"):
        read_pytorch(str(tmp_path / "a.pt"))


@pytest.mark.parametrize("names", [[], ["a.npy"], ["a/data.pkl", "b/data.pkl"]])
def test_other_archives(tmp_path: Path, names: list[str]) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        for name in names:
            archive.writestr(name, b"\x80\x02}.")
    with pytest.raises(WeightsError, match="not one of PyTorch"):
        read_pytorch(str(tmp_path / "a.pt"))


def test_big_endian_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}.")
        archive.writestr("a/byteorder", b"big")
    with pytest.raises(WeightsError, match="big-endian"):
        read_pytorch(str(tmp_path / "a.pt"))
