"""CRC-32C (Castagnoli), which guards TensorFlow's files; the standard library has other polynomials only."""

from __future__ import annotations

import numpy as np

_POLYNOMIAL = 0x82F63B78  # bits reversed
_LANE = 1024  # bytes


def _byte_table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = (table >> 1) ^ np.where(table & 1, np.uint32(_POLYNOMIAL), np.uint32(0))
    return table


_TABLE = _byte_table()
_WORDS = _TABLE.tolist()


def crc32c(data: bytes) -> int:
    """The CRC-32C of `data`; 0xE3069283 for b"123456789".

    The register after some bytes is linear in the register before and in the bytes. So all lanes of 1024 bytes
    are run side by side from a register of 0, together with the 32 single bits over 1024 zero bytes, which then
    carry a register across a lane.
    """
    lanes = len(data) // _LANE
    register = 0xFFFFFFFF
    if lanes:
        columns = np.zeros((_LANE, lanes + 32), np.uint8)
        columns[:, :lanes] = np.frombuffer(data, np.uint8, lanes * _LANE).reshape(lanes, _LANE).T
        registers = np.zeros(lanes + 32, np.uint32)
        registers[lanes:] = np.uint32(1) << np.arange(32, dtype=np.uint32)
        for column in columns:
            registers = _TABLE[(registers ^ column) & 0xFF] ^ (registers >> 8)
        carried = registers[lanes:].tolist()
        for lane in registers[:lanes].tolist():
            moved = lane
            while register:
                lowest = register & -register
                moved ^= carried[lowest.bit_length() - 1]
                register ^= lowest
            register = moved
    for byte in data[lanes * _LANE :]:
        register = _WORDS[(register ^ byte) & 0xFF] ^ (register >> 8)
    return register ^ 0xFFFFFFFF


def masked_crc32c(data: bytes) -> int:
    """As TensorFlow stores it: rotated right by 15 bits, plus a constant."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
