"""CRC-32C against published values and the definition."""

from __future__ import annotations

import numpy as np
import pytest

from tests.foreign_writers import slow_crc32c
from utils.foreign.crc32c import crc32c, masked_crc32c


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
