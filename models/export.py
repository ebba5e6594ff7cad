"""Programs for inference engines, from pictures and masks to completed pictures, and Paddle's engine for them."""

from __future__ import annotations

import contextlib
import copy
import os
import sys
import tempfile
import warnings

import numpy as np
import paddle
import paddle.nn as nn

from models.layers import composite
from models.static_attention import sides

TOLERANCE = 1e-4  # by how much a program's pixels, in [-1, 1], may differ from the network's
PROGRAM_SUFFIXES = (".json", ".pdmodel")  # since Paddle 3, and before


class Completion(nn.Layer):
    """What a program does: hides the hole, completes the picture, and puts the result into the hole.

    Args:
        network: a `generator.InpaintingGenerator`.
        mosaic_unit_size: pixels, or None: the hole shows zeros instead of a mosaic of the picture.
        coarse_only: run the coarse stage alone.

    Call with image [N, 3, H, W] in [-1, 1] and mask [N or 1, 1, H, W], above 0.5 = hole; H and W divisible by 8.
    What the hole covers does not count, unless there is a mosaic. Returns the completed image [N, 3, H, W], equal
    to the image outside of the hole; then, unless coarse_only, that of the coarse stage; then, if there is an
    attention, its offsets [N, 2, H/8, W/8], int64.
    """

    def __init__(self, network: nn.Layer, mosaic_unit_size: int | None = None, coarse_only: bool = False):
        super().__init__()
        self.network = network
        self.mosaic_unit_size = mosaic_unit_size
        self.coarse_only = coarse_only

    def forward(self, image, mask):
        mask = (mask > 0.5).astype("float32") + paddle.zeros_like(image[:, :1])  # one of each picture's own
        known = image * (1.0 - mask)
        if self.mosaic_unit_size is not None:
            known = known + mosaic(image, self.mosaic_unit_size) * mask
        if self.coarse_only:
            return composite(self.network.coarse(known, mask), image, mask)
        coarse, refined, offsets = self.network(known, mask)
        completed = composite(refined, image, mask), composite(coarse, image, mask)
        return completed if offsets is None else (*completed, offsets)


def mosaic(image, unit: int):
    """The image in blocks of `unit` pixels, as `layers.hide_hole` makes them, for sizes that are tensors."""
    for axis, size in zip((2, 3), sides(image)):
        units = paddle.clip(size // unit, min=1)
        index = paddle.arange(0, size, dtype="int64") * units // size * unit
        image = paddle.index_select(image, index, axis=axis)
    return image


def output_names(completion: Completion) -> list[str]:
    if completion.coarse_only:
        return ["completed"]
    has_attention = completion.network.fine_generator.contextual_attention is not None
    return ["completed", "coarse"] + ["offsets"] * has_attention


def save_program(completion: Completion, path: str) -> None:
    """Writes `path` with .json (or .pdmodel) and .pdiparams: a Paddle program with dynamic N, H and W."""
    channels = {"image": 3, "mask": 1}
    form = [paddle.static.InputSpec([None, n, None, None], "float32", name) for name, n in channels.items()]
    traced = copy.deepcopy(completion)  # Paddle leaves rewritten methods in what it has traced
    traced.eval()
    with silenced(), writable_home():
        paddle.jit.save(traced, path, input_spec=form)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path + ".pdiparams.info")  # of Paddle 2.6, for training on


@contextlib.contextmanager
def writable_home():
    """Paddle traces by way of files in ~/.cache; where that cannot be written a temporary folder is the home."""
    home, cache = os.environ.get("HOME"), os.path.expanduser("~/.cache/paddle")
    with contextlib.suppress(OSError):
        os.makedirs(cache, exist_ok=True)
    if home is None or os.access(cache, os.W_OK):
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HOME"] = folder
        try:
            yield
        finally:
            os.environ["HOME"] = home


@contextlib.contextmanager
def silenced():
    """Keeps what Paddle's C++ code and Python warn of its own code from the terminal."""
    sys.stderr.flush()
    before = os.dup(2)
    with tempfile.TemporaryFile() as sink, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)


@paddle.no_grad()
def largest_difference(completion: Completion, program, height: int, width: int, count: int = 1) -> float:
    """How far a program is from the network it was made of, on random pictures and masks of one size.

    program: called with image and mask as arrays, returns the arrays that `completion` does. Pixels are compared in
    [-1, 1]; offsets by the share of those that differ, as many as 1 in 50 allowed for ties: beyond it, infinity.
    """
    random = np.random.default_rng([height, width])
    image = random.uniform(-1, 1, (count, 3, height, width)).astype(np.float32)
    mask = (random.random((count, 1, height, width)) < 0.02).astype(np.float32)
    mask[:, :, height // 4 : height // 2, width // 4 : width // 2] = 1
    wanted = completion(paddle.to_tensor(image), paddle.to_tensor(mask))
    wanted = [x.numpy() for x in (wanted if isinstance(wanted, (tuple, list)) else [wanted])]
    found = program(image, mask)
    if [x.shape for x in found] != [x.shape for x in wanted]:
        return float("inf")
    if len(wanted) == 3 and (found[2] != wanted[2]).mean() > 0.02:
        return float("inf")
    largest = float(np.max([np.abs(a - b).max() for a, b in zip(found[:2], wanted[:2])]))  # NaN if any is
    return largest if np.isfinite(largest) else float("inf")


def program_file(path: str) -> str:
    """The program that `save_program` wrote for `path`, in a folder that no other Paddle has written to."""
    return next(path + suffix for suffix in PROGRAM_SUFFIXES if os.path.exists(path + suffix))


class Predictor:
    """A saved program in Paddle Inference on the CPU.

    onednn: whether to use oneDNN's kernels. Call with image and mask, float32 arrays as for `Completion`; returns
    the list of its outputs as arrays.
    """

    def __init__(self, path: str, threads: int = 1, onednn: bool = True):
        import paddle.inference as inference  # here, since the network runs without it

        program = program_file(path)
        config = inference.Config(program, path + ".pdiparams")
        config.disable_gpu()
        config.disable_glog_info()
        config.set_cpu_math_library_num_threads(threads)
        if onednn:
            config.enable_mkldnn()
        else:
            config.disable_mkldnn()
        if program.endswith(".json"):
            # Paddle 3 frees memory early only with these
            config.enable_new_ir(True)
            config.enable_new_executor(True)
        config.enable_memory_optim()
        self.engine = inference.create_predictor(config)

    def __call__(self, image: np.ndarray, mask: np.ndarray) -> list[np.ndarray]:
        for name, array in (("image", image), ("mask", mask)):
            self.engine.get_input_handle(name).copy_from_cpu(np.ascontiguousarray(array, dtype=np.float32))
        self.engine.run()
        return [self.engine.get_output_handle(name).copy_to_cpu() for name in self.engine.get_output_names()]
