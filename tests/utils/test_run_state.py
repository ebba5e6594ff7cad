"""Which checkpoint a run resumes from, and whether it fits the run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from trainer import Architecture, Objective, Optimization, Trainer
from utils.checkpoint import CheckpointError, checkpoint_path, load_checkpoint, save_checkpoint
from utils.config import TrainConfig
from utils.run_state import Progress, find_checkpoint, list_digest, restore_run, save_run, training_arrays


def config(resume):
    return TrainConfig(train_data_path="list.txt", resume=resume)


def test_which_checkpoint(tmp_path):
    folder, other = str(tmp_path / "run"), str(tmp_path / "other")
    assert find_checkpoint(config(False), folder, print) is None
    foreign = checkpoint_path(other, 3)
    with pytest.raises(CheckpointError, match="checkpoint_00000003.npz: no such checkpoint; --resume alone takes"):
        find_checkpoint(config(foreign), folder, print)
    save_checkpoint(foreign, {"w": np.zeros(2)}, {})
    assert find_checkpoint(config(foreign), folder, print) == foreign  # a new run from another one's weights
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        find_checkpoint(config("latest"), folder, print)
    for iteration in (5, 10):
        save_checkpoint(checkpoint_path(folder, iteration), {"w": np.zeros(2)}, {})
    assert find_checkpoint(config("latest"), folder, print) == checkpoint_path(folder, 10)
    assert find_checkpoint(config(checkpoint_path(folder, 5)), folder, print) == checkpoint_path(folder, 5)
    for resume in (False, foreign):
        with pytest.raises(CheckpointError, match="already holds a run; resume it with --resume, or"):
            find_checkpoint(config(resume), folder, print)
    Path(checkpoint_path(folder, 10)).write_bytes(b"")
    warnings = []
    assert find_checkpoint(config("latest"), folder, warnings.append) == checkpoint_path(folder, 5)
    assert len(warnings) == 1


def test_list_digest_is_of_names_and_order():
    assert list_digest(["a/1.png", "b/2.png"]) == list_digest(["/x/1.png", "/y/2.png"])
    digests = [list_digest(paths) for paths in (["1", "2"], ["2", "1"], ["1"], ["1", "2", "\udcff"])]
    assert len(set(digests)) == 4 and digests[0].startswith("2-")


def attention_run(contextual_attention, coarse_only=False, updates=0):
    """A configuration and its trainer after some updates of the generator."""
    config = TrainConfig(
        train_data_path="list.txt",
        image_shape=(32, 32, 3),
        mask_shape=(16, 16),
        max_delta_shape=(0, 0),
        contextual_attention=contextual_attention,
        pretrain_coarse_network=coarse_only,
    )
    architecture = Architecture(2, 2, (32, 32), (16, 16), contextual_attention=contextual_attention)
    objective = Objective(gan_loss_alpha=0.0, coarse_only=coarse_only)
    trainer = Trainer(architecture, objective, Optimization(), np.random.default_rng(0))
    mask = np.zeros((1, 1, 32, 32), np.float32)
    mask[:, :, 8:16, 8:16] = 1
    image = np.zeros((1, 3, 32, 32), np.float32)
    for _ in range(updates):
        trainer.train_generator(SimpleNamespace(image=image, mask=mask, box=np.array([[4, 4, 16, 16]])))
    return config, trainer


@pytest.mark.parametrize("before", [True, False])
def test_contextual_attention_stays_as_it_was(tmp_path, before):
    """The weights would fit, but they were trained within another network."""
    path = save_run(*attention_run(before, updates=1), str(tmp_path), Progress(3, 3), {})
    notes = []
    assert restore_run(*attention_run(before), path, {}, notes.append) == Progress(3, 3)
    assert notes == []
    config, trainer = attention_run(not before)
    weights = training_arrays(trainer)
    was, now = str(before).lower(), str(not before).lower()
    with pytest.raises(CheckpointError, match=f"attention: {was} and is another network with {now}: train .*expname"):
        restore_run(config, trainer, path, {}, notes.append)
    unchanged = training_arrays(trainer)
    assert all(np.array_equal(unchanged[name], weights[name]) for name in weights)


def test_a_refinement_not_yet_trained_may_get_or_lose_contextual_attention(tmp_path):
    path = save_run(*attention_run(True, coarse_only=True, updates=1), str(tmp_path), Progress(3, 3), {})
    notes = []
    assert restore_run(*attention_run(False), path, {}, notes.append) == Progress(3, 3)
    assert len(notes) == 1 and "contextual_attention: false" in notes[0]


def test_an_older_checkpoint_had_contextual_attention(tmp_path):
    path = save_run(*attention_run(True, updates=1), str(tmp_path), Progress(3, 3), {})
    arrays, meta = load_checkpoint(path)
    del meta["architecture"]["contextual_attention"]
    save_checkpoint(path, arrays, meta)
    assert restore_run(*attention_run(True), path, {}, pytest.fail) == Progress(3, 3)
    with pytest.raises(CheckpointError, match="contextual_attention: true and is another network"):
        restore_run(*attention_run(False), path, {}, pytest.fail)
