"""Training runs as a user starts them: real processes, real signals, and what they leave on the disk."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from utils.checkpoint import list_checkpoints, load_checkpoint
from utils.logger import parse_line

PROJECT = Path(__file__).resolve().parents[2]
CONFIG = """\
dataset_name: faults
expname: run
train_data_path: photos
val_data_path: photos
image_shape: [32, 32, 3]
mask_shape: [16, 16]
max_delta_shape: [4, 4]
batch_size: 2
num_workers: 0
netG: {input_dim: 3, ngf: 2}
netD: {input_dim: 3, ndf: 2}
n_critic: 2
niter: 40
print_iter: 1
viz_iter: 1000
viz_max_out: 1
snapshot_save_iter: 4
"""
DRIVER = """\
import os, signal, sys, time
sys.path.insert(0, {project!r})
import train
{patch}
sys.exit(train.main(sys.argv[1:]))
"""


def fault(name: str, expected: str, long: bool = True):
    """Names a test as a fault of the table in docs/faults.md. long: only in the full run (`make test-faults`)."""

    def mark(test):
        test = pytest.mark.fault(name, expected)(test)
        return pytest.mark.faults(test) if long else test

    return mark


class Place:
    """A working folder with photographs and a configuration, and the runs in it."""

    def __init__(self, folder: Path, photos: Path) -> None:
        self.folder = folder
        (folder / "photos").symlink_to(photos)
        (folder / "config.yaml").write_text(CONFIG)
        self.run_folder = folder / "checkpoints/faults/hole_run"
        self.log = self.run_folder / "train.txt"

    def command(self, *arguments: str, patch: str = "", ranks: int = 0) -> list[str]:
        script = str(PROJECT / "train.py")
        if patch:
            script = str(self.folder / "driver.py")
            Path(script).write_text(DRIVER.format(project=str(PROJECT), patch=patch))
        launcher = ["-m", "paddle.distributed.launch", "--nproc_per_node", str(ranks), "--backend", "gloo"]
        ours = [script, "--config", "config.yaml", "--device", "cpu", *arguments]
        return [sys.executable, *(launcher if ranks else []), *ours]

    def start(self, *arguments: str, **options) -> subprocess.Popen:
        """Starts a run in the background, in a process group of its own; what it prints goes to output()."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **options.pop("environment", {})}
        prepare = options.pop("preexec_fn", None)
        with open(self.folder / "output", "wb") as output:
            return subprocess.Popen(
                self.command(*arguments, **options),
                cwd=self.folder, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True, env=environment, preexec_fn=prepare,
            )  # fmt: skip

    def run(self, *arguments: str, code: int = 0, timeout: float = 120, **options) -> str:
        """Runs to the end, which must be with this exit code and without a traceback; what it printed."""
        return self.finish(self.start(*arguments, **options), code, timeout)

    def finish(self, process: subprocess.Popen, code: int | None = 0, timeout: float = 120) -> str:
        try:
            found = process.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise AssertionError(f"hangs after:\n{self.output()}") from None
        output = self.output()
        assert "Traceback" not in output, output
        assert code is None or found == code, f"exit code {found} after:\n{output}"
        return output

    def output(self) -> str:
        """What the last run printed, and the other ranks of a launched one."""
        texts = [(self.folder / "output").read_text(errors="replace")]
        texts += [path.read_text(errors="replace") for path in sorted(self.folder.glob("log/workerlog.*"))]
        return "\n".join(texts)

    def refusal(self, *arguments: str, **options) -> str:
        """The one line of a run that ends in an error, without "error: "."""
        lines = [line for line in self.run(*arguments, code=2, **options).splitlines() if "error: " in line]
        assert len(lines) == 1, lines
        return lines[0].partition("error: ")[2]

    def wait_for_iteration(self, process: subprocess.Popen, iteration: int) -> None:
        wait_until(lambda: any(i >= iteration for i in self.logged()), process)

    def logged(self) -> dict[int, dict]:
        """The log's lines by iteration, without the speed; every iteration may be there only once."""
        if not self.log.exists():
            return {}
        values = [parse_line(line) for line in self.log.read_text().splitlines()]
        values = [value for value in values if value and value.pop("speed", None) is not None]
        assert len({value["iteration"] for value in values}) == len(values)
        return {value["iteration"]: value for value in values}

    def checkpoints(self) -> dict[int, Path]:
        return {iteration: Path(path) for iteration, path in list_checkpoints(str(self.run_folder))}

    def leftovers(self) -> list[str]:
        return [name for name in os.listdir(self.run_folder) if ".tmp-" in name]


def wait_until(condition: Callable[[], bool], process: subprocess.Popen | None = None, timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "never came"
        assert process is None or process.poll() is None, "the run ended before"
        time.sleep(0.01)


def assert_same_checkpoint(found: Path, expected: Path, but: Sequence[str] = ()) -> None:
    """Weights, optimiser states, random state and data position are equal to the last bit."""
    (arrays, meta), (wanted, wanted_meta) = load_checkpoint(str(found)), load_checkpoint(str(expected))
    assert arrays.keys() == wanted.keys()
    assert [name for name in arrays if not np.array_equal(arrays[name], wanted[name])] == []
    for key in {"iteration", "position", "rng", "config_digest"} - set(but):
        assert meta[key] == wanted_meta[key], key


def assert_same_run(found: Place, expected: Place) -> None:
    """The newest checkpoints are bit-equal, and so is every logged scalar of every iteration."""
    mine, theirs = found.checkpoints(), expected.checkpoints()
    assert max(mine) == max(theirs)
    assert_same_checkpoint(mine[max(mine)], theirs[max(theirs)])
    assert found.logged() == expected.logged()
    assert found.leftovers() == []


def error_lines(output: str) -> list[str]:
    return re.findall(r"error: (.*)", output)
