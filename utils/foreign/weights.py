"""Names, shapes and layouts of the other DeepFill v1 programs' weights, and their conversion to ours.

* tf1, the authors' release: kernels are H, W, in, out; dense inputs in the order H, W, C; pictures are BGR.
* pytorch, the PyTorch port: our names and layouts, but for the linear weights, which are [out, in].
* predecessor, the earlier Paddle port: our names and layouts.

Here an array's own name is that of our checkpoints, "generator/coarse_generator.conv1.conv.weight". Optimiser states
are not converted. Does not import paddle.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from utils.foreign.arrays import ForeignArray, WeightsError, reading

TF1, PYTORCH, PREDECESSOR = "tf1", "pytorch", "predecessor"
MAX_GENERATOR_CHANNELS, MAX_CRITIC_CHANNELS, MAX_SIDE = 512, 1024, 4096

# What a training snapshot may hold beside the networks. Moments must belong to a variable of the networks.
IGNORED = {
    "Adam moments": re.compile(r"(?P<variable>.+)/Adam(_\d+)?"),
    "powers of Adam's betas": re.compile(r"(.+/)?beta[12]_power(_\d+)?"),
    "step counters and learning rates": re.compile(r"(.+/)?(global_step|lr|learning_rate)"),
    "tables of Paddle's own names": re.compile(r"(.+\.)?StructuredToParameterName@@"),
}
_UPSAMPLED = ("conv13", "conv15", "allconv13", "allconv15")
_CRITICS = {"local_critic": "localD", "global_critic": "globalD"}
_SHOWN = 5  # names in an error message


@dataclass(frozen=True)
class Source:
    """The arrays of another program's file or files, by that program's names."""

    program: str  # "tf1", "pytorch" or "predecessor"
    variables: Mapping[str, ForeignArray]
    files: tuple[str, ...]  # what they come from; messages name the first

    @property
    def dialect(self) -> str:
        return "tf1" if self.program == TF1 else "pytorch"

    @property
    def has_critics(self) -> bool:
        return any(name.startswith(("discriminator/", "localD.", "globalD.")) for name in self.variables)

    def find(self, *names: str) -> tuple[int, ...] | None:
        """The shape, in our layout, of the first of these arrays that is there; names: ours."""
        for name in names:
            array = self.variables.get(foreign_name(self.program, name))
            if array is not None and array.shape:
                return our_shape(self.program, array.shape)
        return None


def foreign_name(program: str, name: str) -> str:
    """The program's name for an array of ours."""
    network, _, parameter = name.partition("/")
    if program != TF1:
        return parameter if network == "generator" else f"{_CRITICS[network]}.{parameter}"
    part, layer = parameter.split(".")[:2]
    kind = "kernel" if parameter.endswith(".weight") else "bias"
    if network != "generator":
        side = network.split("_")[0]
        unit = f"dout_{side}_fc" if part == "linear" else f"discriminator_{side}/{layer}"
        return f"discriminator/{unit}/{kind}"
    if part == "fine_generator" and layer.startswith("conv"):
        layer = f"x{layer}"
    scope = f"{layer}_upsample/{layer}_upsample_conv" if layer in _UPSAMPLED else layer
    return f"inpaint_net/{scope}/{kind}"


def foreign_shape(program: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in which the program keeps an array that has this shape here."""
    if program == TF1 and len(shape) == 4:
        return (*shape[2:], shape[1], shape[0])
    return shape[::-1] if program == PYTORCH and len(shape) == 2 else shape


def our_shape(program: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The inverse of `foreign_shape`."""
    if program == TF1 and len(shape) == 4:
        return (shape[3], shape[2], *shape[:2])
    return foreign_shape(program, shape)


def to_ours(program: str, name: str, array: np.ndarray, grid: int = 1) -> np.ndarray:
    """A program's array in our layout, float32, and for TF1 turned from BGR to RGB.

    name: ours. grid: side of the square feature map that a critic's linear unit sees; its weights only need it.
    """
    array = array.astype(np.float32)
    if program == PYTORCH and array.ndim == 2:
        array = array.T
    if program == TF1:
        if array.ndim == 4:
            array = array.transpose(3, 2, 0, 1)  # [out, in, H, W]
        elif array.ndim == 2:
            array = array.reshape(grid, grid, -1, 1).transpose(2, 0, 1, 3).reshape(-1, 1)  # rows in the order C, H, W
        layer = name.split(".")[1]
        if array.ndim == 4 and layer in ("conv1", "pmconv1"):  # sees the picture, then border and mask
            array = np.concatenate([array[:, 2::-1], array[:, 3:]], axis=1)
        elif layer in ("conv17", "allconv17"):  # makes the picture
            array = array[::-1]
    return np.ascontiguousarray(array)


def describe(source: Source) -> dict[str, Any]:
    """What networks the arrays are for, as a checkpoint's meta says it ("architecture"), from their shapes.

    Without critics their values are the paper's. WeightsError if there is no generator, or no such network.
    """
    with reading(source.files[0]):
        first = "generator/coarse_generator.conv1.conv"
        channels = (source.find(f"{first}.bias", f"{first}.weight") or [0])[0]
        if not channels:
            raise WeightsError(_no_generator(source))
        if channels % 2 or channels > MAX_GENERATOR_CHANNELS:
            limit = f"an even number up to {MAX_GENERATOR_CHANNELS}"
            raise WeightsError(f"its first layer has {channels} channels, which is not {limit}")
        critic_channels, image_side, box_side, sees_mask = 2 * channels, 256, 128, False
        if source.has_critics:
            first = "dis_conv_module.conv1.conv"
            names = [f"{critic}/{first}.{kind}" for critic in _CRITICS for kind in ("bias", "weight")]
            critic_channels = (source.find(*names) or [critic_channels])[0]
            if critic_channels > MAX_CRITIC_CHANNELS:
                raise WeightsError(f"its critics have {critic_channels} channels; at most {MAX_CRITIC_CHANNELS} are")
            last = 8 if source.dialect == "tf1" else 4
            box_side = _side(source, "local_critic", critic_channels * last, box_side)
            image_side = _side(source, "global_critic", critic_channels * 4, image_side)
            kernel = source.find(f"global_critic/{first}.weight")
            sees_mask = kernel is not None and kernel[1:2] == (4,)
    return {
        "generator_channels": channels,
        "critic_channels": critic_channels,
        "image_size": [image_side, image_side],
        "box_size": [box_side, box_side],
        "dialect": source.dialect,
        "critic_sees_mask": sees_mask,
    }


def _no_generator(source: Source) -> str:
    name = foreign_name(source.program, "generator/coarse_generator.conv1.conv.weight")
    if source.has_critics:
        return "holds critics without a generator: name the generator's file first, and this one with --critics"
    return f"holds no generator of the kind {source.program}: it has no {name}, but {_listed(source.variables)}"


def _side(source: Source, critic: str, features: int, default: int) -> int:
    """Side of the square picture that a critic was built for, from its linear unit; features: of its last layer."""
    shape = source.find(f"{critic}/linear.weight")
    if shape is None:  # will be named as missing
        return default
    grid = math.isqrt(shape[0] // features)
    if grid * grid * features != shape[0] or not 1 <= grid <= MAX_SIDE // 16:
        name = foreign_name(source.program, f"{critic}/linear.weight")
        raise WeightsError(
            f"{name} has {shape[0]} inputs, which is no square grid of {features} features; "
            "tf1's local critic ends in 8 x ndf channels, all others in 4 x ndf"
        )
    return 16 * grid


def convert(source: Source, wanted: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, np.ndarray], Counter[str]]:
    """All arrays of our networks, and what was ignored and how often (see IGNORED).

    wanted: the shapes of all arrays of the networks that `describe` describes, by our names. Names, shapes and
    types are compared before any content is read; WeightsError lists what is missing, left over or does not fit.
    """
    expected = {foreign_name(source.program, name): name for name in wanted}
    ignored: Counter[str] = Counter()
    left_over = []
    for name in source.variables:
        if name not in expected:
            rule = _rule(name, expected)
            ignored.update([rule] if rule else [])
            left_over += [] if rule else [name]
    differing = []
    for foreign, name in expected.items():
        array = source.variables.get(foreign)
        shape = foreign_shape(source.program, wanted[name])
        if array is not None and (array.shape != shape or not array.dtype.startswith("float")):
            differing.append(f"{foreign} is {array.dtype} {list(array.shape)}, not float32 {list(shape)}")
    problems = {
        "missing": [name for name in expected if name not in source.variables],
        "left over": left_over,
        "of another shape or type": differing,
    }
    with reading(source.files[0]):
        if any(problems.values()):
            texts = [f"{len(names)} {what}: {_listed(names)}" for what, names in problems.items() if names]
            raise WeightsError(f"does not fit the networks of the dialect {source.dialect}: {'; '.join(texts)}")
        arrays = {}
        for foreign, name in expected.items():
            arrays[name] = to_ours(source.program, name, source.variables[foreign].read(), _grid(name, wanted))
    return arrays, ignored


def _grid(name: str, wanted: Mapping[str, tuple[int, ...]]) -> int:
    """Side of the feature map in front of a linear unit, for its weights; 1 for other arrays."""
    if not name.endswith("/linear.weight"):
        return 1
    features = wanted[name.replace("linear", "dis_conv_module.conv4.conv")][0]
    return math.isqrt(wanted[name][0] // features)


def _rule(name: str, expected: Mapping[str, str]) -> str | None:
    for reason, pattern in IGNORED.items():
        match = pattern.fullmatch(name)
        if match and match.groupdict().get("variable", next(iter(expected))) in expected:
            return reason
    return None


def _listed(names: Any) -> str:
    names = list(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(name[:100] for name in names[:_SHOWN]) + more if names else "nothing"
