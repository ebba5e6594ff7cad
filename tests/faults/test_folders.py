"""The run's folder: locked, full, not writable, or another run's."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.faults.harness import assert_same_checkpoint, assert_same_run, fault


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file's content; the lock names its last owner and may change."""
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "lock"}


@fault("two runs in one folder", "the second ends with one line that names the first; the first is not disturbed",
       long=False)  # fmt: skip
def test_two_runs(place, reference):
    process = place.start("niter=400", "snapshot_save_iter=40")
    place.wait_for_iteration(process, 2)
    other = subprocess.run(place.command(), cwd=place.folder, capture_output=True, text=True, timeout=60)
    assert other.returncode == 2 and process.poll() is None
    assert other.stderr == (
        f"error: checkpoints/faults/hole_run: another run is using this folder (process {process.pid} on "
        f"{os.uname().nodename}); wait until it has ended, or give the new run a name of its own with expname=NAME\n"
    )
    place.wait_for_iteration(process, 12)
    os.kill(process.pid, signal.SIGTERM)
    place.finish(process, 143)
    found = {k: {**v, "total": 0} for k, v in place.logged().items() if k <= 12}
    assert found == {k: {**v, "total": 0} for k, v in reference.logged().items() if k <= 12}


@fault("the lock of a run that was killed", "is taken over at once")
def test_stale_lock(place, reference):
    process = place.start("num_workers=1")
    place.wait_for_iteration(process, 6)
    process.kill()
    process.wait()
    assert (place.run_folder / "lock").read_text().startswith(f"process {process.pid} on ")
    place.run("--resume", "latest")
    assert_same_run(place, reference)


@fault("a lock file that names a living process, or nonsense", "only the lock counts, not the text: the run starts")
def test_lock_text(place):
    place.run_folder.mkdir(parents=True)
    for text in (f"process {os.getpid()} on here", "\0\n{}" * 1000):
        (place.run_folder / "lock").write_text(text)
        resume = ["--resume"] if place.checkpoints() else []
        place.run(f"niter={4 + 4 * len(resume)}", *resume)
    assert max(place.checkpoints()) == 8


@fault("a new run where there is one already", "one line; nothing is changed")
def test_occupied(place):
    place.run("niter=4")
    before = snapshot(place.run_folder)
    assert "already holds a run; resume it with --resume, or give" in place.refusal("niter=8")
    shutil.copytree(place.run_folder, place.folder / "elsewhere")
    foreign = f"resume={place.folder}/elsewhere/checkpoint_00000004.npz"
    assert "already holds a run" in place.refusal(foreign, "niter=8")
    assert snapshot(place.run_folder) == before


@fault("a run folder that cannot be made", "one line that names it")
def test_unwritable(place):
    (place.folder / "checkpoints").write_text("a file")
    assert place.refusal().startswith("checkpoints/faults/hole_run/lock: cannot be written: Not a directory")


@fault("a file-size limit as a full disk", "one line; the older checkpoint is intact; resumes bit-equal with space")
def test_file_size_limit(place, reference):
    place.run("niter=4")
    size = place.checkpoints()[4].stat().st_size
    before = place.checkpoints()[4].read_bytes()
    limit = (size // 2, size // 2)
    refusal = place.refusal("--resume", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
    assert refusal.endswith("checkpoint_00000008.npz: the checkpoint cannot be written: File too large")
    assert place.checkpoints()[4].read_bytes() == before and place.leftovers() == []
    place.run("--resume", "latest")
    assert_same_checkpoint(place.checkpoints()[40], reference.checkpoints()[40])


@fault("a full disk (a small tmpfs)", "one line; the older checkpoint is intact; resumes bit-equal with space")
def test_full_disk(place, reference):
    disk = place.folder / "checkpoints"
    disk.mkdir()
    size = max(path.stat().st_size for path in reference.checkpoints().values())
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size * 5 // 2}", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        refusal = place.refusal("keep_checkpoints=9")
        assert refusal.endswith("checkpoint_00000012.npz: the checkpoint cannot be written: No space left on device")
        assert sorted(place.checkpoints()) == [4, 8] and place.leftovers() == []
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        place.run("--resume", "latest", "keep_checkpoints=9")
        assert_same_run(place, reference)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@fault("a log on a full disk (/dev/full)", "one line that names the log")
def test_full_log(place):
    place.run_folder.mkdir(parents=True)
    place.log.symlink_to("/dev/full")
    refusal = place.refusal()
    assert refusal.endswith("train.txt: the log cannot be written: No space left on device")


@fault("keep_checkpoint_interval", "the newest checkpoints and every n-th stay")
def test_every_nth(place):
    place.run("keep_checkpoints=2", "keep_checkpoint_interval=12")
    assert sorted(place.checkpoints()) == [12, 24, 36, 40]
    message = "keep_checkpoint_interval must be 0 or a multiple of snapshot_save_iter: 10 is not one of 4"
    assert message in place.refusal("keep_checkpoint_interval=10")


@fault("going on from an earlier checkpoint", "later ones are set aside, not lost, and `latest` is the new course's")
def test_earlier_checkpoint(place, reference):
    place.run("niter=20", "keep_checkpoints=9")
    early = str(place.checkpoints()[8])
    old = place.checkpoints()[20].read_bytes()
    place.run("--resume", early, "lr=0.0002", "niter=14", "keep_checkpoints=1")
    assert list(place.checkpoints()) == [14]
    assert max(place.logged()) == 14
    assert place.run_folder.joinpath("checkpoint_00000020.npz.superseded-1").read_bytes() == old
