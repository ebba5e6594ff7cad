"""Which checkpoint a run resumes from, and whether it fits the run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from trainer import Architecture, Objective, Optimization, Trainer
from utils.checkpoint import CheckpointError, checkpoint_path, load_checkpoint, save_checkpoint
from utils.config import TrainConfig, to_yaml
from utils.run_state import (
    Progress,
    changed_keys,
    find_checkpoint,
    learning_rate,
    list_digest,
    restore_run,
    save_run,
    training_arrays,
)


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
    objective = Objective(gan_loss_alpha=0.0, pretrain_coarse_network=coarse_only)
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


def test_what_changed_since_a_checkpoint():
    config = TrainConfig(train_data_path="list.txt")
    assert changed_keys(to_yaml(config), config) == ""
    assert changed_keys(to_yaml(config), dataclasses.replace(config, niter=5, keep_checkpoints=9)) == ""
    other = dataclasses.replace(config, lr=0.5, netG={"ngf": 8})
    assert changed_keys(to_yaml(config), other) == "lr: 0.5; netG: {input_dim: 3, ngf: 8}"
    # a checkpoint of an earlier version: keys of other names, and none for what came since
    old = to_yaml(config).replace("precision: fp32", "amp: float16").replace("cache_mb", "cache_megabytes")
    old = "".join(line + "\n" for line in old.splitlines() if not line.startswith(("hole:", "lr_", "ema", "val_")))
    assert changed_keys(old + "max_rollbacks: 3\n", config) == "precision: fp32"
    assert changed_keys(old, dataclasses.replace(config, precision="fp16")) == ""
    assert changed_keys(None, config) == changed_keys("[", config) == "its own is unknown"
    cosine = dataclasses.replace(config, lr_schedule="cosine", niter=50)
    assert changed_keys(to_yaml(dataclasses.replace(cosine, niter=60)), cosine) == "niter: 50"


def test_the_learning_rate_is_a_function_of_the_iteration():
    constant = TrainConfig(lr=0.5)
    assert {learning_rate(constant, k) for k in (1, 7, 100_000)} == {0.5}
    steps = TrainConfig(lr=0.5, lr_schedule="steps", lr_steps=(10, 20), lr_decay=0.5)
    assert [learning_rate(steps, k) for k in (1, 10, 11, 20, 21, 99)] == [0.5, 0.5, 0.25, 0.25, 0.125, 0.125]
    cosine = TrainConfig(lr=0.5, lr_schedule="cosine", lr_warmup=4, lr_min=0.1, niter=24)
    assert [learning_rate(cosine, k) for k in (1, 2, 4)] == [0.125, 0.25, 0.5]
    assert learning_rate(cosine, 14) == pytest.approx(0.3) and learning_rate(cosine, 24) == pytest.approx(0.1)
    assert learning_rate(cosine, 9) == pytest.approx(0.1 + 0.4 * (1 + 0.5**0.5) / 2)
    falling = [learning_rate(cosine, k) for k in range(4, 25)]
    assert falling == sorted(falling, reverse=True)
