from __future__ import annotations

import sys

import numpy as np
import pytest

from utils.device import MemoryMeter, process_memory


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the size of a process")
def test_memory():
    meter = MemoryMeter(gpu=False)
    block = np.ones(2**28, np.uint8)  # 256 MiB, all of it touched
    del block
    assert 250 < meter.extra() < 400  # the peak, not what there is now
    assert process_memory("VmRSS") > 10
    assert process_memory("VmNothing") is None
