"""TensorFlow's checkpoints: what its own program wrote, what the test writes, and damage of every kind."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from tests.weight_writers import slow_crc32c, varint, write_table, write_tensorflow
from utils.cli import UserError
from utils.convert.files import checkpoint_prefix
from utils.convert.tensorflow_file import (
    checkpoint_files,
    checkpoint_in_folder,
    crc32c,
    masked_crc32c,
    read_tensorflow,
)


def some_variables() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    shapes = {f"net/conv{i}/{kind}": shape for i in range(12) for kind, shape in (("kernel", (3, 2)), ("bias", (2,)))}
    variables = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return {**variables, "global_step": np.array(7, np.int64), "empty": np.zeros((0, 3), np.float64)}


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    write_tensorflow(tmp_path / "snap-7", some_variables())
    return tmp_path / "snap-7"


def test_what_tensorflow_wrote(golden: Path) -> None:
    found = read_tensorflow(str(golden / "tf1_ckpt" / "snap-1"))
    with np.load(golden / "tf1_model_weights.npz") as expected:
        assert sorted(found) == sorted(expected.files) and len(found) == 104
        for name, array in found.items():
            assert array.shape == expected[name].shape
            assert np.array_equal(array, expected[name])


@pytest.mark.parametrize("shards", [1, 3])
def test_round_trip(tmp_path: Path, shards: int) -> None:
    variables = some_variables()
    write_tensorflow(tmp_path / "model", variables, shards)
    found = read_tensorflow(str(tmp_path / "model"))
    assert found.keys() == variables.keys()
    for name, expected in variables.items():
        value = found[name]
        assert value.dtype == expected.dtype and value.shape == expected.shape and np.array_equal(value, expected)
    assert len(checkpoint_files(str(tmp_path / "model"))) == 1 + shards


def test_every_flipped_byte_of_the_index_is_refused_or_harmless(prefix: Path) -> None:
    index = Path(f"{prefix}.index")
    good = index.read_bytes()
    expected = {name: array.tolist() for name, array in some_variables().items()}
    refused = 0
    for place in range(0, len(good), 5):
        index.write_bytes(good[:place] + bytes([good[place] ^ 0x10]) + good[place + 1 :])
        try:
            assert {name: array.tolist() for name, array in read_tensorflow(str(prefix)).items()} == expected
        except UserError as error:
            assert str(error).startswith(str(prefix))
            refused += 1
    assert refused > 0.9 * len(good) / 5  # the rest lies in the padding of the footer


def test_flipped_byte_of_the_data_is_refused(prefix: Path) -> None:
    data = Path(f"{prefix}.data-00000-of-00001")
    good = data.read_bytes()
    data.write_bytes(good[:100] + bytes([good[100] ^ 1]) + good[101:])
    with pytest.raises(UserError, match=r"00000-of-00001: is damaged: a checksum is wrong"):
        read_tensorflow(str(prefix))


@pytest.mark.parametrize("part", ["index", "data-00000-of-00001"])
@pytest.mark.parametrize("length", [0, 1, 60, -1])
def test_truncated(prefix: Path, part: str, length: int) -> None:
    path = Path(f"{prefix}.{part}")
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UserError, match=r"0 bytes|cut off|incomplete") as caught:
        read_tensorflow(str(prefix))
    assert str(caught.value).count(str(path)) == 1


def test_missing_data_file(prefix: Path) -> None:
    Path(f"{prefix}.data-00000-of-00001").unlink()
    with pytest.raises(UserError, match=r"snap-7\.data-00000-of-00001: no such file"):
        read_tensorflow(str(prefix))


def test_missing_index(prefix: Path) -> None:
    Path(f"{prefix}.index").unlink()
    with pytest.raises(UserError, match=r"snap-7\.index: is missing"):
        checkpoint_prefix(str(prefix))


def test_snappy_is_refused(tmp_path: Path) -> None:
    write_table(tmp_path / "a.index", [(b"", b"\x08\x01")], compression=1)
    with pytest.raises(UserError, match="compressed with snappy, which is not supported"):
        read_tensorflow(str(tmp_path / "a"))


HUGE_SIDE = b"\x12" + varint(12) + b"\x12" + varint(10) + b"\x08" + varint(2**62)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (b"a", b"\x08\x01" + HUGE_SIDE, "impossible shape"),
        (b"a", b"\x08\x01\x28" + varint(2**62), "not as long as its shape"),
        (b"a", b"\x08\x01\x20" + varint(2**62) + b"\x28\x04", "incomplete"),
        (b"a", b"\x08\x01\x18\x05\x28\x04", "not as long as its shape"),
        (b"a", b"\x08\x01\x12\x05", "cut off"),
        (b"a", b"\xff" * 11, "without an end"),
        (b"a", b"\x0b", "damaged"),
        (b"a" * 2000, b"\x08\x01", "contradicts itself"),
        (b"\xff\xfe", b"\x08\x01\x28\x04", "damaged"),
    ],
)
def test_crafted_entries(tmp_path: Path, key: bytes, value: bytes, reason: str) -> None:
    write_table(tmp_path / "a.index", [(b"", b"\x08\x01"), (key, value)])
    (tmp_path / "a.data-00000-of-00001").write_bytes(b"1234")
    with pytest.raises(UserError, match=reason):
        read_tensorflow(str(tmp_path / "a"))


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"\x08" + varint(2**40), "number of data files"),
        (b"\x08\x00", "number of data files"),
        (b"\x08\x01\x10\x01", "big-endian"),
    ],
)
def test_crafted_headers(tmp_path: Path, header: bytes, reason: str) -> None:
    write_table(tmp_path / "a.index", [(b"", header)])
    with pytest.raises(UserError, match=reason):
        read_tensorflow(str(tmp_path / "a"))


def test_block_outside_of_the_file(tmp_path: Path) -> None:
    footer = (varint(0) * 2 + varint(2**60) + varint(2**60)).ljust(40, b"\0")
    (tmp_path / "a.index").write_bytes(bytes(100) + footer + struct.pack("<Q", 0xDB4775248B80FB57))
    with pytest.raises(UserError, match="outside of it"):
        read_tensorflow(str(tmp_path / "a"))


def test_which_checkpoint_a_folder_has(tmp_path: Path) -> None:
    assert checkpoint_in_folder(str(tmp_path)) is None
    for name in ("snap-9", "snap-10"):
        write_tensorflow(tmp_path / name, {"a": np.zeros(1, np.float32)})
    assert checkpoint_in_folder(str(tmp_path)) == str(tmp_path / "snap-10")
    record = tmp_path / "checkpoint"
    for line in ('"snap-9"', '"/somewhere/else/snap-9"', r'"C:/runs/snap-9"'):
        record.write_text(f'model_checkpoint_path: {line}\nall_model_checkpoint_paths: "snap-10"\n')
        assert checkpoint_in_folder(str(tmp_path)) == str(tmp_path / "snap-9")
    record.write_text('model_checkpoint_path: "snap-8"\n')
    with pytest.raises(UserError, match="names snap-8, but there is no snap-8.index"):
        checkpoint_in_folder(str(tmp_path))
    for part in ("", ".index", ".meta", ".data-00000-of-00001"):
        assert checkpoint_prefix(str(tmp_path / f"snap-9{part}")) == str(tmp_path / "snap-9")


# CRC-32C


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),  # RFC 3720, B.4
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
    ],
)
def test_published_values(data: bytes, expected: int) -> None:
    assert crc32c(data) == expected == slow_crc32c(data)


@pytest.mark.parametrize("length", [1, 1023, 1024, 1025, 2048, 5000])
def test_lanes_of_any_length(length: int) -> None:
    data = np.random.default_rng(length).bytes(length)
    assert crc32c(data) == slow_crc32c(data)


def test_mask() -> None:
    assert masked_crc32c(b"123456789") == ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) % 2**32
