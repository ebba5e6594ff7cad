"""A training run's checkpoints: which one to go on from, what one holds besides arrays, and setting it back."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from utils.checkpoint import (
    CheckpointError,
    checkpoint_path,
    latest_checkpoint,
    list_checkpoints,
    load_checkpoint,
    rotate_checkpoints,
    save_checkpoint,
)
from utils.config import TrainConfig, config_digest, to_yaml
from utils.run.training_state import restore_training, training_arrays

ROLLBACK_STREAM = 12  # second word of the seeds drawn here; train.py and the data streams have others


@dataclass
class Progress:
    """How far a run has come: iterations done, batches used, and returns to a checkpoint with other data."""

    iteration: int = 0
    position: int = 0
    rollbacks: int = 0


def data_seed(seed: int, rollbacks: int) -> int:
    """The seed of the photographs' order and crops and of the holes; another one after each rollback."""
    if rollbacks == 0:
        return seed
    return int(np.random.default_rng([seed, ROLLBACK_STREAM, rollbacks]).integers(2**31))


def find_checkpoint(config: TrainConfig, folder: str, warn: Callable[[str], None]) -> str | None:
    """The checkpoint to go on from, or None for a new run, which must not run over an old one."""
    if config.resume == "latest":
        return latest_checkpoint(folder, warn)
    found = list_checkpoints(folder)
    inside = config.resume and os.path.realpath(os.path.dirname(config.resume)) == os.path.realpath(folder)
    if found and not inside:
        start = "go on with --resume, or give the new one a name with expname=NAME"
        raise CheckpointError(f"{folder}: already holds a run; {start}")
    return config.resume or None


def list_digest(paths: Sequence[str]) -> str:
    """Number and names of the photographs in one word; their folders may change, their order may not."""
    names = "\n".join(os.path.basename(path) for path in paths)
    return f"{len(paths)}-{zlib.crc32(names.encode('utf-8', 'surrogateescape')):08x}"


def weights_digest(trainer: Any) -> int:
    """A CRC-32 of all weights, to compare those of several processes."""
    crc = 0
    for network in trainer.networks().values():
        for value in network.state_dict().values():
            crc = zlib.crc32(np.ascontiguousarray(value), crc)
    return crc


def save_run(config: TrainConfig, trainer: Any, folder: str, progress: Progress, **facts: str) -> str:
    """Writes the checkpoint of an iteration, removes old ones, and returns its path. facts: more for its meta."""
    path = checkpoint_path(folder, progress.iteration)
    meta = {
        **facts,
        **vars(progress),
        "rng": trainer.rng.bit_generator.state,
        # enough to build the networks without a configuration
        "architecture": {**vars(trainer.architecture)},
        "mask_type": config.mask_type,
        "mosaic_unit_size": config.mosaic_unit_size,
        "coarse_only": config.pretrain_coarse_network,
        "config": to_yaml(config),
        "config_digest": config_digest(config),
    }
    save_checkpoint(path, training_arrays(trainer), meta)
    rotate_checkpoints(folder, config.keep_checkpoints, config.keep_every_iter)
    return path


def restore_run(config: TrainConfig, trainer: Any, path: str, note: Callable[[str], None], **facts: str) -> Progress:
    """Sets the trainer to a checkpoint. What differs from then is told to `note`; facts: as given to `save_run`."""
    arrays, meta = load_checkpoint(path)
    try:
        progress = Progress(int(meta["iteration"]), int(meta["position"]), int(meta.get("rollbacks", 0)))
        if min(vars(progress).values()) < 0:
            raise ValueError(f"negative counts {progress}")
        trainer.rng.bit_generator.state = meta["rng"]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: holds no state of a training run: {error}") from None
    _check_attention(config, meta, path)
    for name in restore_training(trainer, arrays, path):
        note(f"{name} is not in {path} and starts fresh")
    if meta.get("config_digest") != config_digest(config):
        changed = changed_settings(meta.get("config"), to_yaml(config))
        note(f"the configuration differs from that of {path}: {changed}")
    for name, value in facts.items():
        if name in meta and meta[name] != value:
            note(f"{name} differs from that of {path}: {value}, was {meta[name]}")
    return progress


def _check_attention(config: TrainConfig, meta: dict[str, Any], path: str) -> None:
    """CheckpointError where the weights would fit but not the network; a refinement not yet trained fits both."""
    architecture = meta.get("architecture")
    trained_with = architecture.get("contextual_attention", True) if isinstance(architecture, dict) else True
    if config.contextual_attention != trained_with and not meta.get("coarse_only"):
        here, there = (str(value).lower() for value in (config.contextual_attention, trained_with))
        raise CheckpointError(
            f"{path}: its refinement was trained with contextual_attention: {there} and is another network with "
            f"{here}: train that from the start, as a run of its own (expname=NAME)"
        )


def changed_settings(before: str | None, now: str) -> str:
    """The lines of a resolved configuration that are not in an earlier one."""
    old = set((before or "").splitlines())
    return "; ".join(line for line in now.splitlines() if line not in old) or "(unknown)"
