"""npz and npy files -> arrays, without pickle: a header says no more than its bytes hold."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np

from ravine.errors import InputError, first_line
from ravine.storage import bounded

MOST_AXES = 8


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz file, or of an npy file as "x"; nothing is unpickled."""
    with bounded.open_file(path, where=path.name) as file:
        head = file.read(6)
        file.seek(0)
        if head.startswith(b"\x93NUMPY"):
            return {"x": parse_array(file.read(), path.name)}
        if not head.startswith(b"PK"):
            raise InputError(
                path.name,
                got="a file of another format",
                expected="an npz file: arrays saved by numpy.savez",
            )
        with bounded.open_zip(file, path.name) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            return {
                name.removesuffix(".npy"): parse_array(
                    bounded.member_of(archive, name, path.name), f"{path.name}: {name}"
                )
                for name in names
            }


def parse_array(data: bytes, where: str) -> np.ndarray:
    """The array in the bytes of an npy file: its header says no more than the bytes hold."""
    form, file = np.lib.format, io.BytesIO(data)
    try:
        major, _ = form.read_magic(file)
        header = form.read_array_header_1_0 if major == 1 else form.read_array_header_2_0
        shape, fortran, dtype = header(file)
    except Exception as error:  # the header is Python source: it fails in many ways
        raise InputError(
            where, got="a damaged array", expected="one saved by numpy", repair=first_line(error)
        ) from None
    if dtype.hasobject:
        raise InputError(
            where,
            got="pickled data or objects",
            expected="plain numeric arrays",
            repair="save them with a numeric dtype; pickles are never read",
        )
    rest = len(data) - file.tell()
    if len(shape) > MOST_AXES or any(size < 0 for size in shape):
        raise InputError(where, got=f"{len(shape)} axes", expected=f"at most {MOST_AXES}")
    if math.prod(shape) * dtype.itemsize != rest or not dtype.itemsize:
        raise InputError(
            where,
            got=f"{bounded.amount(rest)} of values",
            expected=f"{math.prod(shape):,} of type {dtype}, as its header says",
            repair="the file is damaged",
        )
    flat = np.frombuffer(data, dtype, offset=file.tell())
    try:
        return (flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)).copy()
    except (ValueError, OverflowError):  # no values, and yet extents beyond all numbers
        raise InputError(where, got=f"shape {shape}", expected="at least one value") from None
