"""What a test leaves changed in its process is found and put back; some tests have a process of their own."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import paddle
import paddle.inference
import pytest
from PIL import Image

from tests import own_process, surroundings

PROJECT = Path(__file__).resolve().parents[1]
OPENMP = Path(paddle.__file__).parent / "libs/libiomp5.so"


def ignore_hangups() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


CHANGES = {
    "the working folder": lambda: os.chdir("/"),
    "the environment": lambda: os.environ.update(OMP_NUM_THREADS="7"),
    "the signal handlers": ignore_hangups,
    "the blocked signals": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]),
    "sys.path": lambda: sys.path.insert(0, "/elsewhere"),
    "sys.argv": lambda: sys.argv.append("more"),
    "the warnings filters": lambda: warnings.simplefilter("error"),
    "the umask": lambda: os.umask(0o777),
    "OpenMP's threads": lambda: ctypes.CDLL(str(OPENMP)).omp_set_num_threads(5),
    "NumPy's error state": lambda: np.seterr(all="raise"),
    "Pillow's limit": lambda: setattr(Image, "MAX_IMAGE_PIXELS", None),
    "Paddle's default type": lambda: paddle.set_default_dtype("float64"),
    "Paddle's gradients": lambda: paddle.set_grad_enabled(False),
    "Paddle's dynamic mode": paddle.enable_static,
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_found_and_put_back(name: str) -> None:
    if name == "OpenMP's threads" and not OPENMP.exists():
        pytest.skip("this Paddle was built without MKL")
    before = surroundings.read()
    CHANGES[name]()
    changed = surroundings.put_back(before)
    assert [line.partition(":")[0] for line in changed] == [name]
    assert surroundings.put_back(before) == []


def test_a_thread_that_goes_on_is_found() -> None:
    before, end = surroundings.read(), threading.Event()
    thread = threading.Thread(target=end.wait, name="goes on")
    thread.start()
    try:
        assert ["running threads" in line and "goes on" in line for line in surroundings.put_back(before)] == [True]
    finally:
        end.set()
        thread.join()


def test_values_of_the_environment_are_shown_where_they_differ() -> None:
    assert surroundings.difference({"A": "1", "B": "2"}, {"A": "1", "C": "3"}) == (
        "{'B': '2', 'C': None} became {'B': None, 'C': '3'}"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_ignored_signals_are_heeded(number: int) -> None:
    """As after nohup or in a shell's background; what a test starts must get them, too."""
    program = (
        "import subprocess, sys; from utils.cli import prepare_paddle; prepare_paddle()\n"
        "from tests import surroundings; surroundings.heed_signals()\n"
        f"child = [sys.executable, '-c', 'import os; os.kill(os.getpid(), {int(number)})']\n"
        "print(subprocess.run(child).returncode)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, timeout=120,
        preexec_fn=lambda: signal.signal(number, signal.SIG_IGN),
    )  # fmt: skip
    assert done.stdout.strip() == str(-number), done.stderr


def test_paddle_inference_is_refused_here() -> None:
    with pytest.raises(pytest.fail.Exception, match="own_process"):
        paddle.inference.create_predictor(None)


@pytest.mark.own_process
def test_and_has_a_process_of_its_own() -> None:
    assert own_process.INSIDE
    assert paddle.inference.create_predictor.__module__ != surroundings.__name__


def test_a_child_that_dies_fails_its_tests(tmp_path: Path) -> None:
    """In a folder that has nothing else of the project's; what comes after the death fails, too."""
    (tmp_path / "own_process.py").write_bytes((PROJECT / "tests/own_process.py").read_bytes())
    (tmp_path / "conftest.py").write_text(
        "import own_process\n"
        "def pytest_configure(config): config.pluginmanager.register(own_process.Plugin(config))\n"
    )
    (tmp_path / "test_it.py").write_text(
        "import os, pytest\npytestmark = pytest.mark.own_process\n"
        "def test_passes(): pass\n"
        "@pytest.mark.skip(reason='why')\ndef test_is_skipped(): pass\n"
        "def test_dies(): os._exit(7)\n"
        "def test_after(): pass\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != own_process.REPORTS}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", "-W", "ignore", str(tmp_path)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "2 failed, 1 passed, 1 skipped" in done.stdout, done.stdout
    assert "ended without a report: exit code 7" in done.stdout
