"""How much memory an Arrow file takes when it is read: what is packed in it unpacks whole, a batch at a time.

The format: messages, each a length, metadata (a flatbuffer, of which four fields are needed here) and a body of
buffers; a packed buffer begins with its size (Apache Arrow columnar format, "Encapsulated message format").
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ravine.errors import InputError
from ravine.storage.bounded import allowance, open_file, too_much

MAGIC = b"ARROW1\0\0"  # before the messages of a file; a stream has none
_DICTIONARY, _BATCH = 2, 3  # kinds of message that hold buffers


def check(path: Path) -> None:
    """Refuse a file of which one message would take far more memory than the file.

    Errors: that; lengths and places that lead out of the file.
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            for needed in _sizes(file, size):
                if needed > allowance(size):
                    raise too_much(str(path), size, allowance(size))
        except (struct.error, ValueError, OverflowError, OSError) as error:
            if isinstance(error, InputError):
                raise
            repair = f"its messages do not fit together ({error})"
            raise InputError(str(path), expected="an Arrow file", repair=repair) from None


def _sizes(file: IO[bytes], size: int) -> Iterator[int]:
    """The bytes of each message once it is unpacked."""
    if file.read(8) != MAGIC:
        file.seek(0)
    while len(head := file.read(4)) == 4:
        (length,) = struct.unpack("<i", head)
        if length == -1:  # the mark of newer files
            (length,) = struct.unpack("<i", file.read(4))
        if length == 0:
            return
        if not 0 < length <= size:
            raise ValueError("a length")
        metadata = file.read(length)
        body = file.tell()
        message = _table(metadata, 0)
        length = _value(metadata, message, 3, "<q")
        if not 0 <= length <= size:
            raise ValueError("a length")
        yield _needed(file, metadata, message, body, length)
        file.seek(body + length)


def _needed(file: IO[bytes], metadata: bytes, message: int, body: int, length: int) -> int:
    kind = _value(metadata, message, 1, "<B")
    if kind not in (_DICTIONARY, _BATCH):
        return length
    batch = _table(metadata, _place(metadata, message, 2))
    if kind == _DICTIONARY:
        batch = _table(metadata, _place(metadata, batch, 1))
    if not _place(metadata, batch, 3):
        return length  # nothing is packed
    buffers, total = _place(metadata, batch, 2), 0
    if not buffers:
        return length
    first = buffers + struct.unpack_from("<I", metadata, buffers)[0]
    for number in range(struct.unpack_from("<I", metadata, first)[0]):
        start, count = struct.unpack_from("<qq", metadata, first + 4 + 16 * number)
        if count >= 8:
            file.seek(body + start)
            (unpacked,) = struct.unpack("<q", file.read(8))
            total += count if unpacked == -1 else max(0, unpacked)
    return total


def _table(data: bytes, place: int) -> int:
    """Where the table lies to which the number at a place leads."""
    return place + struct.unpack_from("<I", data, place)[0]


def _place(data: bytes, table: int, number: int) -> int:
    """Where a field of a table lies; 0: it is left out."""
    names = table - struct.unpack_from("<i", data, table)[0]
    if not 0 <= names < len(data):
        raise ValueError("a table")
    if 4 + 2 * number >= struct.unpack_from("<H", data, names)[0]:
        return 0
    offset = struct.unpack_from("<H", data, names + 4 + 2 * number)[0]
    return table + offset if offset else 0


def _value(data: bytes, table: int, number: int, form: str) -> int:
    place = _place(data, table, number)
    return struct.unpack_from(form, data, place)[0] if place else 0
