"""IDX, the format of MNIST: two zeros, a type and a rank, then the extents and the values,
big-endian."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from ravine.errors import InputError

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_bytes(path: Path) -> bytes:
    """The content of a file, unpacked if it is gzip."""
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(str(path), expected="a file that can be read", repair=str(error)) from None


def parse(data: bytes, where: str) -> np.ndarray:
    """The array in the bytes of an IDX file.

    >>> parse(bytes([0, 0, 8, 1, 0, 0, 0, 2, 5, 6]), "two bytes").tolist()
    [5, 6]
    """
    if len(data) < 4 or data[0] or data[1] or data[2] not in _TYPES or not data[3]:
        raise InputError(
            where,
            got=f"the first bytes {data[:4].hex(' ') or '(none)'}",
            expected="the magic number of an IDX file: 00 00, a type (08 to 0e), the number of axes",
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
