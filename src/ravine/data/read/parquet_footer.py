"""What a Parquet file says of its column chunks, read here: pyarrow's own objects of them end the process where
the figures in them do not fit together.

The footer is a structure of Thrift's compact protocol (Apache Thrift, "Thrift Compact protocol encoding"; Apache
Parquet, parquet.thrift), of which six fields are needed.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ravine.errors import InputError
from ravine.storage.bounded import open_file

_MAGIC, _MOST_DEPTH = b"PAR1", 32
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 12
_BYTE_ARRAY = 6  # of the types of columns


@dataclass(frozen=True)
class Chunk:
    """A column's values within a group of rows."""

    column: str
    is_bytes: bool
    values: int
    size: int  # unpacked
    rows: int  # of the group


def chunks(path: Path) -> Iterator[Chunk]:
    """Every column chunk of a file.

    Errors: a footer that is none.
    """
    try:
        found = _Reader(_footer(path)).struct()
        for group in found.get(4, ()):
            for column in group[1]:
                about = column[3]
                name = about[3][0].decode("utf-8", "replace")
                yield Chunk(name, about[1] == _BYTE_ARRAY, about[5], about[6], group[3])
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, struct.error) as error:
        if isinstance(error, InputError):
            raise
        repair = "its footer is damaged"
        raise InputError(str(path), expected="a Parquet file", repair=repair) from None


def _footer(path: Path) -> bytes:
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - 8))
        length, magic = struct.unpack("<I4s", file.read(8))
        if magic != _MAGIC or length > size - 8:
            raise ValueError("no footer")
        file.seek(size - 8 - length)
        return file.read(length)


class _Reader:
    """Structures as dictionaries from the numbers of fields to values."""

    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        if depth > _MOST_DEPTH:
            raise ValueError("too deep")
        found: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._whole()
            kind = head & 15
            found[number] = kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind, depth)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (_TRUE, _FALSE, _BYTE):  # within lists a truth value takes a byte
            return self._byte()
        if kind < _DOUBLE:
            return self._whole()
        if kind == _DOUBLE:
            return self._take(8)
        if kind == _BINARY:
            return self._take(self._size())
        if kind in (_LIST, _SET):
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._size()
            return [self._value(head & 15, depth + 1) for _ in range(count)]
        if kind == _STRUCT:
            return self.struct(depth + 1)
        raise ValueError(f"a value of kind {kind}")  # maps: a footer has none

    def _byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def _size(self) -> int:
        found = shift = 0
        while True:
            byte = self._byte()
            found |= (byte & 127) << shift
            if byte < 128:
                return found
            shift += 7
            if shift > 63:
                raise ValueError("a number of more than 64 bits")

    def _whole(self) -> int:
        coded = self._size()
        return (coded >> 1) ^ -(coded & 1)

    def _take(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            raise ValueError("it ends early")
        self.at += size
        return self.data[self.at - size : self.at]
