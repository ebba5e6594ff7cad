"""The one place where a device is chosen."""

from __future__ import annotations

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
