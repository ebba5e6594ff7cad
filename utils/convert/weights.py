"""Names, shapes and layouts of the other DeepFill v1 implementations' weights, and their conversion to ours.

* tf1, the authors' release: kernels are H, W, in, out; dense inputs in the order H, W, C; images are BGR.
* pytorch, the PyTorch port: our names and layouts, but for the linear weights, which are [out, in].
* predecessor, the Paddle-GI port: our names and layouts.

Here an array's own name is that of our checkpoints, "generator/coarse_generator.conv1.conv.weight". Optimiser states
are not converted. Does not import paddle.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from utils.cli import UserError
from utils.convert.files import PYTORCH, TF1, naming

MAX_GENERATOR_CHANNELS, MAX_CRITIC_CHANNELS, MAX_SIDE = 512, 1024, 4096
CRITICS = ("localD.", "globalD.")
_CRITIC_NAMES = {"local_critic": "localD", "global_critic": "globalD"}
_UPSAMPLED = ("conv13", "conv15", "allconv13", "allconv15")
# What a training snapshot of TF1 may hold alongside the networks. Moments must belong to a variable of theirs.
_IGNORED = {
    "Adam moments": re.compile(r"(?P<variable>.+)/Adam(_\d+)?"),
    "powers of Adam's betas": re.compile(r"(.+/)?beta[12]_power(_\d+)?"),
    "step counters and learning rates": re.compile(r"(.+/)?(global_step|lr|learning_rate)"),
}
# DataParallel and torch.compile put these before a module's name.
_WRAPPER = re.compile(r"(?<![^.])(module|_orig_mod)\.")
_PART = re.compile(r"(?P<owner>(?:.*\.)?)(?P<name>(?:coarse_generator|fine_generator|dis_conv_module|linear)\..+)")


@dataclass(frozen=True)
class Source:
    """The entries of another implementation's file or files, by its names; arrays, or what stands in their places."""

    program: str  # "tf1", "pytorch" or "predecessor"
    variables: Mapping[str, Any]
    files: tuple[str, ...]  # what they come from; messages name the first
    ignored: Mapping[str, int] = field(default_factory=dict)  # what was left out, and how many

    @property
    def dialect(self) -> str:
        return "tf1" if self.program == TF1 else "pytorch"

    @property
    def has_critics(self) -> bool:
        return any(name.startswith(("discriminator/", *CRITICS)) for name in self.variables)

    def find(self, name: str) -> np.ndarray | None:
        """An array by our name, with its axes in our order; None if there is none."""
        array = self.variables.get(foreign_name(self.program, name))
        if not isinstance(array, np.ndarray):
            return None
        if self.program == TF1 and array.ndim == 4:
            return array.transpose(3, 2, 0, 1)  # [out, in, H, W]
        return array.T if self.program == PYTORCH and array.ndim == 2 else array


def networks(entries: Mapping[str, Any]) -> tuple[dict[str, Any], Counter[str]]:
    """The ports' networks out of a file of any form: a state, a table of states, a trainer's, with prefixes or not.

    entries: by dotted name. Returns generator and critics as the ports' trainers name them ("coarse_generator....",
    "localD....", "globalD...."), and what was ignored and how often. What stands beside a generator's parts under
    the same prefix is kept: it must fit. UserError if the file holds several generators.
    """
    found: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    owners: dict[str, str] = {}  # of each network: what precedes its names in the file
    for entry, value in entries.items():
        name = _WRAPPER.sub("", entry)
        match = _PART.fullmatch(name)
        owner = match["owner"] if match else ""
        side = next((critic for critic in CRITICS if critic.removesuffix("D.") in owner.lower()), "")
        if match is None or isinstance(value, str) or ("generator" in match["name"].split(".")[0]) == bool(side):
            rest[name] = value
        elif owners.setdefault(side, owner) != owner or side + match["name"] in found:
            raise UserError(f"holds several networks of a kind, as {entry[:100]}: save one alone")
        else:
            found[side + match["name"]] = value
    start = owners.get("", "-")
    kept = {name: value for name, value in rest.items() if name.startswith(start) and isinstance(value, np.ndarray)}
    others = [rest[name] for name in rest if name not in kept]
    ignored = Counter("names" if isinstance(value, str) else "entries of no network" for value in others)
    return {**found, **(kept if "" in owners else rest)}, ignored


def foreign_name(program: str, name: str) -> str:
    """The implementation's name for an array of ours."""
    network, _, parameter = name.partition("/")
    if program != TF1:
        return parameter if network == "generator" else f"{_CRITIC_NAMES[network]}.{parameter}"
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


def from_tf1(name: str, array: np.ndarray, grid: int = 1) -> np.ndarray:
    """An array of TF1's, its axes in our order already, turned from BGR to RGB and to our order of dense inputs.

    name: ours. grid: side of the square feature map that a critic's linear unit sees; its weights only need it.
    """
    layer = name.split(".")[1]
    if array.ndim == 2:
        return array.reshape(grid, grid, -1, 1).transpose(2, 0, 1, 3).reshape(-1, 1)  # rows in the order C, H, W
    if array.ndim == 4 and layer in ("conv1", "pmconv1"):  # sees the image, then border and mask
        return np.concatenate([array[:, 2::-1], array[:, 3:]], axis=1)
    return array[::-1] if layer in ("conv17", "allconv17") else array  # makes the image


def describe(source: Source) -> dict[str, Any]:
    """What networks the arrays are for, as a checkpoint's meta says it ("architecture"), from their shapes.

    Without critics their values are the paper's. UserError if there is no generator, or no such network.
    """
    with naming(source.files[0]):
        channels = _width(source, "generator/coarse_generator")
        if not channels:
            raise UserError(_no_generator(source))
        if channels % 2 or channels > MAX_GENERATOR_CHANNELS:
            limit = f"an even number up to {MAX_GENERATOR_CHANNELS}"
            raise UserError(f"its first layer has {channels} channels, which is not {limit}")
        critic_channels, image_side, box_side, kernel = 2 * channels, 256, 128, None
        if source.has_critics:
            widths = [_width(source, f"{critic}/dis_conv_module") for critic in _CRITIC_NAMES]
            critic_channels = next(filter(None, widths), critic_channels)
            if critic_channels > MAX_CRITIC_CHANNELS:
                raise UserError(f"its critics have {critic_channels} channels; at most {MAX_CRITIC_CHANNELS} are")
            last = 8 if source.dialect == "tf1" else 4
            box_side = _side(source, "local_critic", critic_channels * last, box_side)
            image_side = _side(source, "global_critic", critic_channels * 4, image_side)
            kernel = source.find("global_critic/dis_conv_module.conv1.conv.weight")
    return {
        "generator_channels": channels,
        "critic_channels": critic_channels,
        "image_size": [image_side, image_side],
        "box_size": [box_side, box_side],
        "dialect": source.dialect,
        "critic_sees_mask": kernel is not None and kernel.shape[1:2] == (4,),
    }


def _width(source: Source, part: str) -> int:
    """Channels of a part's first layer; 0 if it is missing."""
    found = (source.find(f"{part}.conv1.conv.{kind}") for kind in ("bias", "weight"))
    return next((array.shape[0] for array in found if array is not None and array.ndim), 0)


def _no_generator(source: Source) -> str:
    if source.has_critics:
        return "holds critics without a generator: name the generator's file first, and this one with --critics"
    if any(re.search(r"(^|\.)(exp_avg|param_groups|state)(\.|$)", name) for name in source.variables):
        return "holds an optimiser's state, which is not converted: name gen_* (and dis_*) instead"
    name = foreign_name(source.program, "generator/coarse_generator.conv1.conv.weight")
    return f"holds no generator of the kind {source.program}: it has no {name}, but {_listed(source.variables)}"


def _side(source: Source, critic: str, features: int, default: int) -> int:
    """Side of the square image that a critic was built for, from its linear unit; features: of its last layer."""
    weight = source.find(f"{critic}/linear.weight")
    if weight is None or not weight.ndim:  # will be named as missing
        return default
    grid = math.isqrt(len(weight) // features)
    if grid * grid * features != len(weight) or not 1 <= grid <= MAX_SIDE // 16:
        name = foreign_name(source.program, f"{critic}/linear.weight")
        raise UserError(
            f"{name} has {len(weight)} inputs, which is no square grid of {features} features; "
            "tf1's local critic ends in 8 x ndf channels, all others in 4 x ndf"
        )
    return 16 * grid


def convert(source: Source, wanted: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, np.ndarray], Counter[str]]:
    """All arrays of our networks, float32, and what was ignored and how often.

    wanted: the shapes of all arrays of the networks that `describe` describes, by our names. UserError lists what is
    missing, left over or does not fit.
    """
    expected = {foreign_name(source.program, name): name for name in wanted}
    ignored, left_over = Counter(source.ignored), []
    for name in source.variables:
        rule = _rule(name, expected) if source.program == TF1 else None
        if rule:
            ignored[rule] += 1
        elif name not in expected:
            left_over.append(name)
    arrays, differing = {}, []
    for foreign, name in expected.items():
        array = source.find(name)
        if foreign in source.variables and (array is None or array.shape != wanted[name] or array.dtype.kind != "f"):
            value = source.variables[foreign]
            form = type(value).__name__ if array is None else f"{array.dtype} {list(array.shape)}"
            differing.append(f"{foreign} is {form}, not float32 {list(wanted[name])}")
        elif array is not None:
            grid = 1
            if name.endswith("/linear.weight"):
                grid = math.isqrt(len(array) // wanted[name.replace("linear", "dis_conv_module.conv4.conv")][0])
            array = from_tf1(name, array, grid) if source.program == TF1 else array
            arrays[name] = np.ascontiguousarray(array, np.float32)
    problems = {
        "missing": [name for name in expected if name not in source.variables],
        "left over": left_over,
        "of another shape or type": differing,
    }
    if any(problems.values()):
        texts = [f"{len(names)} {what}: {_listed(names)}" for what, names in problems.items() if names]
        with naming(source.files[0]):
            raise UserError(f"does not fit the networks of the dialect {source.dialect}: {'; '.join(texts)}")
    return arrays, ignored


def _rule(name: str, expected: Mapping[str, str]) -> str | None:
    for reason, pattern in _IGNORED.items():
        match = pattern.fullmatch(name)
        if match and match.groupdict().get("variable", next(iter(expected))) in expected:
            return reason
    return None


def _listed(names: Iterable[str], count: int = 5) -> str:
    names = list(names)
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(name[:100] for name in names[:count]) + more if names else "nothing"
