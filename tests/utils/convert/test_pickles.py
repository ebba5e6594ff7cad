"""The reader of pickles: arrays of every protocol and both forms of PyTorch come out, and nothing is ever run."""

from __future__ import annotations

import io
import pickle
import struct
import time
import tracemalloc
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import golden_weights, malicious_pickles
from tests.weight_writers import Call, NamedArray, dump, write_old_torch, write_torch, write_torch_archive
from utils.cli import UserError
from utils.convert.files import naming
from utils.convert.pickles import read_old_pytorch, read_pickle, read_pytorch

ARRAYS = {
    "float": np.random.default_rng(0).normal(size=(2, 3, 2)).astype(np.float32),
    "columns": np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
    "big-endian": np.arange(5, dtype=">f4"),
    "half": np.arange(3, dtype=np.float16),
    "whole": np.arange(-2, 2),
    "flags": np.array([True, False]),
    "one": np.array(2.5, np.float32),
    "none": np.zeros((0, 2), np.float32),
}
WRITERS = pytest.mark.parametrize(
    ("write", "reader"), [(write_torch, read_pytorch), (write_old_torch, read_old_pytorch)]
)


def read(data: bytes, reader: Callable[[bytes], dict[str, Any]] = read_pickle) -> dict[str, Any]:
    with naming("file"):
        return reader(data)


@pytest.mark.parametrize("protocol", malicious_pickles.protocols())
def test_arrays_of_every_protocol(protocol: int) -> None:
    plain = [1, -(2**70), 1.5, None, True, "grün", (), (1, 2, 3, 4), {0: "a"}]
    content = {
        "arrays": OrderedDict(ARRAYS),
        "pair": NamedArray("conv2d_0.w_0", ARRAYS["float"]),
        "scalar": np.float64(0.25),
        "plain": plain,
        3: "three",
    }
    found = read(pickle.dumps(content, protocol=protocol))
    assert found["plain"] == plain and found["scalar"] == 0.25 and found["3"] == "three"
    expected = {**{f"arrays.{name}": array for name, array in ARRAYS.items()}, "pair": ARRAYS["float"]}
    assert found.keys() == {*expected, "scalar", "plain", "3"}
    for name, array in expected.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        assert np.array_equal(found[name], array)


def test_old_and_new_names_of_numpy() -> None:
    data = pickle.dumps({"a": ARRAYS["float"]}, protocol=2)
    for new, old in ((b"numpy._core.multiarray", b"numpy.core.multiarray"), (b"numpy.core.", b"numpy._core.")):
        assert np.array_equal(read(data.replace(new, old))["a"], ARRAYS["float"])


def test_the_gadgets_work(tmp_path: Path) -> None:
    """Without this the next tests would prove nothing: Python's own unpickler runs them."""
    canary = tmp_path / "canary"
    for name, gadget in malicious_pickles.simple(canary).items():
        if name != "getattr":  # hands out mkdir, harmless by itself
            pickle.loads(pickle.dumps(malicious_pickles.wrapped(gadget)["value"]))
            assert canary.exists(), name
            canary.rmdir()
    ran = set()
    for name, data in malicious_pickles.handwritten(canary).items():
        try:
            process = pickle.loads(data)
            if hasattr(process, "wait"):
                process.wait()
        except Exception:
            pass
        if canary.exists():
            ran.add(name)
            canary.rmdir()
    assert ran == {"INST", "OBJ", "thrown away", "memo", "after something valid", "BUILD of a dtype"}


@pytest.mark.parametrize("protocol", malicious_pickles.protocols())
def test_gadgets_are_refused_and_not_run(tmp_path: Path, protocol: int) -> None:
    canary = tmp_path / "canary"
    for name, gadget in malicious_pickles.simple(canary).items():
        for place, content in malicious_pickles.wrapped(gadget).items():
            with pytest.raises(UserError) as caught:
                read(pickle.dumps(content, protocol=protocol))
            assert "nothing in it was run" in str(caught.value) and "\n" not in str(caught.value), (name, place)
            assert not canary.exists()


def test_handwritten_gadgets_are_refused_and_not_run(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    for name, data in malicious_pickles.handwritten(canary).items():
        with pytest.raises(UserError) as caught:
            read(data)
        assert str(caught.value).startswith("file: ") and "\n" not in str(caught.value), name
        assert not canary.exists(), name


def array_pickle(shape: bytes = b"(K\x02t", dtype: bytes = b"f4", data: bytes = b"12345678") -> bytes:
    """A table with one array, "a"."""
    start = b"\x80\x03}U\x01acnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tC\x01btR(K\x01"
    number_type = b"cnumpy\ndtype\n(X" + struct.pack("<I", len(dtype)) + dtype + b"I00\nI01\ntR"
    return start + shape + number_type + b"I00\nC" + bytes([len(data)]) + data + b"tbs."


def test_arrays_by_hand() -> None:
    assert read(array_pickle())["a"].tobytes() == b"12345678"


def test_calls_are_noted_and_not_made() -> None:
    """Whatever a call is of and whatever state it is given, an entry that is no array stays a note of it."""
    for call in (b"cnumpy\nndarray\n(J\x00\x00\x00\x7ftR", b"cbuiltins\nbytes\n(J\xff\xff\xff\x7ftR"):
        found = read(b"\x80\x02}U\x01a" + call + b"s.")
        assert found == {"a": {}} or found == {}
    state = b"}X\x04\x00\x00\x00nameX\x02\x00\x00\x00os"
    assert read(b"\x80\x02}U\x01acnumpy\ndtype\n" + state + b"sbs.") == {}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (array_pickle(shape=b"(K\x03t"), "not as long as its shape"),
        (array_pickle(shape=b"(\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7ft"), "impossible shape"),
        (array_pickle(shape=b"(J\xff\xff\xff\xfft"), "impossible shape"),
        (array_pickle(shape=b"(" + b"K\x01" * 40 + b"t"), "impossible shape"),
        (array_pickle(dtype=b"O8"), "type O8"),
        (array_pickle(dtype=b"V8"), "type V8"),
        (array_pickle(dtype=b"f4,O8"), "type f4,O8"),
        (b"\x80\x02B\xff\xff\xff\x7fabc.", "damaged"),
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x0fabc.", "damaged"),
        (b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x0fabc.", "damaged"),
        (b"\x80\x02}r\xff\xff\xff\xff.", "takes more than"),
        (b"\x80\x02j\xff\xff\xff\xff.", "damaged"),
        (b"\x80\x02}(", "damaged"),
        (b"\x80\x02.", "damaged"),
        (b"\x80\x02t.", "damaged"),
        (b"\x80\x02(.", "damaged"),
        (b"\x80\x02]K\x01K\x01s.", "damaged"),
        (b"\x80\x02}]]s.", "key of a table"),
        (b"\x80\x02}\x8a\x01\x01c_codecs\nencode\nsK\x01c_codecs\nencode\nu.", "damaged"),
        (b"\x80\x02R.", "damaged"),
        (b"\x80\x04\x8f.", "EMPTY_SET"),
        (b"\x80\x02]2.", "DUP"),
        (b"\x80\x02]0.", "POP"),
        (b"\x80\x02].", "holds no table"),
        (b"\x80\x02cnumpy\nndarray\n.", "holds no table"),
        (b"", "damaged"),
        (b"hello", "damaged"),
        (b"\xff" * 50, "damaged"),
    ],
)
def test_crafted(data: bytes, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        read(data)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_truncated(share: float) -> None:
    data = pickle.dumps(ARRAYS, protocol=4)
    with pytest.raises(UserError, match="damaged, incomplete"):
        read(data[: int(len(data) * share)])


def test_tables_within_tables_take_no_time() -> None:
    """A pair of pairs of pairs ...: 2^60 leaves in 300 bytes, for ever to hash or to print."""
    bomb = b"K\x01" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(60))
    start = time.perf_counter()
    for entry in (b"%sK\x01s", b"(%sK\x01u", b"0(%sK\x01d", b"K\x01q\xff]%sa(h\xffK\x01uK\x02(%sK\x01dss"):
        with pytest.raises(UserError, match="key of a table|POP"):
            read(b"\x80\x02}" + entry.replace(b"%s", bomb) + b".")
    with pytest.raises(UserError, match="impossible shape"):
        read(array_pickle(shape=b"(" + bomb + b"t"))
    with pytest.raises(UserError, match="type tuple"):
        read(array_pickle().replace(b"X\x02\x00\x00\x00f4", bomb))
    nested = b"\x80\x02}K\x01" + b"]" * 100_000 + b"a" * 99_999 + b"s."
    assert list(read(nested)) == ["1"]
    with pytest.raises(UserError, match="takes more than"):
        read(b"\x80\x02]" + b"Na" * 600_000 + b".")
    assert time.perf_counter() - start < 60  # hours without the checks


def test_tables_that_hold_themselves_end() -> None:
    entries = b"".join(b"X\x03\x00\x00\x00%03dh\x00" % i for i in range(100))
    with pytest.raises(UserError, match="more arrays than it can hold"):
        read(b"\x80\x02}q\x00(" + entries + b"u.")


def test_one_text_does_not_multiply() -> None:
    """A thousand arrays of one text of 64 KiB: refused before they take 64 MiB."""
    text = b"X" + struct.pack("<I", 2**16) + b"a" * 2**16 + b"q\x00"
    array = array_pickle(shape=b"(J\x00\x00\x01\x00t", dtype=b"u1", data=b"#")[2:-2].replace(b"C\x01#", b"h\x00")
    entries = b"".join(b"X\x05\x00\x00\x00%05d" % i + array[array.index(b"cnumpy") :] for i in range(1000))
    data = b"\x80\x03}(X\x04\x00\x00\x00text" + text + entries + b"u."
    tracemalloc.start()
    with pytest.raises(UserError, match="more arrays than it can hold"):
        read(data)
    assert tracemalloc.get_traced_memory()[1] < 2**23
    tracemalloc.stop()


# PyTorch's files, new and old


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
def test_round_trip(tmp_path: Path, write, reader) -> None:
    write(tmp_path / "a.pt", {"net": some_state(), "epoch": 3})
    found = reader((tmp_path / "a.pt").read_bytes())
    assert found.pop("epoch") == 3 and list(found) == [f"net.{name}" for name in some_state()]
    for name, expected in some_state().items():
        value = found[f"net.{name}"]
        assert value.dtype == expected.dtype and value.shape == expected.shape and np.array_equal(value, expected)


@WRITERS
def test_bfloat16_and_parameters(tmp_path: Path, write, reader) -> None:
    """bfloat16 is the upper half of a float32; a parameter is its tensor."""
    values = np.array([1.0, -2.5, 3e38, 2.0**-100], np.float32)
    upper = (values.view(np.uint32) >> 16).astype(np.uint16)
    write(tmp_path / "a.pt", {"a": Call("torch._utils _rebuild_parameter", (upper, True, OrderedDict()))})
    value = reader((tmp_path / "a.pt").read_bytes())["a"]
    assert value.dtype == np.float32
    assert np.array_equal(value, (upper.astype(np.uint32) << 16).view(np.float32))
    np.testing.assert_allclose(value, values, rtol=2**-7)


def test_what_pytorch_wrote(golden: Path) -> None:
    folder = golden / "daa_pytorch" / "ckpt64"
    for name in ("gen_00000005.pt", "dis_00000005.pt"):
        found, expected = read_pytorch((folder / name).read_bytes()), golden_weights.load_pt(folder / name)
        for key, value in expected.items():
            for inner, array in value.items() if isinstance(value, dict) else [("", value)]:
                assert np.array_equal(found[f"{key}.{inner}".rstrip(".")], array)
    adam = read_pytorch((folder / "optimizer.pt").read_bytes())["gen.state.0.exp_avg"]
    assert adam.shape == (8, 5, 5, 5) and np.isfinite(adam).all()


@WRITERS
@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_truncated_files(tmp_path: Path, write, reader, share: float) -> None:
    write(tmp_path / "a.pt", some_state())
    data = (tmp_path / "a.pt").read_bytes()
    with pytest.raises(UserError, match=r"damaged, incomplete|cut off|not a zip"):
        read(data[: int(len(data) * share)], reader)


def test_flipped_byte(tmp_path: Path) -> None:
    weight = np.full((16, 16), 1.5, np.float32)
    write_torch(tmp_path / "a.pt", {"a": weight})
    data = bytearray((tmp_path / "a.pt").read_bytes())
    data[data.index(weight.tobytes()) + 40] ^= 4
    with pytest.raises(UserError, match="damaged.*CRC"):
        read(bytes(data), read_pytorch)


def tensor(storage_count: int, offset: int, size: tuple, stride: tuple, kind: str = "FloatStorage") -> bytes:
    """A table with one tensor, "a"."""
    identity = ("storage", Call(f"torch {kind}"), "0", "cpu", storage_count)
    parts = (offset, size, stride, False, OrderedDict())
    rest = b"".join(dump(part, []) for part in parts)
    return b"\x80\x02}U\x01actorch._utils\n_rebuild_tensor_v2\n(" + dump(identity, []) + b"Q" + rest + b"tRs."


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
        (tensor(2**60, 0, (4,), (1,)), "impossible shape"),
        (tensor(2**29, 0, (4,), (1,)), "not as long as it says"),
        (tensor(4, 0, (4,), (1,), "DoubleStorage"), "not as long as it says"),
        (tensor(4, 0, (4,), (1,), "ComplexFloatStorage"), "asks for torch.ComplexFloatStorage"),
        (b"\x80\x02" + dump(("storage", "torch", "0", "cpu", 4), []) + b"Q.", "something else than a storage"),
        (b"\x80\x02X\x01\x00\x00\x00aQ.", "damaged"),
    ],
)
def test_crafted_tensors(tmp_path: Path, index: bytes, reason: str) -> None:
    write_torch_archive(tmp_path / "a.pt", index, [np.zeros(4, np.float32)])
    with pytest.raises(UserError, match=reason):
        read((tmp_path / "a.pt").read_bytes(), read_pytorch)


@pytest.mark.parametrize("protocol", malicious_pickles.protocols())
def test_gadgets_in_an_archive(tmp_path: Path, protocol: int) -> None:
    canary = tmp_path / "canary"
    indices = [
        pickle.dumps(content, protocol=protocol)
        for gadget in malicious_pickles.simple(canary).values()
        for content in malicious_pickles.wrapped(gadget).values()
    ]
    for index in [*indices, *malicious_pickles.handwritten(canary).values()]:
        write_torch_archive(tmp_path / "a.pt", index, [])
        with pytest.raises(UserError, match=r"^file: [^\n]+$"):
            read((tmp_path / "a.pt").read_bytes(), read_pytorch)
        assert not canary.exists()


@pytest.mark.parametrize("place", range(5))
def test_gadgets_in_each_part_of_an_old_file(tmp_path: Path, place: int) -> None:
    canary = tmp_path / "canary"
    system = {"little_endian": True}
    parts = [pickle.dumps(part, protocol=2) for part in (0x1950A86A20F9469CFC6C, 1001, system, {}, [])]
    assert read(b"".join(parts), read_old_pytorch) == {}
    for gadget in malicious_pickles.simple(canary).values():
        parts[place] = pickle.dumps(gadget, protocol=2)
        with pytest.raises(UserError):
            read(b"".join(parts), read_old_pytorch)
        assert not canary.exists()


def archive(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name, content in members.items():
            file.writestr(name.replace("_", "/"), content)
    return stream.getvalue()


def test_compressed_archive_is_refused() -> None:
    """A megabyte of these could unpack to a gigabyte."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/data.pkl", b"\x80\x02}.")
        file.writestr("a/data/0", bytes(10**6))
    with pytest.raises(UserError, match="compressed or overlapping"):
        read(stream.getvalue(), read_pytorch)


@pytest.mark.parametrize("names", [[], ["a.npy"], ["a_data.pkl", "b_data.pkl"]])
def test_other_archives(names: list[str]) -> None:
    with pytest.raises(UserError, match="not one of PyTorch"):
        read(archive(**dict.fromkeys(names, b"\x80\x02}.")), read_pytorch)


def test_big_endian_is_refused() -> None:
    with pytest.raises(UserError, match="big-endian"):
        read(archive(**{"a_data.pkl": b"\x80\x02}.", "a_byteorder": b"big"}), read_pytorch)
