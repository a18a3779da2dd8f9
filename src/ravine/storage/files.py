"""Files that are written whole or not at all, plain data for JSON, and the places that a command may
write to. No torch here."""

from __future__ import annotations

import errno
import json
import math
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ravine.errors import InputError


class atomic:
    """A path to write to. If all went well the file takes the place of ``to`` in one move and is on
    the disk itself; otherwise it vanishes, and what was there before is untouched.

    >>> with atomic(tmp / "notes.txt") as partial:
    ...     _ = partial.write_text("all of it", encoding="utf-8")
    >>> (tmp / "notes.txt").read_text(encoding="utf-8")
    'all of it'
    """

    def __init__(self, to: Path):
        self.to = to

    def __enter__(self) -> Path:
        self.to.parent.mkdir(parents=True, exist_ok=True)
        self.partial = self.to.with_name(f".{self.to.name}.{secrets.token_hex(4)}")
        self.partial.touch(exist_ok=False)
        return self.partial

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self.partial.unlink(missing_ok=True)
            return
        sync(self.partial)
        os.replace(self.partial, self.to)
        sync(self.to.parent)


def sync(path: Path) -> None:
    """Bring a file, or the names in a directory, to the disk itself."""
    if os.name == "nt" and path.is_dir():
        return  # Windows has no handle for a directory, and writes its names at once
    handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_TROUBLES = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EIO: "the disk does not answer",
    errno.EROFS: "the disk may only be read",
    errno.EACCES: "no permission",
    errno.EPERM: "no permission",
    errno.EMFILE: "too many open files",
    errno.ENOTDIR: "a file where a folder is needed",
    errno.EEXIST: "a file is there already",
    errno.EISDIR: "a folder where a file is needed",
    errno.ENAMETOOLONG: "a name that is too long",
    errno.ENOENT: "a folder or a file is gone",
}
_SAYS = {  # SQLite and safetensors give no number
    "database or disk is full": "the disk is full",
    "os error 28": "the disk is full",
    "os error 122": "the disk quota is used up",
    "disk I/O error": "the disk does not answer",
    "os error 5": "the disk does not answer",
    "readonly database": "the disk may only be read",
    "os error 30": "the disk may only be read",
    "unable to open database file": "no permission",
}


def trouble(error: BaseException) -> str | None:
    """What is wrong with the disk or a place on it, in one line; None where the error is of another
    kind.

    >>> trouble(OSError(errno.ENOSPC, "No space left on device", "runs/a"))
    'the disk is full: runs/a'
    """
    if isinstance(error, OSError) and error.errno in _TROUBLES:
        where = (
            f": {os.fsdecode(error.filename)}" if isinstance(error.filename, str | bytes) else ""
        )
        return _TROUBLES[error.errno] + where
    text = str(error)
    if isinstance(error, MemoryError) or "can't allocate memory" in text or "out of memory" in text:
        return f"not enough memory ({' '.join(text.split())[:200]}): a smaller model, batch or data fits"
    found = next((what for says, what in _SAYS.items() if says in text), None)
    return None if found is None else f"{found} ({' '.join(text.split())[:200]})"


def write_text(to: Path, text: str) -> None:
    """Write a text file whole or not at all; what UTF-8 has no form for is written as ``\\udcff``."""
    with atomic(to) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def plain(value: Any) -> Any:
    """Plain data for JSON, which has no NaN and no infinity: they become None. Arrays become
    lists, and what JSON does not know becomes text.

    >>> plain({"loss": float("nan"), 3: (1, Path("a"))})
    {'loss': None, '3': [1, 'a']}
    """
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # an array, a tensor, or one of their numbers
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def to_json(value: Any, indent: int | None = None) -> str:
    """Strict JSON of whatever ``plain`` takes."""
    return json.dumps(plain(value), indent=indent, allow_nan=False)


def new_file(path: Path, option: str = "--out") -> Path:
    """A file that may be written: it does not exist yet, its directory does."""
    if path.exists():
        raise InputError(
            option,
            got=str(path),
            expected="a file that does not exist yet",
            repair=f"name another with {option}",
        )
    if not path.parent.is_dir():
        raise InputError(
            option,
            got=str(path),
            expected="a file in an existing directory",
            repair=f"make {path.parent} first",
        )
    return path


def new_directory(path: Path, option: str = "--out", repair: str = "") -> Path:
    """A directory that may be written: it is new, or it is empty. It is not made here."""
    try:
        taken = path.exists() and any(path.iterdir())
    except OSError as error:  # a file, or a place that may not be read
        expected = "a place for a new directory"
        raise InputError(option, got=str(path), expected=expected, repair=str(error)) from None
    if taken:
        raise InputError(
            option,
            got=str(path),
            expected="a new or empty directory",
            repair=repair or f"name another with {option}",
        )
    return path
