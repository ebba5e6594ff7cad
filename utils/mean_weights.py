"""The mean of the generators of several checkpoints, of one run as a rule.

With a constant learning rate the weights walk around the place that they tend to; the mean of the last checkpoints is
nearer to it than any one of them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from utils.checkpoint import CheckpointError, list_checkpoints, load_checkpoint, section

# Of a checkpoint's meta: what is needed to build the generator and to say where it comes from.
KEPT = ("architecture", "iteration", "mask_type", "mosaic_unit_size", "coarse_only", "paddle", "photographs")
SAME = ("architecture", "mask_type", "mosaic_unit_size", "coarse_only")
SIZES = ("image_size", "box_size")  # of the architecture: what it was trained at, which may change during a run


def chosen_checkpoints(sources: Sequence[str], last: int | None) -> list[str]:
    """The paths that a command line means: a run's folder and how many of its last checkpoints, or all by name.

    Raises CheckpointError if the two do not fit, or the run has fewer.
    """
    if last is None:
        folders = [source for source in sources if os.path.isdir(source)]
        if folders:
            raise CheckpointError(f"{folders[0]}: a run's folder needs --last K")
        return list(sources)
    if len(sources) > 1 or os.path.isfile(sources[0]):
        raise CheckpointError("--last is of one run's folder; checkpoints given by name are all averaged")
    if last < 1:
        raise CheckpointError(f"--last must be a whole number from 1, not {last}")
    found = [path for _, path in list_checkpoints(sources[0])]
    if len(found) < last:
        raise CheckpointError(f"{sources[0]}: holds {len(found)} checkpoints; {last} are needed")
    return found[-last:]


def mean_path(folder: str, count: int, iteration: int) -> str:
    """Where the mean of a run's `count` checkpoints up to `iteration` is kept."""
    return os.path.join(folder, f"mean_of_{count}_{iteration:08d}.npz")


def is_mean_of(path: str, sources: Sequence[str]) -> bool:
    """Whether the file is there, the mean of just these checkpoints, and made since they were."""
    try:
        times = [os.path.getmtime(source) for source in sources]
        if os.path.getmtime(path) < max(times):
            return False
        return load_checkpoint(path)[1].get("averaged") == [os.path.basename(source) for source in sources]
    except (OSError, CheckpointError):
        return False


def mean_generator(paths: Sequence[str]) -> tuple[dict[str, np.ndarray], dict[str, Any], dict[str, Any]]:
    """The mean of the generators' weights, float32 by "generator/<name>"; its meta; the last checkpoint's meta.

    paths: in the order of their iterations, each once. Raises CheckpointError if they are not, and for a file without
    a generator, or with another network than the first one's.
    """
    sums: dict[str, np.ndarray] = {}
    first: dict[str, Any] = {}
    before = -1
    for path in paths:
        arrays, meta = load_checkpoint(path)
        weights = section(arrays, "generator")
        if not weights:
            raise CheckpointError(f"{path}: holds no generator")
        if not sums:
            first, sums = meta, {name: np.zeros(array.shape) for name, array in weights.items()}
        different = [key for key in SAME if _network(meta.get(key)) != _network(first.get(key))]
        shapes = [{name: array.shape for name, array in part.items()} for part in (weights, sums)]
        if different or shapes[0] != shapes[1]:
            reason = f"{', '.join(different)} differ" if different else "its weights have other names or shapes"
            raise CheckpointError(f"{path}: is of another network than {paths[0]}: {reason}")
        if meta["iteration"] <= before:
            raise CheckpointError(f"{path}: is of iteration {meta['iteration']}, not after the one before it: give "
                                  "every checkpoint once, in the order of their iterations")
        before = meta["iteration"]
        for name, array in weights.items():
            sums[name] += array
    mean = {f"generator/{name}": (total / len(paths)).astype(np.float32) for name, total in sums.items()}
    kept = {key: meta[key] for key in KEPT if key in meta}
    return mean, {**kept, "averaged": [os.path.basename(path) for path in paths]}, meta


def _network(value: Any) -> Any:
    """Without the sizes, which the generator does not depend on."""
    return {key: part for key, part in value.items() if key not in SIZES} if isinstance(value, dict) else value
