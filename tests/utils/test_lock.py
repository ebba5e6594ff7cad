"""One process a folder; the system lets go when it ends."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from utils.cli import UserError
from utils.lock import RunLock

PROJECT = Path(__file__).resolve().parents[2]
HOLD = "import sys, time; from utils.lock import RunLock; lock = RunLock(sys.argv[1]); print(1, flush=True); "


def holder(folder, then="time.sleep(60)"):
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-c", HOLD + then, str(folder)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
    process.stdout.readline()
    return process


def test_held_by_another_process_until_it_is_killed(tmp_path):
    folder = tmp_path / "new" / "run"
    process = holder(folder)
    try:
        with pytest.raises(UserError) as error:
            RunLock(str(folder), wait=0.2)
        assert str(error.value).startswith(f"{folder}: another run is using this folder (process {process.pid} on ")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    with RunLock(str(folder)):
        assert f"process {os.getpid()} on" in (folder / "lock").read_text()
        with pytest.raises(UserError, match=f"process {os.getpid()} on"):
            RunLock(str(folder), wait=0)
    RunLock(str(folder), wait=0).close()


def test_forked_children_do_not_keep_it(tmp_path):
    process = holder(tmp_path, "import os; os.fork() or time.sleep(3); time.sleep(0.5)")
    process.kill()  # the child sleeps on
    process.wait()
    process.stdout.close()
    RunLock(str(tmp_path), wait=1).close()


def test_waits_for_a_run_that_is_ending(tmp_path):
    process = holder(tmp_path, "time.sleep(0.7)")
    RunLock(str(tmp_path), wait=60).close()
    process.wait()
    process.stdout.close()


def test_folders_that_cannot_be_locked(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="lock: cannot be written: File exists"):
        RunLock(str(tmp_path / "file"))
    (tmp_path / "lock").mkdir()
    with pytest.raises(UserError, match="lock: cannot be written: Is a directory"):
        RunLock(str(tmp_path))


def test_without_locks_a_run_warns_and_goes_on(tmp_path, monkeypatch):
    """Some network file systems have none."""

    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    warnings = []
    with RunLock(str(tmp_path), warn=warnings.append):
        assert (tmp_path / "lock").read_text().startswith(f"process {os.getpid()} on ")
    assert len(warnings) == 1 and "lock: this file system cannot lock files (No locks available)" in warnings[0]
