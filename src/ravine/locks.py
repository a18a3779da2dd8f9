"""A lock that lets one process write a directory. It goes with the process, however that ends."""

from __future__ import annotations

import os
from pathlib import Path

from ravine.errors import InputError

try:
    import fcntl
except ImportError:  # no advisory locks on this system: nothing then stops two writers
    fcntl = None  # type: ignore[assignment]


class Lock:
    """The right to write one directory; its file holds the writer's process number."""

    def __init__(self, directory: Path):
        self.path = directory / ".writer"
        self._handle: int | None = None

    def take(self) -> None:
        """Take the lock, or keep it; another process that holds it is an InputError."""
        if self._handle is not None or fcntl is None:
            return
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            writer = os.read(handle, 20).decode() or "unknown"
            os.close(handle)
            if writer == str(os.getpid()):
                return
            repair = f"wait for process {writer}, or stop it"
            expected = "a run that no other process is writing"
            raise InputError(str(self.path.parent), expected=expected, repair=repair) from None
        os.truncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        self._handle = handle

    def release(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    @property
    def taken(self) -> bool:
        """Whether anyone holds the lock."""
        if self._handle is not None or fcntl is None or not self.path.exists():
            return self._handle is not None
        handle = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(handle)
        return False
