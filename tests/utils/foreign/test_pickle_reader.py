"""The reader of pickles: arrays of every protocol come out, nothing else, and nothing is ever run."""

from __future__ import annotations

import io
import pickle
import struct
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from tests import gadgets
from tests.foreign_writers import NamedArray
from utils.foreign.arrays import ForeignArray, WeightsError, reading
from utils.foreign.pickle_reader import read_pickle

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


def plain(value):
    """What the reader gave, with arrays in place of ForeignArrays."""
    if isinstance(value, ForeignArray):
        return value.read()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return type(value)(map(plain, value)) if isinstance(value, (list, tuple)) else value


def read(data: bytes):
    with reading("file"):
        return read_pickle(io.BytesIO(data))


@pytest.mark.parametrize("protocol", gadgets.protocols())
def test_arrays_of_every_protocol(protocol: int) -> None:
    content = {
        "arrays": OrderedDict(ARRAYS),
        "pair": NamedArray("conv2d_0.w_0", ARRAYS["float"]),
        "plain": [1, -(2**70), 1.5, None, True, "grün", b"ab\xff", (), (1, 2, 3, 4), {0: "a"}, np.float64(0.25)],
    }
    found = plain(read(pickle.dumps(content, protocol=protocol)))
    assert found["arrays"].keys() == ARRAYS.keys()
    for name, expected in ARRAYS.items():
        value = found["arrays"][name]
        assert value.dtype == expected.dtype and value.shape == expected.shape and np.array_equal(value, expected)
    name, value = found["pair"]
    assert name == "conv2d_0.w_0" and np.array_equal(value, ARRAYS["float"])
    expected = list(content["plain"])
    if protocol < 3:
        expected[6] = "ab\xff"  # stays the text as which it is written
    assert found["plain"] == expected


def test_old_and_new_names_of_numpy() -> None:
    data = pickle.dumps(ARRAYS["float"], protocol=2)
    for new, old in ((b"numpy._core.multiarray", b"numpy.core.multiarray"), (b"numpy.core.", b"numpy._core.")):
        assert np.array_equal(plain(read(data.replace(new, old))), ARRAYS["float"])


def test_the_gadgets_work(tmp_path: Path) -> None:
    """Without this the next tests would prove nothing: Python's own unpickler runs them."""
    canary = tmp_path / "canary"
    for name, gadget in gadgets.simple(canary).items():
        if name != "getattr":  # hands out mkdir, harmless by itself
            pickle.loads(pickle.dumps(gadgets.wrapped(gadget)["value"]))
            assert canary.exists(), name
            canary.rmdir()
    ran = set()
    for name, data in gadgets.handwritten(canary).items():
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


@pytest.mark.parametrize("protocol", gadgets.protocols())
def test_gadgets_are_refused_and_not_run(tmp_path: Path, protocol: int) -> None:
    canary = tmp_path / "canary"
    for name, gadget in gadgets.simple(canary).items():
        for place, content in gadgets.wrapped(gadget).items():
            with pytest.raises(WeightsError) as caught:
                read(pickle.dumps(content, protocol=protocol))
            assert "nothing in it was run" in str(caught.value) and "\n" not in str(caught.value), (name, place)
            assert not canary.exists()


def test_handwritten_gadgets_are_refused_and_not_run(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    for name, data in gadgets.handwritten(canary).items():
        with pytest.raises(WeightsError) as caught:
            read(data)
        assert str(caught.value).startswith("file: ") and "\n" not in str(caught.value), name
        assert not canary.exists(), name


def array_pickle(shape: bytes = b"(K\x02t", dtype: bytes = b"f4", data: bytes = b"12345678") -> bytes:
    start = b"\x80\x03cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tC\x01btR(K\x01"
    number_type = b"cnumpy\ndtype\n(X" + struct.pack("<I", len(dtype)) + dtype + b"I00\nI01\ntR"
    return start + shape + number_type + b"I00\nC" + bytes([len(data)]) + data + b"tb."


def test_arrays_by_hand() -> None:
    assert read(array_pickle()).read().tobytes() == b"12345678"


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
        (b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x0f}.", "__ok__"),
        (b"\x80\x02}r\xff\xff\xff\xff.", "__ok__"),
        (b"\x80\x02j\xff\xff\xff\xff.", "damaged"),
        (b"\x80\x02}(", "damaged"),
        (b"\x80\x02.", "damaged"),
        (b"\x80\x02t.", "damaged"),
        (b"\x80\x02(.", "damaged"),
        (b"\x80\x02]]s.", "damaged"),
        (b"\x80\x02R.", "damaged"),
        (b"\x80\x04\x8f.", "EMPTY_SET"),
        (b"\x80\x02]2.", "DUP"),
        (b"", "damaged"),
        (b"hello", "damaged"),
        (b"\xff" * 50, "damaged"),
        (b"\x80\x02c_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00utf-8tR.", "encodes text"),
    ],
)
def test_crafted(data: bytes, reason: str) -> None:
    if reason == "__ok__":  # false sizes that are of no consequence here
        assert read(data) == {}
        return
    with pytest.raises(WeightsError, match=reason):
        read(data)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_truncated(share: float) -> None:
    data = pickle.dumps(ARRAYS, protocol=4)
    with pytest.raises(WeightsError, match="damaged, incomplete"):
        read(data[: int(len(data) * share)])


def test_tables_within_tables_take_no_time() -> None:
    """A pair of pairs of pairs ...: 2^60 leaves in 300 bytes, for ever to hash or to print."""
    bomb = b"K\x01" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(60))
    start = time.perf_counter()
    with pytest.raises(WeightsError, match="key of a table"):
        read(b"\x80\x02}" + bomb + b"K\x01s.")
    with pytest.raises(WeightsError, match="impossible shape"):
        read(array_pickle(shape=b"(" + bomb + b"t"))
    with pytest.raises(WeightsError, match="type tuple"):
        read(b"\x80\x02cnumpy\ndtype\n(" + bomb + b"I00\nI01\ntR.")
    nested = b"\x80\x02" + b"]" * 300_000 + b"a" * 299_999 + b"."
    assert isinstance(read(nested), list)
    with pytest.raises(WeightsError, match="takes more than"):
        read(b"\x80\x02" + b"N0" * 600_000 + b".")
    assert time.perf_counter() - start < 20


def test_tuples_cannot_multiply() -> None:
    values = b"\x80\x02](" + b"N" * 1000 + b"eq\x00"
    with pytest.raises(WeightsError, match="something else than a pair"):
        read(values + b"cbuiltins\ntuple\nh\x00\x85R.")

