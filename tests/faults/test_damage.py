"""Checkpoints that are damaged, poisoned, foreign or of another configuration."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.faults.harness import Place, assert_same_checkpoint, assert_same_run, error_lines, fault
from tests.faults.test_folders import snapshot
from utils.checkpoint import CheckpointError, load_checkpoint, save_checkpoint

BUILD_OTHERS = "import paddle; others = [paddle.nn.Conv2D(5, 2, 5) for _ in range(3)], paddle.nn.Linear(8, 1)"


@pytest.fixture(scope="session")
def stopped(tmp_path_factory, photos) -> Place:
    """A run that stopped at iteration 20 of 40, with checkpoints of 12, 16 and 20."""
    place = Place(tmp_path_factory.mktemp("stopped"), photos)
    place.run("niter=20")
    place.log.write_text(place.log.read_text().replace("/20]", "/40]"))
    return place


@pytest.fixture
def copy(place, stopped) -> Place:
    """That run, to be spoilt."""
    shutil.copytree(stopped.run_folder, place.run_folder)
    return place


def rewrite(path: Path, change) -> None:
    """Changes the arrays of a checkpoint and writes them as a valid file, also what is not finite."""
    arrays, meta = load_checkpoint(str(path))
    change(arrays)
    isfinite, np.isfinite = np.isfinite, np.ones_like
    try:
        save_checkpoint(str(path), arrays, meta)
    finally:
        np.isfinite = isfinite


def named(copy, output: str, name: str = "checkpoint_00000020.npz") -> str:
    """The one warning, which must name the damaged file."""
    warnings = [line for line in output.splitlines() if line.startswith("warning: skipped ")]
    assert len(warnings) == 1 and name in warnings[0], output
    return warnings[0]


@pytest.mark.parametrize("length", ["0", "1", "100", "half", "all but 1"])
@fault("the newest checkpoint is truncated", "named; the one before is used; ends bit-equal")
def test_truncated(copy, reference, length):
    newest = copy.checkpoints()[20]
    content = newest.read_bytes()
    end = {"half": len(content) // 2, "all but 1": len(content) - 1}.get(length)
    newest.write_bytes(content[: int(length) if end is None else end])
    named(copy, copy.run("--resume", "latest"))
    assert_same_run(copy, reference)
    assert (copy.run_folder / "checkpoint_00000020.npz.superseded-1").exists()


@fault("one flipped byte, at 1,000 positions of a checkpoint", "refused, or without any effect")
def test_flipped_bytes(stopped, tmp_path):
    content = stopped.checkpoints()[20].read_bytes()
    arrays, meta = load_checkpoint(str(stopped.checkpoints()[20]))
    rng, path, refused = np.random.default_rng(5), tmp_path / "x.npz", 0
    for position in np.linspace(0, len(content) - 1, 1000).astype(int):
        damaged = bytearray(content)
        damaged[position] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            found, found_meta = load_checkpoint(str(path))
        except CheckpointError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
            refused += 1
            continue
        assert found_meta == meta and found.keys() == arrays.keys()
        assert all(np.array_equal(found[name], arrays[name]) for name in arrays)
    assert refused > 700  # the rest are fields of the container that mean nothing here, such as dates


@fault("one flipped bit in a weight of the newest checkpoint", "named; the one before is used; ends bit-equal")
def test_flipped_weight(copy, reference):
    newest = copy.checkpoints()[20]
    content = bytearray(newest.read_bytes())
    weight = load_checkpoint(str(newest))[0]["generator/fine_generator.conv3.conv.weight"].tobytes()
    content[content.index(weight) + 7] ^= 1
    newest.write_bytes(content)
    assert "damaged" in named(copy, copy.run("--resume", "latest"))
    assert_same_run(copy, reference)


@fault("all checkpoints damaged", "stops with exit code 2 and never starts afresh; nothing is changed", long=False)
def test_all_damaged(copy):
    for path in copy.checkpoints().values():
        path.write_bytes(path.read_bytes()[:-100])
    before = snapshot(copy.run_folder)
    output = copy.run("--resume", "latest", code=2)
    assert error_lines(output) == [
        "checkpoints/faults/hole_run: none of its 3 checkpoints can be used; see the lines before"
    ]
    assert output.count("warning: skipped") == 3
    assert "already holds a run" in copy.refusal()
    assert snapshot(copy.run_folder) == before


@fault("the newest checkpoint damaged, keep_checkpoints 1", "rotation removes no good one in its favour")
def test_damaged_newest_is_not_kept(copy, reference):
    copy.checkpoints()[20].write_bytes(b"")
    copy.run("--resume", "latest", "keep_checkpoints=1", "niter=18", "snapshot_save_iter=1")
    assert list(copy.checkpoints()) == [18]
    copy.run("--resume", "latest")
    assert_same_checkpoint(copy.checkpoints()[40], reference.checkpoints()[40])


@fault("what a killed save left in the folder", "not taken for a checkpoint; removed")
def test_leftover(copy, reference):
    half = copy.checkpoints()[20].read_bytes()[:5000]
    (copy.run_folder / "checkpoint_00000024.npz.tmp-4711").write_bytes(half)
    (copy.run_folder / "train.txt.tmp-4711").write_bytes(b"Iter: [1/")
    copy.run("--resume", "latest")
    assert_same_run(copy, reference)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@fault("a checkpoint poisoned with a value that is not finite", "named; the one before is used; ends bit-equal")
def test_poisoned(copy, reference, value):
    def change(arrays):
        arrays["generator_optimizer/moment2/fine_generator.conv3.conv.weight"].flat[3] = value

    rewrite(copy.checkpoints()[20], change)
    assert "moment2/fine_generator.conv3" in named(copy, copy.run("--resume", "latest"))
    assert_same_run(copy, reference)


@fault("a checkpoint poisoned with huge finite weights", "the guard stops before any update and any save")
def test_huge_weights(copy):
    def change(arrays):
        for name in arrays:
            if name.startswith("global_critic/"):
                arrays[name] *= np.float32(1e19)

    rewrite(copy.checkpoints()[20], change)
    before = {i: p.read_bytes() for i, p in copy.checkpoints().items()}
    refusal = copy.refusal("--resume", "latest")
    assert refusal.startswith("iteration 21, batch 60: not finite, update not applied: ")
    assert refusal.endswith("the last checkpoint is checkpoints/faults/hole_run/checkpoint_00000020.npz")
    assert {i: p.read_bytes() for i, p in copy.checkpoints().items()} == before


class Trap:
    def __reduce__(self):
        return (os.mkdir, ("sprung",))


@fault("a pickle in a checkpoint's place", "named, not executed; the one before is used; ends bit-equal")
def test_pickle(copy, reference):
    copy.checkpoints()[20].write_bytes(pickle.dumps(Trap()))
    assert "is a pickle" in named(copy, copy.run("--resume", "latest"))
    assert not (copy.folder / "sprung").exists()
    assert_same_run(copy, reference)


@fault("a checkpoint of another width", "one line that says so; nothing is changed")
def test_other_width(copy):
    before = snapshot(copy.run_folder)
    refusal = copy.refusal("--resume", "latest", "netG.ngf=4")
    assert "of another width (2 channels, here 4; see ngf and ndf)" in refusal
    assert snapshot(copy.run_folder) == before


@fault("a checkpoint of the other dialect", "one line; nothing is changed")
def test_other_dialect(copy):
    before = snapshot(copy.run_folder)
    assert "local_critic: weights do not fit" in copy.refusal("--resume", "latest", "dialect=pytorch")
    assert snapshot(copy.run_folder) == before


@fault("resume under a changed configuration that fits", "goes on and says in the log what changed")
def test_changed_configuration(copy):
    copy.run("--resume", "latest", "lr=0.0003", "niter=24")
    notes = [line for line in copy.log.read_text().splitlines() if "the configuration differs" in line]
    assert len(notes) == 1 and "lr: 0.0003" in notes[0] and "beta1" not in notes[0]


@fault("resume with another list of photographs", "goes on and says in the log that the order is another one")
def test_changed_list(copy, photos):
    folder = copy.folder / "more"
    shutil.copytree(photos, folder)
    shutil.copy(folder / "0.png", folder / "00.png")
    copy.run("--resume", "latest", f"train_data_path={folder}", "niter=24")
    notes = [line for line in copy.log.read_text().splitlines() if line.startswith("# photographs differs")]
    assert len(notes) == 1 and ": 8-" in notes[0] and "was 7-" in notes[0]


@fault("resume where layers are built in another order", "every moment goes to its own parameter: ends bit-equal")
def test_build_order(copy, reference):
    copy.run("--resume", "latest", patch=BUILD_OTHERS)
    assert_same_run(copy, reference)


@fault("the torn last line of a killed run's log", "is removed; every iteration is logged once")
def test_torn_log(copy, reference):
    text = copy.log.read_text()
    copy.log.write_text(text + text.splitlines()[-1].replace("[20/", "[21/") + "\nIter: [22/4")
    copy.run("--resume", "latest")
    assert_same_run(copy, reference)


@fault("a checkpoint whose counts are nonsense", "one line")
def test_negative_position(copy):
    newest = copy.checkpoints()[20]
    arrays, meta = load_checkpoint(str(newest))
    for key, value in (("position", -1), ("iteration", "x"), ("rng", {"state": 1})):
        save_checkpoint(str(newest), arrays, {**meta, key: value})
        assert "holds no state of a training run" in copy.refusal("--resume", "latest")
