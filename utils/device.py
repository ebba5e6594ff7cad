"""The one place where a device is chosen, and where its memory is measured."""

from __future__ import annotations

import contextlib
import ctypes

import paddle

from utils.cli import UserError


def set_device(name: str | None = None) -> str:
    """Makes "cpu" or "gpu" Paddle's device and returns a line for logs that says what it is.

    None takes the GPU if this Paddle has one to use. Raises UserError if a GPU is asked for in vain.
    """
    usable = paddle.device.is_compiled_with_cuda() and paddle.device.cuda.device_count() > 0
    if name == "gpu" and not usable:
        reason = "no GPU is visible" if paddle.device.is_compiled_with_cuda() else "this is Paddle's CPU package"
        raise UserError(f"--device gpu: {reason}; see the README on installation, or use --device cpu")
    if name == "gpu" or (name is None and usable):
        paddle.set_device("gpu")
        return f"gpu ({paddle.device.cuda.get_device_name()})"
    paddle.set_device("cpu")
    return "cpu"


def process_memory(key: str) -> float | None:
    """A size of this process from Linux's /proc, in MiB, e.g. VmRSS; None on other systems."""
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii") as file:
        for line in file:
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) / 1024
    return None


class MemoryMeter:
    """Peak memory beyond the level at its making, in MiB: of the device, or of the process on a CPU.

    gpu: whether the device is one. base: that level; None where the system does not tell.
    """

    def __init__(self, gpu: bool):
        self.gpu = gpu
        if gpu:
            self.base = paddle.device.cuda.memory_allocated() / 2**20
            return
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
        with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")  # the peak starts anew
        self.base = process_memory("VmRSS")

    def extra(self) -> float | None:
        """The peak so far; None where the system does not tell."""
        peak = paddle.device.cuda.max_memory_allocated() / 2**20 if self.gpu else process_memory("VmHWM")
        return None if peak is None or self.base is None else max(peak - self.base, 0.0)
