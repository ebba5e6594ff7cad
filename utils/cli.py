"""What every entry script shares: one-line errors, and the way paddle is imported."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import io
import os
import signal
import sys
import warnings
from collections.abc import Iterator


class UserError(Exception):
    """Something the user can put right; its message is one line: UserError(message), or UserError(path, reason)."""

    def __str__(self) -> str:
        return ": ".join([*map(printable, self.args[:-1]), *map(str, self.args[-1:])])

    @property
    def path(self) -> str:
        return self.args[0]

    @property
    def reason(self) -> str:
        return self.args[-1]


def printable(path: object) -> str:
    """A path as it can be printed: line breaks and other unprintable characters escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(path))


def one_line(text: object) -> str:
    """The text of ``text`` on one line: white space joined, unprintable characters escaped."""
    return printable(" ".join(str(text).split()))


@contextlib.contextmanager
def friendly_errors(*exception_types: type[BaseException]) -> Iterator[None]:
    """Ends the program with ``error: <one line>`` and exit code 2 for UserError and the given types.

    Ctrl-C ends it with ``interrupted`` and exit code 130. Every other exception is a defect of the
    program and keeps its traceback.
    """
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except (UserError, *exception_types) as error:
        print(f"error: {one_line(error) or type(error).__name__}", file=sys.stderr)
        sys.exit(2)


def prepare_paddle() -> None:
    """Lets paddle use the CPU well and imports it; what the user has set in the environment stays.

    Memory: see `_keep_freed_memory`.
    Threads: paddle sets OMP_NUM_THREADS to 1 where it is not set; here it becomes the number of cores.
    Vector units: the MKL inside paddle's wheels does not recognise AMD's and falls back to its slowest
    road; told the kind of CPU, matrix products ran 4.5 times and convolutions 2 times faster (see
    docs/performance.md). Intel's are recognised, and the variable is not set there.
    Raises UserError where paddle is not installed.
    """
    set_thread_count()
    _keep_freed_memory()
    kind = _mkl_cpu_type()
    if kind:
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", kind)
    # Paddle 2.6 exports a zlib of its own; libraries loaded after it mix the two and crash on writing a PNG.
    importlib.import_module("cv2")
    # Importing paddle prints advice on threads and compilers, which does not concern anybody here.
    remarks = io.StringIO()
    try:
        with contextlib.redirect_stderr(remarks), warnings.catch_warnings(), _own_signal_handler():
            warnings.filterwarnings("ignore", message="No ccache found")
            importlib.import_module("paddle")
    except ModuleNotFoundError as error:
        if error.name != "paddle":
            raise
        raise UserError("paddle is not installed: run `make setup`, or see the README on installation") from None
    finally:
        known = ("WARNING: OMP_NUM_THREADS set to", "PLEASE USE OMP_NUM_THREADS")
        for line in remarks.getvalue().splitlines():
            if not line.startswith(known):
                print(line, file=sys.stderr)


@contextlib.contextmanager
def _own_signal_handler() -> Iterator[None]:
    """Inside, SIGTERM waits; afterwards it does what it did before. Paddle's handler prints a C++ traceback."""
    before = signal.getsignal(signal.SIGTERM)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _keep_freed_memory() -> None:
    """Tells glibc's allocator to keep large blocks for reuse rather than give them back at once.

    A convolution on the CPU takes and frees work space of up to hundreds of megabytes; having the system map
    and clear it page by page each time cost as much as the arithmetic. The process keeps its peak memory.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-4, 0)  # M_MMAP_MAX: no block gets a mapping of its own
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: the heap does not shrink
        mallopt(-2, 2**26)  # M_TOP_PAD: and grows by 64 MiB at least


def _mkl_cpu_type(cpuinfo: str = "/proc/cpuinfo") -> str | None:
    """MKL's number for the vector units of an AMD CPU: 7 is AVX-512, 5 is AVX2; None for other CPUs."""
    try:
        with open(cpuinfo, encoding="utf-8", errors="replace") as file:
            first = file.read(65536).split("\n\n")[0]
    except OSError:  # not Linux
        return None
    flags = set(first.split())
    if "AuthenticAMD" not in flags:
        return None
    if {"avx512f", "avx512dq", "avx512cd", "avx512bw", "avx512vl"} <= flags:
        return "7"
    return "5" if {"avx2", "fma"} <= flags else None


def set_thread_count() -> int:
    """Lets paddle use every CPU core this process may run on, and returns the number of threads."""
    if not os.environ.get("OMP_NUM_THREADS"):
        # Where it exists (Linux) the affinity knows about taskset and containers, the count does not.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        os.environ["OMP_NUM_THREADS"] = str(cores or 1)
    first_level = os.environ["OMP_NUM_THREADS"].split(",")[0]  # OpenMP allows one number a nesting level
    return int(first_level) if first_level.strip().isdecimal() else 1
