"""Files that are written whole or not at all, plain data for JSON, and the places that a command may
write to. No torch here."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ravine.errors import InputError
from ravine.storage.bounded import MOST_SETTINGS, parse_json, read_text


class atomic:
    """A path to write to. If all went well the file takes the place of ``to`` in one move and is on
    the disk itself; otherwise it vanishes, and what was there before is untouched. ``new``: it takes no
    other's place, not even that of one which another process has made in the meantime.

    >>> with atomic(tmp / "notes.txt") as partial:
    ...     _ = partial.write_text("all of it", encoding="utf-8")
    >>> (tmp / "notes.txt").read_text(encoding="utf-8")
    'all of it'
    """

    def __init__(self, to: Path, *, new: bool = False):
        self.to, self.new = to, new

    def __enter__(self) -> Path:
        self.to.parent.mkdir(parents=True, exist_ok=True)
        self.partial = beside(self.to)
        self.partial.touch(exist_ok=False)
        return self.partial

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self.partial.unlink(missing_ok=True)
            return
        try:
            sync(self.partial)
            if self.new:
                _take_free_place(self.partial, self.to)
            else:
                os.replace(self.partial, self.to)
        except BaseException:
            self.partial.unlink(missing_ok=True)
            raise
        sync(self.to.parent)


def _take_free_place(partial: Path, to: Path) -> None:
    try:
        try:
            os.link(partial, to)
        except FileExistsError:
            raise
        except OSError:  # a disk without links: the name is taken first
            os.close(os.open(to, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            os.replace(partial, to)
            return
    except FileExistsError:
        expected = "a file that does not exist yet"
        raise InputError("--out", got=str(to), expected=expected, repair="name another") from None
    partial.unlink()


def name_of_file(text: str, otherwise: str) -> str:
    """A text as a part of a file's name: one that leads to no other folder, and is not too long.

    >>> name_of_file("../runs/a b", "run"), name_of_file("..", "run")
    ('runs-a-b', 'run')
    """
    return re.sub(r"[^\w.-]+", "-", text, flags=re.ASCII).strip("-.")[:80] or otherwise


@contextmanager
def atomic_with_others(to: Path) -> Iterator[Path]:
    """As ``atomic``, for what may write further files beside the one that it is told to write: all of them
    are written apart, and then take their places, the one that was asked for last; none takes another's."""
    to.parent.mkdir(parents=True, exist_ok=True)
    apart = beside(to)
    apart.mkdir()
    try:
        yield apart / to.name
        written = sorted(apart.iterdir(), key=lambda file: file.name == to.name)
        for file in written:
            new_file(to.with_name(file.name))
            sync(file)
        for file in written:
            _take_free_place(file, to.with_name(file.name))
        sync(to.parent)
    finally:
        shutil.rmtree(apart, ignore_errors=True)


def beside(path: Path) -> Path:
    """A hidden name beside a path, for what is to take its place."""
    name = path.name.encode(errors="ignore")[:200].decode(errors="ignore")  # a name has 255 bytes
    return path.with_name(f".{name}.{secrets.token_hex(4)}")


def sync(path: Path) -> None:
    """Bring a file, or the names in a directory, to the disk itself."""
    if os.name == "nt" and path.is_dir():
        return  # Windows has no handle for a directory, and writes its names at once
    handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_LONGEST_NAME = 255  # bytes
_TROUBLES = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file larger than the disk or the limit of this process allows",
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
    "os error 27": "a file larger than the disk or the limit of this process allows",
    "disk I/O error": "the disk does not answer",
    "os error 5": "the disk does not answer",
    "readonly database": "the disk may only be read",
    "os error 30": "the disk may only be read",
    "unable to open database file": "no permission",
}


_NO_MEMORY = (
    "can't allocate memory",
    "out of memory",
    # more bytes than 64 bits count
    "calculation overflowed",
    "multiplication overflow",
    "Overflow when unpacking long",
    "array is too big",
    "Maximum allowed dimension exceeded",
)


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
    if out_of_memory(error):
        said = " ".join(text.split())[:200]
        said = f" ({said})" if said else ""
        return f"not enough memory{said}: a smaller model, batch or data fits"
    found = next((what for says, what in _SAYS.items() if says in text), None)
    return None if found is None else f"{found} ({' '.join(text.split())[:200]})"


def out_of_memory(error: BaseException) -> bool:
    """Whether more memory was asked for than there is.

    >>> out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory")), out_of_memory(OSError())
    (True, False)
    """
    return isinstance(error, MemoryError) or any(says in str(error) for says in _NO_MEMORY)


def write_text(to: Path, text: str, *, new: bool = False) -> None:
    """Write a text file whole or not at all; what UTF-8 has no form for is written as ``\\udcff``."""
    with atomic(to, new=new) as partial:
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


def new_file(path: Path, option: str = "--out", *, parents: bool = False) -> Path:
    """A file that may be written: nothing of its name is there, not even a link, and its directory takes
    new files; with ``parents`` that may have to be made too. Nothing is made here."""
    if os.path.lexists(path):
        raise InputError(
            option,
            got=str(path),
            expected="a file that does not exist yet",
            repair=f"name another with {option}",
        )
    if not parents and not path.parent.is_dir():
        raise InputError(
            option,
            got=str(path),
            expected="a file in an existing directory",
            repair=f"make {path.parent} first",
        )
    _check_place(path, option, "a place for a new file")
    return path


def new_directory(path: Path, option: str = "--out", repair: str = "") -> Path:
    """A directory that may be written: it is new, or it is empty. It is not made here."""
    expected = "a place for a new directory"
    _check_place(path, option, expected)
    try:
        taken = path.is_symlink() or (path.exists() and any(path.iterdir()))
    except OSError as error:  # a file, or a place that may not be read
        raise InputError(option, got=str(path), expected=expected, repair=str(error)) from None
    if taken:
        raise InputError(
            option,
            got=str(path),
            expected="a new or empty directory",
            repair=repair or f"name another with {option}",
        )
    return path


def own_directory(path: Path, mark: str, key: str, option: str = "--out") -> Path:
    """A directory that may be written: as ``new_directory``, or one whose file ``mark`` is a JSON object with
    a list ``key``, which an earlier run of the same command wrote there."""
    _check_place(path, option, "a directory")
    if path.is_dir() and (path / mark).is_file():
        with suppress(InputError):
            found = parse_json(read_text(path / mark, MOST_SETTINGS), mark)
            if isinstance(found, dict) and isinstance(found.get(key), list):
                return path
    return new_directory(path, option)


def _check_place(path: Path, option: str, expected: str) -> None:
    """Refuse a place where nothing can be made: below a file or a link that leads nowhere, in a directory
    that takes no new files, or under too long a name."""
    try:
        here = Path(os.path.abspath(path))
        above = next(each for each in here.parents if os.path.lexists(each))
        new = here.relative_to(above).parts
        if max(len(os.fsencode(part)) for part in new) > _LONGEST_NAME:
            raise OSError(errno.ENAMETOOLONG, "", str(path))
        # it has no name, so that nothing is left whatever happens
        with tempfile.TemporaryFile(dir=above):
            pass
    except (OSError, ValueError) as error:
        repair = trouble(error) or str(error)
        raise InputError(option, got=str(path), expected=expected, repair=repair) from None
