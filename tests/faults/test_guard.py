"""Values that are not finite, and what comes near to making them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tests.faults.harness import fault
from tests.faults.test_damage import copy, rewrite, stopped  # noqa: F401
from utils.checkpoint import load_checkpoint

# critics without their penalty at a huge step: their scores pass 1e20 after some 70 iterations
DIVERGE = ["lr=1.0", "wgan_gp_lambda=0", "n_critic=5", "niter=400", "snapshot_save_iter=1"]
# weights that a lucky check of the losses would let through
HIDE_NAN = """
inner = train.train_iteration
def poisoned(config, trainer, batches):
    result = inner(config, trainer, batches)
    if batches.position == 18:
        bias = trainer.generator.fine_generator.pmconv6.conv.bias
        bias.set_value(bias.numpy() * float("nan"))
    return result
train.train_iteration = poisoned
"""


def report(place, iteration):
    lines = (place.run_folder / f"not_finite_{iteration:08d}.txt").read_text().splitlines()
    return [line for line in lines if line.startswith("#")], [line for line in lines if not line.startswith("#")]


@fault("a training that diverges (learning rate 1)", "stops before the update; scalars and photographs are listed; "
       "the last checkpoint is good")  # fmt: skip
def test_divergence(place):
    refusal = place.refusal(*DIVERGE)
    iteration = max(place.checkpoints()) + 1
    assert refusal.startswith(f"iteration {iteration}, batch ") and ": not finite, update not applied: " in refusal
    assert "the iteration before: wgan_d " in refusal
    path = f"checkpoints/faults/hole_run/not_finite_{iteration:08d}.txt"
    assert f"the batch's images are listed in {path}" in refusal
    assert refusal.endswith(f"the last checkpoint is checkpoints/faults/hole_run/checkpoint_{iteration - 1:08d}.npz")
    notes, photographs = report(place, iteration)
    assert len(notes) == 3 and "not finite" in notes[0]
    assert len(photographs) == 2 and all(path.endswith(".png") for path in photographs)
    for checkpoint in place.checkpoints().values():
        load_checkpoint(str(checkpoint))


@fault("NaN that a ReLU hides from losses and gradients", "refused at the next save; the older checkpoint is intact",
       long=False)  # fmt: skip
def test_hidden_nan(place):
    refusal = place.refusal(patch=HIDE_NAN)
    assert refusal.endswith("checkpoint_00000008.npz: not saved: generator/fine_generator.pmconv6.conv.bias "
                            "holds values that are not finite")  # fmt: skip
    assert list(place.checkpoints()) == [4]


@fault("photographs that are all black (zero patches)", "finite training")
def test_zero_patches(place):
    folder = place.folder / "black"
    folder.mkdir()
    cv2.imwrite(str(folder / "black.png"), np.zeros((40, 40, 3), np.uint8))
    cv2.imwrite(str(folder / "grey.png"), np.full((40, 40, 3), 127, np.uint8))
    for dialect in ("tf1", "pytorch"):
        place.run(f"train_data_path={folder}", f"dialect={dialect}", f"expname={dialect}", "niter=8")


@pytest.mark.parametrize("network", ["local_critic", "global_critic", "generator"])
@fault("a network whose weights are all zero (zero slope)", "finite training")
def test_zero_slope(copy, network):  # noqa: F811
    def change(arrays):
        for name in arrays:
            if name.startswith(f"{network}/"):
                arrays[name][...] = 0

    rewrite(copy.checkpoints()[20], change)
    copy.run("--resume", "latest", "niter=24")
    assert max(copy.checkpoints()) == 24
