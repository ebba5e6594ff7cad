"""What `train.py --dry-run` shows: layers, operations, memory and time as lines of text, and a batch as a picture.

Does not import paddle: layers are `models.layer_costs.LayerCost`, or have its fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from utils.visualization import image_grid, to_uint8, write_image

STATES = 3  # besides a weight: its gradient and Adam's two moments


def layer_table(name: str, layers: Sequence[Any]) -> list[str]:
    """A line a layer and one for the sum; operations of one picture."""
    heading = f"{name}, layer"
    width = max(len(heading), *(len(layer.name) + 2 for layer in layers))
    lines = [f"{heading:{width}} {'output':>13} {'parameters':>11} {'MFLOP':>10}"]
    for layer in layers:
        shape = "x".join(str(side) for side in layer.shape)
        lines.append(_row("  " + layer.name, width, shape, layer.parameters, layer.operations))
    parameters, operations = (sum(getattr(layer, what) for layer in layers) for what in ("parameters", "operations"))
    return [*lines, _row("  together", width, "", parameters, operations)]


def _row(name: str, width: int, shape: str, parameters: int, operations: float) -> str:
    return f"{name:{width}} {shape:>13} {parameters:>11,} {operations / 1e6:>10,.1f}"


def work_lines(cost: Any, batch_size: int, n_critic: int) -> list[str]:
    """Operations of the updates, and the memory that they should take. cost: `models.layer_costs.TrainingCost`."""
    critics, generator, iteration = (
        f"{batch_size * cost.operations[part] / 1e9:,.1f}" for part in ("critics", "generator", "iteration")
    )
    updates = f"{n_critic} critic updates of {critics} + a generator update of {generator}"
    if not cost.operations["critics"]:
        updates = "a generator update without critics"
    of_states = 4 * (1 + STATES) * cost.parameters
    of_layers = batch_size * max(cost.kept.values())
    return [
        f"operations of an iteration, batches of {batch_size}: {iteration} GFLOP: {updates}",
        f"memory, estimated: {size(of_states + of_layers)} and work space: {size(of_states)} for weights, gradients "
        f"and Adam's moments, {size(of_layers)} kept by the larger update for its backward pass",
    ]


def untrained_lines(layers: Sequence[Any]) -> list[str]:
    """None, or one that names the convolutions whose outer taps crops of this size cannot train."""
    names = [layer.name for layer in layers if layer.taps_outside]
    if not names:
        return []
    most = max(layer.taps_outside for layer in layers)
    return [
        f"not trained by crops so small: up to {most} of 9 weights a channel of {', '.join(names)}; they meet "
        "padding alone and keep their random initial values, and larger pictures are completed worse for it"
    ]


def measured_line(mebibytes: float | None) -> str:
    """mebibytes: the peak beyond what was taken before, or None where the system does not tell."""
    if mebibytes is None:
        return "memory, measured: not on this system"
    return f"memory, measured: {size(mebibytes * 2**20)} at the peak, beyond what Paddle took before"


def size(count: float) -> str:
    """A number of bytes for people."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def duration(seconds: float) -> str:
    """A time for people, in its two largest units."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes else f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def write_batch_picture(path: str, images: np.ndarray, hidden: np.ndarray, boxes: np.ndarray, most: int) -> None:
    """Writes a grid with a row a photograph: original, what the generator is shown, the local critic's box.

    images, hidden [N,3,H,W] and boxes [N,3,h,w] in [-1, 1]; at most `most` rows. Raises OutputError.
    """
    rows = [[to_uint8(x.transpose(1, 2, 0)) for x in row] for row in zip(images[:most], hidden, boxes)]
    write_image(path, image_grid(rows, ("original", "input", "local box")))
