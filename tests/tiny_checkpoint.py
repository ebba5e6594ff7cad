"""A checkpoint of a small untrained generator, made without the trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import paddle

from models.generator import InpaintingGenerator
from utils.checkpoint import checkpoint_path, save_checkpoint


def arrays(channels: int = 4, seed: int = 3, gain: float = 1.0) -> dict[str, np.ndarray]:
    """A generator's arrays under the names that a checkpoint has for them; `gain` multiplies all weights."""
    paddle.seed(seed)
    state = InpaintingGenerator(channels).state_dict()
    return {f"generator/{name}": value.numpy() * np.float32(gain) for name, value in state.items()}


def meta(channels: Any = 4, dialect: Any = "tf1", **changes: Any) -> dict[str, Any]:
    """What train.py writes about a network, as far as inference needs it."""
    return {
        "architecture": {"generator_channels": channels, "dialect": dialect},
        "iteration": 7,
        "mask_type": "hole",
        "mosaic_unit_size": 12,
        "coarse_only": False,
        **changes,
    }


def write(folder: Path, iteration: int = 7, **changes: Any) -> str:
    path = checkpoint_path(str(folder), iteration)
    save_checkpoint(path, arrays(), meta(iteration=iteration, **changes))
    return path
