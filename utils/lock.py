"""A run's folder belongs to one process at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import time
from collections.abc import Callable

from utils.cli import UserError, one_line

LOCK_NAME = "lock"
_HELD = (errno.EAGAIN, errno.EACCES)


class RunLock:
    """Holds the folder of a run until it is closed or the process ends, however it ends.

    folder: made if it is missing; the lock is the file "lock" in it, which stays when it is released. The
    system lets go of it with the process, so that a killed run leaves nothing to clean up. wait: seconds to
    wait for a run that is just ending. warn: called with one line where the file system cannot lock; the run is
    then on its own. Raises UserError where the folder is in use or cannot be written.
    """

    def __init__(self, folder: str, warn: Callable[[str], None] = print, wait: float = 3.0) -> None:
        path = os.path.join(folder, LOCK_NAME)
        try:
            os.makedirs(folder, exist_ok=True)
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise UserError(f"{path}: cannot be written: {error.strerror}") from None
        # A lock lives as long as any copy of its handle: forked data workers must not keep it after us.
        os.register_at_fork(after_in_child=self._close_handle)
        deadline = time.monotonic() + wait
        while not self._try_to_lock(path, warn):
            if time.monotonic() > deadline:
                owner = one_line(os.pread(self._handle, 200, 0).decode("utf-8", "replace"))
                self.close()
                raise UserError(
                    f"{folder}: another run is using this folder ({owner or 'unknown'}); wait until it has ended, "
                    "or give the new run a name of its own with expname=NAME"
                )
            time.sleep(0.1)
        os.truncate(self._handle, 0)
        os.pwrite(self._handle, f"process {os.getpid()} on {platform.node()}".encode(), 0)

    def _try_to_lock(self, path: str, warn: Callable[[str], None]) -> bool:
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _HELD:
                return False
            warn(f"{path}: this file system cannot lock files ({error.strerror}): start no second run in this folder")
        return True

    def close(self) -> None:
        """Lets go of the folder; twice does no harm."""
        self._close_handle()

    def _close_handle(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __enter__(self) -> RunLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
