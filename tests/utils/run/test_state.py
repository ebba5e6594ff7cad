"""Which checkpoint a run goes on from, and the seeds after rollbacks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from utils.checkpoint import CheckpointError, checkpoint_path, save_checkpoint
from utils.config import TrainConfig
from utils.run.state import data_seed, find_checkpoint, list_digest


def config(resume):
    return TrainConfig(train_data_path="list.txt", resume=resume)


def test_which_checkpoint(tmp_path):
    folder, other = str(tmp_path / "run"), str(tmp_path / "other")
    assert find_checkpoint(config(False), folder, print) is None
    foreign = checkpoint_path(other, 3)
    assert find_checkpoint(config(foreign), folder, print) == foreign  # a new run from another one's weights
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        find_checkpoint(config("latest"), folder, print)
    for iteration in (5, 10):
        save_checkpoint(checkpoint_path(folder, iteration), {"w": np.zeros(2)}, {})
    assert find_checkpoint(config("latest"), folder, print) == checkpoint_path(folder, 10)
    assert find_checkpoint(config(checkpoint_path(folder, 5)), folder, print) == checkpoint_path(folder, 5)
    for resume in (False, foreign):
        with pytest.raises(CheckpointError, match="already holds a run; go on with --resume, or"):
            find_checkpoint(config(resume), folder, print)
    Path(checkpoint_path(folder, 10)).write_bytes(b"")
    warnings = []
    assert find_checkpoint(config("latest"), folder, warnings.append) == checkpoint_path(folder, 5)
    assert len(warnings) == 1


def test_data_seeds():
    assert data_seed(7, 0) == 7
    seeds = [data_seed(seed, rollbacks) for seed in (7, 8) for rollbacks in range(5)]
    assert len(set(seeds)) == 10 and all(0 <= seed < 2**31 for seed in seeds)
    assert data_seed(7, 3) == seeds[3]


def test_list_digest_is_of_names_and_order():
    assert list_digest(["a/1.png", "b/2.png"]) == list_digest(["/x/1.png", "/y/2.png"])
    digests = [list_digest(paths) for paths in (["1", "2"], ["2", "1"], ["1"], ["1", "2", "\udcff"])]
    assert len(set(digests)) == 4 and digests[0].startswith("2-")
