"""A lock that lets one process write a directory. It is released when the process ends, however it ends."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from ravine.errors import InputError

_PATIENCE = 2.0  # seconds: a reader that asks whether the lock is held holds it for a moment
_HELD: set[tuple[int, str]] = (
    set()
)  # process and directory: a child does not hold what its parent does


class Lock:
    """The right to write one directory. ``.writer`` is locked; the number of the process that holds
    it is beside it, since a locked file cannot be read on every system."""

    def __init__(self, directory: Path):
        self.directory = directory
        self._lock = FileLock(directory / ".writer", thread_local=False)
        self._number = directory / ".writer-process"

    def take(self) -> None:
        """Take the lock, or keep it.

        Raises: InputError where another process holds it.
        """
        if self._lock.is_locked:
            return
        try:
            with suppress(Timeout):
                self._lock.acquire(timeout=0)
            if not self._lock.is_locked:
                if self._own in _HELD and self._writer() == str(os.getpid()):
                    return  # by another handle of this process
                self._lock.acquire(timeout=_PATIENCE, poll_interval=0.02)
        except Timeout:
            writer = self._writer()
            raise InputError(
                str(self.directory),
                expected="a run that no other process is writing",
                repair=f"wait for process {writer}, or stop it",
            ) from None
        _HELD.add(self._own)
        self._number.write_text(str(os.getpid()), encoding="utf-8")

    def release(self) -> None:
        """Give the lock back, if it is held."""
        if self._lock.is_locked:
            _HELD.discard(self._own)
        self._lock.release()

    @property
    def _own(self) -> tuple[int, str]:
        # the number in the file is not enough: in two containers two processes may have the same
        return os.getpid(), os.path.realpath(self.directory)

    @property
    def taken(self) -> bool:
        """Whether anyone holds the lock."""
        if self._lock.is_locked:
            return True
        if not (self.directory / ".writer").exists():
            return False
        probe = FileLock(self.directory / ".writer", thread_local=False)
        try:
            probe.acquire(timeout=0)
        except Timeout:
            return True
        except (
            OSError
        ) as error:  # of another user, or on a disk that is only read: it cannot be asked
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
        else:
            probe.release()
        return False

    def _writer(self) -> str:
        with suppress(OSError):
            return self._number.read_text(encoding="utf-8") or "unknown"
        return "unknown"
