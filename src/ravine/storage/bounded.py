"""Files that somebody else may have made, read within limits: regular files only, sizes and depths
that the message names, memory in proportion to the file. Every reader begins here; no torch.

What is packed may unpack to ``ALLOWANCE`` bytes and ``RATIO`` times the size of its file.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import stat
import tomllib
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

from ravine.errors import InputError, first_line

MIB = 1 << 20
MOST_BYTES = 64 << 30  # of a file of data that is read whole
MOST_TEXT = 4 << 30  # of a text
MOST_SETTINGS = 256 * MIB  # of a file that describes a run: it may hold thousands of recipes
MOST_RECIPE = MIB
MOST_DEPTH = 40  # of tables and lists within one another
MOST_DIGITS = 300  # of a whole number, which a float still holds
ALLOWANCE, RATIO = 64 * MIB, 32
_LONG_WHOLE = re.compile(f"[0-9]{{{MOST_DIGITS + 1}}}")
_END_OF_WHOLES = 10**MOST_DIGITS
_DEEP_KEY = re.compile(
    r"""(?:^|[\[{,])[ \t]*(?:(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*){40}""",
    re.MULTILINE,
)


# --- files ----------------------------------------------------------------------------------------


def open_file(
    path: str | os.PathLike[str], most: int = MOST_BYTES, where: str = ""
) -> io.BufferedReader:
    """A regular file of at most ``most`` bytes, open for reading.

    Errors: a folder, a device, a pipe or a socket (none is waited for), more bytes, no such file.
    """
    where = where or str(path)
    try:
        # a pipe that nobody writes to opens at once, and is then refused
        handle = os.open(
            path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        )
    except (OSError, ValueError) as error:  # ValueError: a zero in the name
        raise unreadable(where, error) from None
    try:
        found = os.fstat(handle)
        check_file(found, where, most)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def check_file(found: os.stat_result, where: str, most: int) -> None:
    """Refuse what is no regular file, and one that is too large."""
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a device, a pipe or a socket"
        raise InputError(where, got=f"no regular file: {kind}", expected="a regular file")
    if found.st_size > most:
        raise InputError(
            where, got=amount(found.st_size), expected=f"a file of at most {amount(most)}"
        )


def read_bytes(path: str | os.PathLike[str], most: int = MOST_BYTES, where: str = "") -> bytes:
    """The content of a regular file."""
    where = where or str(path)
    with open_file(path, most, where) as file:
        try:
            return file.read(os.fstat(file.fileno()).st_size)
        except OSError as error:
            raise unreadable(where, error) from None


def read_text(
    path: str | os.PathLike[str], most: int = MOST_TEXT, where: str = "", encoding: str = "utf-8"
) -> str:
    """The content of a regular file in UTF-8; "utf-8-sig" passes over a byte order mark."""
    where = where or str(path)
    try:
        return read_bytes(path, most, where).decode(encoding)
    except UnicodeDecodeError as error:
        repair = f"save it as UTF-8 ({error})"
        raise InputError(where, expected="text in UTF-8", repair=repair) from None


def exists(path: Path) -> bool:
    """Whether anything lies at a path; nothing does where no name may be as it is."""
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that is too long, a zero in it, a folder that is locked
        return False


def unreadable(where: str, error: Exception) -> InputError:
    text = getattr(error, "strerror", None) or str(error)
    return InputError(where, expected="a file that can be read", repair=text)


def amount(size: int) -> str:
    """Bytes in words.

    >>> amount(5 << 20), amount(300)
    ('5.0 MiB', '300 bytes')
    """
    for unit, name in ((1 << 30, "GiB"), (MIB, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size / unit:,.1f} {name}"
    return f"{size} bytes"


# --- what is packed -------------------------------------------------------------------------------


def allowance(packed: int) -> int:
    """How many bytes may come out of so many packed ones."""
    return ALLOWANCE + RATIO * packed


def unpacked(data: bytes, where: str, most: int = MOST_BYTES) -> bytes:
    """The bytes within gzip; what is not packed comes back as it is."""
    if data[:2] != b"\x1f\x8b":
        return data
    limit = min(most, allowance(len(data)))

    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
            content = packed.read(limit + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            where, got="a damaged gzip file", expected="one that can be unpacked", repair=str(error)
        ) from None
    if len(content) > limit:
        raise too_much(where, len(data), limit)
    return content


def too_much(where: str, packed: int, limit: int, ratio: int = RATIO) -> InputError:
    """The error for what would take far more memory than its file."""
    return InputError(
        where,
        got=f"a packed file of {amount(packed)} that unpacks to more than {amount(limit)}",
        expected=f"at most {ratio} times its size and {amount(ALLOWANCE)}",
        repair="store it unpacked, or in parts",
    )


def open_zip(file: IO[bytes], where: str) -> zipfile.ZipFile:
    """A zip archive whose members unpack to no more than the allowance in all."""
    size = os.fstat(file.fileno()).st_size
    try:
        archive = zipfile.ZipFile(file)
        total = sum(member.file_size for member in archive.infolist())
    except Exception as error:  # a damaged directory fails in many ways
        raise InputError(
            where, got="a damaged archive", expected="a zip archive", repair=first_line(error)
        ) from None
    if total > allowance(size):
        raise too_much(where, size, allowance(size))
    return archive


def member_of(archive: zipfile.ZipFile, name: str, where: str) -> bytes:
    """The content of a member, at most as much as the archive's directory says."""
    try:
        size = archive.getinfo(name).file_size
        with archive.open(name) as file:
            content = file.read(size + 1)
        if len(content) != size:
            raise zipfile.BadZipFile(f"{name}: {len(content)} bytes instead of {size}")
    except Exception as error:  # unknown packing, a password, wrong sums, wrong offsets
        raise InputError(
            where,
            got="a damaged archive",
            expected="one that can be read",
            repair=first_line(error),
        ) from None
    return content


# --- settings -------------------------------------------------------------------------------------


def parse_json(text: str, where: str) -> Any:
    """JSON of at most MOST_DEPTH levels, its whole numbers of at most MOST_DIGITS digits."""
    try:
        # a function for each number takes seconds for a million of them
        found = json.loads(text, parse_int=_whole if _LONG_WHOLE.search(text) else None)
    except (ValueError, RecursionError) as error:
        raise _not(where, "JSON", error) from None
    return shallow(found, where)


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """TOML of at most MOST_DEPTH levels, its whole numbers of at most MOST_DIGITS digits."""
    if len(text) > MOST_RECIPE or _DEEP_KEY.search(text):
        got = amount(len(text)) if len(text) > MOST_RECIPE else "a name of over 40 parts"
        raise InputError(where, got=got, expected=f"TOML of at most {amount(MOST_RECIPE)}")
    try:
        found = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise _not(where, "TOML", error) from None
    return shallow(found, where)


def shallow(found: Any, where: str) -> Any:
    """The same plain data, if it is not too deep and none of its whole numbers too long."""
    level, depth = [found], 0
    while level:
        if depth > MOST_DEPTH:
            expected = f"at most {MOST_DEPTH} tables and lists within one another"
            raise InputError(where, got="more levels", expected=expected)
        inner: list[Any] = []
        for value in level:
            kind = type(
                value
            )  # exactly what parsers make: millions of values in less than a second
            if kind is dict:
                inner.extend(value.values())
            elif kind is list:
                inner.extend(value)
            elif kind is int and not -_END_OF_WHOLES < value < _END_OF_WHOLES:
                expected = f"at most {MOST_DIGITS} digits"
                raise InputError(where, got="a longer whole number", expected=expected)
        level, depth = inner, depth + 1
    return found


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a whole number of {len(digits)} digits; at most {MOST_DIGITS} are read")
    return int(digits)


def _not(where: str, form: str, error: BaseException) -> InputError:
    if isinstance(error, RecursionError):
        got = f"tables and lists within one another, over {MOST_DEPTH} deep"
        return InputError(where, got=got, expected=f"{form} of at most {MOST_DEPTH} levels")
    return InputError(where, expected=form, repair=first_line(error))
