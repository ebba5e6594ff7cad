"""What `train.py --dry-run` shows: layers, FLOPs, memory and time as lines of text, and a batch as an image.

Does not import paddle: layers are `models.layer_costs.LayerCost`, or have its fields.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from utils.config import TrainConfig, to_yaml
from utils.logger import Pace, duration
from utils.run_state import learning_rate
from utils.visualization import image_grid, to_uint8, write_image

IMAGE = "dry_run.png"  # the first batch
STATES = 3  # of a weight, in addition to itself: its gradient and Adam's two moments


def show_settings(config: TrainConfig, device: str, paths: Sequence[str], costs: dict, cost: Any) -> None:
    """costs: of each network, by `models.layer_costs.network_costs`; cost: by `training_cost`."""
    print(f"{to_yaml(config)}device: {device}\nimages: {len(paths)} in {config.train_data_path}")
    tables = [line for name, layers in costs.items() for line in layer_table(name, layers)]
    lines = work_lines(cost, config.batch_size, config.n_critic, config.accumulate)
    print("\n".join([*tables, *lines, *untrained_lines(costs["generator"])]))


def show_batch(config: TrainConfig, trainer: Any, batch: Any) -> None:
    write_batch_image(IMAGE, batch.image, *trainer.dry_run_views(batch), config.viz_max_out)
    print(f"first batch: {IMAGE}")


def show_iterations(config: TrainConfig, batches: Any, iterate: Callable[[], dict[str, float]]) -> None:
    """Two of them, timed; batches: a `data.loader.TrainLoader`."""
    for iteration in (1, 2):
        started, pace = time.perf_counter(), Pace(batches, iteration - 1)
        scalars = iterate()
        seconds = time.perf_counter() - started
        print(f"iteration {iteration}: {seconds:.2f} s")
    print(f"{config.niter} iterations like the second: {duration(config.niter * seconds)}")
    print(pace.line(2, config.niter, {**scalars, "lr": learning_rate(config, 2)}))


def layer_table(name: str, layers: Sequence[Any]) -> list[str]:
    """A line a layer and one for the sum; FLOPs of one image."""
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


def work_lines(cost: Any, batch_size: int, n_critic: int, accumulate: int = 1) -> list[str]:
    """FLOPs of the updates, and the memory that they should take. cost: `models.layer_costs.TrainingCost`."""
    critics, generator, iteration = (
        f"{accumulate * batch_size * cost.operations[part] / 1e9:,.1f}"
        for part in ("critics", "generator", "iteration")
    )
    updates = f"{n_critic} critic updates of {critics} + a generator update of {generator}"
    if not cost.operations["critics"]:
        updates = "a generator update without critics"
    of_states = 4 * (1 + STATES) * cost.parameters
    of_layers = batch_size * max(cost.kept.values())
    return [
        f"an iteration, batches of {batch_size * accumulate}: {iteration} GFLOP: {updates}",
        f"estimated memory: {size(of_states + of_layers)} = {size(of_states)} (weights, gradients, Adam's moments) + "
        f"{size(of_layers)} (activations of {batch_size} images), without convolution workspace",
    ]


def untrained_lines(layers: Sequence[Any]) -> list[str]:
    """None, or one that names the convolutions whose outer taps crops of this size cannot train."""
    names = [layer.name for layer in layers if layer.taps_outside]
    if not names:
        return []
    most = max(layer.taps_outside for layer in layers)
    return [
        f"crops too small for {', '.join(names)}: up to {most} of 9 kernel taps only ever see padding, get no "
        "gradient and keep their random initial values, and larger images are inpainted worse for it"
    ]


def measured_line(mebibytes: float | None) -> str:
    """mebibytes: the peak beyond what was taken before, or None where the system does not tell."""
    if mebibytes is None:
        return "measured memory: not on this system"
    return f"measured memory: {size(mebibytes * 2**20)} at the peak, beyond what Paddle took before"


def size(count: float) -> str:
    """A number of bytes for people."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def write_batch_image(path: str, images: np.ndarray, hidden: np.ndarray, boxes: np.ndarray, most: int) -> None:
    """Writes a grid with a row an image: original, what the generator is shown, the local critic's box.

    images, hidden [N,3,H,W] and boxes [N,3,h,w] in [-1, 1]; at most `most` rows. Raises UserError.
    """
    rows = [[to_uint8(x.transpose(1, 2, 0)) for x in row] for row in zip(images[:most], hidden, boxes)]
    write_image(path, image_grid(rows, ("original", "input", "local box")))
