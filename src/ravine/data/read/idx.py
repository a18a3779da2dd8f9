"""IDX, the format of MNIST: two zeros, a type and a rank, then the extents and the values,
big-endian."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from ravine.errors import InputError
from ravine.storage.bounded import read_bytes as read_bytes_of
from ravine.storage.bounded import unpacked

MOST_AXES = 8
_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_bytes(path: Path) -> bytes:
    """The content of a file, unpacked if it is gzip."""
    return unpacked(read_bytes_of(path), str(path))


def parse(data: bytes, where: str) -> np.ndarray:
    """The array in the bytes of an IDX file.

    >>> parse(bytes([0, 0, 8, 1, 0, 0, 0, 2, 5, 6]), "two bytes").tolist()
    [5, 6]
    """
    if len(data) < 4 or data[0] or data[1] or data[2] not in _TYPES or not 0 < data[3] <= MOST_AXES:
        raise InputError(
            where,
            got=f"the first bytes {data[:4].hex(' ') or '(none)'}",
            expected=f"the magic number of an IDX file: 00 00, a type (08 to 0e), the number of axes (at most {MOST_AXES})",
        )
    kind, rank = np.dtype(_TYPES[data[2]]), data[3]
    if len(data) < 4 + 4 * rank:
        raise InputError(
            where,
            got=f"{len(data)} bytes",
            expected=f"a header of {4 + 4 * rank} bytes",
            repair="the file is truncated",
        )
    shape = np.frombuffer(data, ">u4", rank, 4).tolist()
    if 0 in shape:
        raise InputError(where, got=f"shape {shape}", expected="at least one value")
    expected = 4 + 4 * rank + math.prod(shape) * kind.itemsize
    if len(data) != expected:
        raise InputError(
            where,
            got=f"{len(data):,} bytes",
            expected=f"{expected:,} bytes for shape {shape}",
            repair="the file is truncated" if len(data) < expected else "the file is too long",
        )
    array = np.frombuffer(data, kind, offset=4 + 4 * rank).reshape(shape)
    return array.astype(kind.newbyteorder("="))
