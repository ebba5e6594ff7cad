"""Mixed precision: the networks' convolutions in 16 bits, everything else in float32, and the loss scale for float16.

Paddle can do this on GPUs alone; on a CPU `paddle.amp.auto_cast` changes nothing. The scale is written here because
`paddle.amp.GradScaler` is off on CPUs, too, where nothing of it could be tested, and because it leaves updates out,
each process for itself.
"""

from __future__ import annotations

import paddle

PRECISIONS = {"fp32": None, "fp16": "float16", "bf16": "bfloat16"}  # Paddle's names

# Paddle would put matrix products in 16 bits as well, but those of the attention go into a sharp softmax, and a
# critic's score is a sum of tens of thousands of terms.
FLOAT32_OPERATIONS = ("matmul", "matmul_v2", "linear", "linear_v2", "mul")


class MixedPrecision:
    """Calls networks with their convolutions in fp16 or bf16; "fp32" just calls them.

    float32_layers: layers of the networks, without convolutions, that get float32 whatever the one before them makes.
    """

    def __init__(self, precision: str = "fp32", float32_layers=()):
        if precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
        self.dtype = PRECISIONS[precision]
        if self.dtype:
            for layer in float32_layers:
                layer.register_forward_pre_hook(lambda _, inputs: all_in_float32(inputs))

    def __call__(self, network, *inputs):
        """network(*inputs), a tensor or a tuple of them (or of None); floats come back as float32."""
        if self.dtype is None:
            return network(*inputs)
        with paddle.amp.auto_cast(level="O1", dtype=self.dtype, custom_black_list=FLOAT32_OPERATIONS):
            outputs = network(*inputs)
        return all_in_float32(outputs) if isinstance(outputs, tuple) else all_in_float32((outputs,))[0]


def all_in_float32(values: tuple) -> tuple:
    """Tensors of 16 bits as float32, the rest as it is; what is one tensor stays one."""
    low = [x for x in values if x is not None and x.dtype in (paddle.float16, paddle.bfloat16)]
    exact = {id(x): x.astype("float32") for x in low}
    return tuple(exact.get(id(x), x) for x in values)


LARGEST_SCALE = 2.0**24  # above it float16 has no use for more, and without an end it would become infinite


class LossScale:
    """The factor on a loss that keeps its float16 gradients from vanishing; a power of two, so that it is exact.

    It is doubled after `interval` updates, and halved for an update whose gradients are not finite, which is then
    tried again with the same batch: no update is left out, and a gradient that is NaN at a scale of 1, too, is none
    of float16's. state: [scale, updates since it changed], for checkpoints.
    """

    def __init__(self, scale: float = 2.0**15, interval: int = 2000):
        self.scale = scale
        self.interval = interval
        self.good = 0

    def remove_from(self, gradients: list):
        """Divides gradients by the scale, in place."""
        with paddle.no_grad():
            for gradient in gradients:
                gradient.scale_(1.0 / self.scale)

    def update_done(self):
        self.good += 1
        if self.good >= self.interval:
            self.scale, self.good = min(2.0 * self.scale, LARGEST_SCALE), 0

    def lower(self) -> bool:
        """Halves the scale and returns True; False where it is 1, so that a lower one is not what is needed."""
        if self.scale <= 1.0:
            return False
        self.scale, self.good = self.scale / 2.0, 0
        return True

    @property
    def state(self) -> list[float]:
        return [self.scale, float(self.good)]

    @state.setter
    def state(self, values):
        scale, good = (float(value) for value in values)
        if not (scale >= 1.0 and good >= 0.0 and good == int(good)):
            raise ValueError(f"a loss scale of {scale:g} after {good:g} updates")
        self.scale, self.good = scale, int(good)
