"""Two processes that train together: the same as one, and the end of one is the end of all."""

from __future__ import annotations

import os
import re
import signal
import time

import numpy as np
import pytest

from tests.faults.harness import Place, assert_same_run, error_lines, fault, wait_until
from utils.checkpoint import load_checkpoint

POISON_RANK_1 = """
inner = train.train_iteration
def poisoned(config, trainer, batches):
    if batches.position == 15 and batches._first:
        following = batches._sample
        nan = np.full((32, 32, 3), np.nan, np.float32)
        batches._sample = lambda number: following(number)._replace(pixels=nan)
    return inner(config, trainer, batches)
train.train_iteration = poisoned
"""
NUDGE_RANK_1 = """
inner = train.train_iteration
def nudged(config, trainer, batches):
    result = inner(config, trainer, batches)
    if batches._first and batches.position == 6:
        bias = trainer.generator.parameters()[1]
        bias.set_value(bias.numpy() + 1)
    return result
train.train_iteration = nudged
"""


def two_places(tmp_path, photos) -> tuple[Place, Place]:
    folders = tmp_path / "one", tmp_path / "two"
    for folder in folders:
        folder.mkdir()
    return Place(folders[0], photos), Place(folders[1], photos)


def gradients(place: Place) -> dict[str, np.ndarray]:
    """Those of the newest checkpoint's last update, from Adam's first moments; beta1 is 0.5.

    Right for the first update; a later one has half of the earlier moments in it, for all alike.
    """
    found = place.checkpoints()
    arrays = load_checkpoint(str(found[max(found)]))[0]
    return {name: 2 * array for name, array in arrays.items() if "/moment1/" in name}


def assert_close(one: Place, two: Place, tolerance: float = 1e-5) -> None:
    ours, theirs = gradients(one), gradients(two)
    assert ours.keys() == theirs.keys()
    differences = {name: np.abs(ours[name] - theirs[name]).max() for name in ours}
    sizes = {name: max(1.0, np.abs(ours[name]).max()) for name in ours}
    worst = max(differences, key=lambda name: differences[name] / sizes[name])
    print(f"largest difference {differences[worst]:.1e} at a gradient of up to {sizes[worst]:.2g}, {worst}")
    assert all(differences[name] <= tolerance * sizes[name] for name in ours), worst
    for iteration, values in one.logged().items():
        assert two.logged()[iteration] == pytest.approx(values, rel=1e-4, abs=1e-4)


def rank_processes(place: Place) -> list[int]:
    return [int(pid) for pid in re.findall(r"launch proc_id:(\d+)", place.output())]


def running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


VARIANTS = {
    "a hole for every sample": ["mask_batch_same=false", "max_delta_shape=[12, 12]"],
    "pytorch dialect": ["dialect=pytorch", "mask_batch_same=false"],
    "mask as channel, mosaic": ["gan_with_mask=true", "mask_type=mosaic", "mosaic_unit_size=4", "num_workers=1"],
    "clipped": ["gradient_clip=true", "gradient_clip_value=0.0001"],
    "coarse stage alone": ["pretrain_coarse_network=true", "mask_batch_same=false"],
}


def compare(tmp_path, photos, *options):
    one, two = two_places(tmp_path, photos)
    options = ["niter=1", "n_critic=1", "batch_size=6", *options]
    one.run(*options)
    two.run(*options, ranks=2)
    for place in (one, two):
        if "mask_type=mosaic" in options:
            place.run_folder = place.folder / "checkpoints/faults/mosaic_run"
    assert_close(one, two)
    assert two.log.exists() or two.run_folder != one.run_folder
    return one, two


@fault("two ranks instead of one process", "equal gradients to 1e-5, penalty included", long=False)
def test_equal(tmp_path, photos):
    one, two = compare(tmp_path, photos)
    assert "2 ranks" in two.log.read_text() and "1 rank;" in one.log.read_text()
    assert two.log.read_text().count("Iter:") == 1
    meta = [load_checkpoint(str(place.checkpoints()[1]))[1] for place in (one, two)]
    assert meta[0]["rng"] == meta[1]["rng"] and meta[0]["position"] == meta[1]["position"] == 2


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
@fault("two ranks instead of one process", "equal gradients to 1e-5, penalty included")
def test_equal_variants(tmp_path, photos, options):
    compare(tmp_path, photos, *options)


@fault("two ranks stopped and resumed", "bit-equal to two ranks never stopped")
def test_resume(tmp_path, photos):
    straight, stopped = two_places(tmp_path, photos)
    straight.run("batch_size=4", "niter=16", ranks=2)
    stopped.run("batch_size=4", "niter=8", ranks=2)
    stopped.run("batch_size=4", "niter=16", "--resume", "latest", "num_workers=1", ranks=2)
    stopped.log.write_text(stopped.log.read_text().replace("/8]", "/16]"))
    assert_same_run(stopped, straight)


@pytest.mark.parametrize(("before", "after"), [(2, 0), (0, 2)], ids=["2 to 1", "1 to 2"])
@fault("a checkpoint of some ranks resumed on others", "goes on with the same batches: equal gradients to 1e-5")
def test_other_ranks(tmp_path, photos, before, after):
    same, other = two_places(tmp_path, photos)
    same.run("batch_size=4", "niter=4", ranks=before)
    other.run_folder.parent.mkdir(parents=True)
    same.run_folder.rename(other.run_folder)
    same.run_folder.symlink_to(other.run_folder)
    options = ["batch_size=4", "n_critic=1", "--resume", str(other.run_folder / "checkpoint_00000004.npz")]
    found = []
    for ranks in (before, after):
        (other.run_folder / "checkpoint_00000005.npz").unlink(missing_ok=True)
        other.run(*options, "niter=5", ranks=ranks)
        found.append((gradients(other), other.logged()[5], load_checkpoint(str(other.checkpoints()[5]))[1]))
    (ours, log, meta), (theirs, other_log, other_meta) = found
    assert all(np.abs(ours[name] - theirs[name]).max() <= 1e-5 * max(1, np.abs(ours[name]).max()) for name in ours)
    assert log == pytest.approx(other_log, rel=1e-4, abs=1e-4)
    assert (meta["position"], meta["rng"]) == (other_meta["position"], other_meta["rng"])


@fault("SIGKILL of one rank", "the other ends within seconds and says why; the launcher ends; resumes bit-equal")
def test_killed_rank(tmp_path, photos):
    straight, place = two_places(tmp_path, photos)
    straight.run("batch_size=4", ranks=2)
    process = place.start("batch_size=4", ranks=2)
    place.wait_for_iteration(process, 6)
    first, second = rank_processes(place)
    os.kill(second, signal.SIGKILL)
    started = time.monotonic()
    wait_until(lambda: not running(first), timeout=10)
    print(f"the other rank ended after {time.monotonic() - started:.1f} s")
    output = place.finish(process, 1)
    print(f"the launcher ended after {time.monotonic() - started:.1f} s")
    errors = set(error_lines(output))
    assert len(errors) == 1 and errors.pop().startswith("rank 0 of 2: another rank has ended or cannot be reached")
    place.run("batch_size=4", "--resume", "latest", ranks=2)
    assert_same_run(place, straight)


@fault("SIGTERM to the launcher, which ends without its ranks", "they finish the iteration, save and end")
def test_terminated_launcher(tmp_path, photos):
    straight, place = two_places(tmp_path, photos)
    straight.run("batch_size=4", ranks=2)
    process = place.start("batch_size=4", ranks=2)
    place.wait_for_iteration(process, 6)
    ranks = rank_processes(place)
    process.terminate()
    process.wait(20)
    wait_until(lambda: not any(running(pid) for pid in ranks), timeout=20)
    assert "stopped after iteration" in place.output() and 6 <= max(place.checkpoints()) < 40
    place.run("batch_size=4", "--resume", "latest", ranks=2)
    assert_same_run(place, straight)


@fault("SIGTERM to one rank", "all ranks stop after the same iteration, saved")
def test_terminated_rank(tmp_path, photos):
    straight, place = two_places(tmp_path, photos)
    straight.run("batch_size=4", ranks=2)
    process = place.start("batch_size=4", ranks=2)
    place.wait_for_iteration(process, 6)
    os.kill(rank_processes(place)[1], signal.SIGTERM)
    output = place.finish(process, 1)
    assert error_lines(output) == []
    assert f"stopped after iteration {max(place.checkpoints())}" in output
    place.run("batch_size=4", "--resume", "latest", ranks=2)
    assert_same_run(place, straight)


@fault("a value that is not finite on one rank alone", "no rank applies the update; the batch of all is listed")
def test_not_finite_on_one_rank(place):
    output = place.run("batch_size=4", patch="import numpy as np" + POISON_RANK_1, ranks=2, code=1)
    assert all(line.startswith("iteration 6, batch 15: not finite") for line in error_lines(output))
    assert len(error_lines(output)) >= 2
    listed = (place.run_folder / "not_finite_00000006.txt").read_text().splitlines()
    assert len([line for line in listed if line.endswith(".png")]) == 4
    assert max(place.checkpoints()) == 4


@fault("ranks whose weights drift apart", "found before the next save; nothing is saved")
def test_drift(place):
    output = place.run("batch_size=4", patch=NUDGE_RANK_1, ranks=2, code=1)
    assert any("the weights of the ranks have drifted apart; nothing was saved" in x for x in error_lines(output))
    assert place.checkpoints() == {}


@fault("a batch that the ranks cannot share", "one line a rank")
def test_uneven_batch(place):
    output = place.run("batch_size=3", ranks=2, code=1)
    assert "batch_size 3 cannot be shared evenly by 2 ranks; make it a multiple of 2" in error_lines(output)
