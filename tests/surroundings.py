"""What a test may not leave changed in its process, because the next one would find it so."""

from __future__ import annotations

import ctypes
import locale
import os
import random
import signal
import sys
import threading
import warnings
from pathlib import Path

import cv2
import numpy as np
import paddle
import paddle.inference
import pytest
from PIL import Image

# SIGALRM is pytest-timeout's
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE)
OURS = ("PYTEST_CURRENT_TEST", "PYTEST_VERSION")


def heed_signals() -> None:
    """Undoes what `nohup` and a shell's background do, for this process and for the children it starts.

    There SIGHUP or SIGINT is ignored, and ignored they stay in every child. A handler of our own becomes the
    default in a child; the one for SIGHUP does nothing, so that a run under `nohup` outlives its terminal.
    """
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def seed() -> None:
    """The same global random numbers for every test, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)
    paddle.seed(0)


def refuse_predictors() -> None:
    """Paddle Inference sets the thread counts of OpenMP and MKL, and with them the last bits of all that follows."""

    def refuse(*_):
        pytest.fail("Paddle Inference changes its process: mark the test or its module with own_process")

    paddle.inference.create_predictor = refuse


def restore_environment(wanted: dict[str, str]) -> None:
    for name in os.environ.keys() - wanted.keys() - set(OURS):
        del os.environ[name]
    os.environ.update(wanted)


def read_umask() -> int:
    value = os.umask(0o077)
    os.umask(value)
    return value


def threads(library: str, read: str, restore: str) -> tuple:
    """How the number of threads of a library in Paddle's wheel is read and set; without the library, nothing."""
    path = Path(paddle.__file__).parent / "libs" / library
    if not path.exists():
        return lambda: None, lambda _: None
    loaded = ctypes.CDLL(str(path))
    return getattr(loaded, read), getattr(loaded, restore)


def replace(values: list, wanted: list) -> None:
    values[:] = wanted


MODULES, FILTERS = "the number of modules", "the warnings filters"
SURROUNDINGS = {  # name: how to read and how to restore it
    "the working folder": (os.getcwd, os.chdir),
    "the environment": (lambda: {k: v for k, v in os.environ.items() if k not in OURS}, restore_environment),
    "the signal handlers": (
        lambda: {number: signal.getsignal(number) for number in SIGNALS},
        lambda handlers: [signal.signal(number, handler) for number, handler in handlers.items()],
    ),
    "the blocked signals": (
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, []),
        lambda mask: signal.pthread_sigmask(signal.SIG_SETMASK, mask),
    ),
    "sys.path": (lambda: list(dict.fromkeys(sys.path)), lambda paths: replace(sys.path, paths)),
    "sys.argv": (lambda: list(sys.argv), lambda words: replace(sys.argv, words)),
    FILTERS: (lambda: list(warnings.filters), lambda filters: replace(warnings.filters, filters)),
    "the umask": (read_umask, os.umask),
    "the locale": (lambda: locale.setlocale(locale.LC_ALL), lambda name: locale.setlocale(locale.LC_ALL, name)),
    "running threads": (lambda: sorted(t.name for t in threading.enumerate() if not t.daemon), lambda _: None),
    "OpenMP's threads": threads("libiomp5.so", "omp_get_max_threads", "omp_set_num_threads"),
    "MKL's threads": threads("libmklml_intel.so", "MKL_Get_Max_Threads", "MKL_Set_Num_Threads"),
    "OpenCV's threads": (cv2.getNumThreads, cv2.setNumThreads),
    "NumPy's error state": (np.geterr, lambda state: np.seterr(**state)),
    "Pillow's limit": (lambda: Image.MAX_IMAGE_PIXELS, lambda limit: setattr(Image, "MAX_IMAGE_PIXELS", limit)),
    "Paddle's device": (paddle.get_device, paddle.set_device),
    "Paddle's default type": (paddle.get_default_dtype, paddle.set_default_dtype),
    "Paddle's dynamic mode": (
        paddle.in_dynamic_mode,
        lambda dynamic: paddle.disable_static() if dynamic else paddle.enable_static(),
    ),
    "Paddle's gradients": (paddle.is_grad_enabled, paddle.set_grad_enabled),
}


def read() -> dict[str, object]:
    return {MODULES: len(sys.modules), **{name: read_one() for name, (read_one, _) in SURROUNDINGS.items()}}


def put_back(before: dict[str, object]) -> list[str]:
    """Restores what differs from `before`; a line for each.

    Libraries add filters of warnings when they are first imported: those go, too, but are nobody's fault.
    """
    changed, imported = [], len(sys.modules) != before[MODULES]
    for name, (read_one, restore) in SURROUNDINGS.items():
        try:
            now = read_one()
        except FileNotFoundError as error:  # the working folder is gone
            now = error
        if now != before[name]:
            restore(before[name])
            if name == FILTERS and imported:
                continue
            changed.append(f"{name}: {difference(before[name], now)}")
    return changed


def difference(before: object, now: object) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
        before, now = {key: before.get(key) for key in keys}, {key: now.get(key) for key in keys}
    return f"{before} became {now}"
