"""Rows on the disk: what does not fit into memory is decoded once and then read by row number.

A cached file holds rows of one shape and dtype, one after the other. Reading a row takes one call of
the system, whatever order an epoch has; so training sees the order and the bits of rows in memory.
Nothing is mapped into the address space, which may be limited; what is read twice comes from the
system's own cache of files.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ravine.data.download.cache import cache_root
from ravine.data.objects.stream import Items
from ravine.data.order import Order
from ravine.data.room import fits
from ravine.data.source import Arrays, rows_per_chunk
from ravine.errors import InputError
from ravine.storage.bounded import MOST_SETTINGS, parse_json, read_text
from ravine.storage.files import atomic, write_text

DISK_SHARE = 0.5  # of the free disk that one file may take
BLOCK_BYTES = 1 << 20  # of the batches that are read in one go
AHEAD = 4  # blocks that the system brings from the disk while earlier ones are trained on


@dataclass
class RowFile:
    """Rows of one shape and dtype in a file."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    count: int

    def __post_init__(self) -> None:
        self.row_bytes = int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize
        self._file = open(self.path, "rb", buffering=0)  # noqa: SIM115  closed with this object
        self._one_reader = Lock()  # where a place cannot be named in the call that reads

    def __reduce__(self) -> tuple[Any, ...]:
        return RowFile, (self.path, self.shape, self.dtype, self.count)  # a copy opens it again

    def read(self, places: Tensor) -> Tensor:
        """Rows [len(places), ...] by their numbers. Neighbours in the file are read together."""
        rows = places.numpy()
        out = np.empty((len(rows), *self.shape), self.dtype)
        if not len(rows):
            return torch.from_numpy(out)
        into, size = out.reshape(-1).view(np.uint8).data, self.row_bytes
        ends = np.flatnonzero(np.diff(rows) != 1) + 1  # where a run of neighbours ends
        starts = [0, *ends.tolist()]
        for start, end in zip(starts, [*ends.tolist(), len(rows)], strict=True):
            self._fill(into[start * size : end * size], int(rows[start]) * size)
        return torch.from_numpy(out)

    def announce(self, places: Tensor) -> None:
        """Tell the system that rows will be read, where it takes such hints."""
        if hasattr(os, "posix_fadvise"):
            handle, size = self._file.fileno(), self.row_bytes
            for place in places.tolist():
                os.posix_fadvise(handle, place * size, size, os.POSIX_FADV_WILLNEED)

    def _fill(self, into: memoryview, offset: int) -> None:
        while len(into):
            got = self._read_at(into, offset)
            if not got:
                repair = f"delete {self.path.parent}: it is made again"
                raise InputError(str(self.path), expected="all of its rows", repair=repair)
            into, offset = into[got:], offset + got

    def _read_at(self, into: memoryview, offset: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._file.fileno(), [into], offset)
        with self._one_reader:
            self._file.seek(offset)
            return self._file.readinto(into) or 0


@dataclass
class FileRows(Items):
    """Rows of a part that lie in a file; their targets are in memory."""

    dataset: Any  # RowFile
    index: Tensor
    seed: int = 0
    y: Tensor = field(default_factory=lambda: torch.empty(0))

    def take(self, index: Tensor, epoch: int | None = None) -> tuple[Tensor, Tensor]:
        return self.fetch(index)

    def fetch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        index = index.cpu()
        return self.dataset.read(self.index[index]), self.y[index]

    def chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """In the chunks that rows in memory have: statistics are merged by chunk."""
        size = rows_per_chunk(self.fetch(torch.zeros(1, dtype=torch.int64))[0])
        for index in torch.arange(len(self)).split(size):
            yield self.fetch(index)

    def rows(self, index: Tensor) -> FileRows:
        return replace(self, index=self.index[index], y=self.y[index], labels=self.y[index])

    def steps(self, order: Order, first: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Raw batches of the steps from ``first`` on, without end. The system is told which rows
        come next, and brings them from the disk while earlier ones are trained on; a thread that
        reads would compete with the steps for the interpreter, row by row."""
        block = max(1, BLOCK_BYTES // max(1, self.dataset.row_bytes * order.batch))
        ahead: deque[list[Tensor]] = deque()
        while True:
            while len(ahead) <= AHEAD:
                rows = [order.rows(step).cpu() for step in range(first, first + block)]
                self.dataset.announce(self.index[torch.cat(rows)])
                ahead.append(rows)
                first += block
            rows = ahead.popleft()
            sizes = [len(each) for each in rows]
            x, y = self.fetch(torch.cat(rows))
            yield from zip(x.split(sizes), y.split(sizes), rows, strict=True)


def on_disk(size: int) -> bool:
    """Whether the disk of the cache has room for so many bytes."""
    folder = cache_root()
    folder.mkdir(parents=True, exist_ok=True)
    return size <= DISK_SHARE * shutil.disk_usage(folder).free


def hold(
    name: dict[str, Any],
    count: int,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    chunks: Callable[[list[int]], Iterable[Tensor]],
) -> tuple[Tensor | RowFile, list[int]]:
    """``count`` rows that ``chunks`` gives in order, in memory or, where they do not fit, in a file
    of the cache; and the numbers of those that could not be read, which ``chunks`` adds to the list
    that it is given. ``name`` says all that the rows depend on: the same rows are written once."""
    row = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if fits(count * row):
        out, start, lost = torch.empty(count, *shape, dtype=dtype), 0, list[int]()
        for chunk in chunks(lost):
            out[start : start + len(chunk)] = chunk
            start += len(chunk)
        return out[:start], lost
    kind = torch.empty(0, dtype=dtype).numpy().dtype
    about = {"shape": list(shape), "dtype": kind.name, **name}
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]
    folder = cache_root() / "rows" / digest
    if not (folder / "about.json").is_file():
        lost = _write(folder, count * row, chunks)
        held = (folder / "rows.bin").stat().st_size // max(1, row)
        write_text(folder / "about.json", json.dumps({**about, "count": held, "lost": lost}))
    found = parse_json(read_text(folder / "about.json", MOST_SETTINGS), "about.json")
    return RowFile(folder / "rows.bin", shape, kind, found["count"]), found["lost"]


def state_of(files: Iterable[Path]) -> str:
    """A hash of the names, sizes and times of files: another one where one of them has changed."""
    digest = hashlib.sha256()
    for file in files:
        found = file.stat()
        digest.update(f"{file.absolute()} {found.st_size} {found.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def part_of(x: Tensor | RowFile, y: Tensor, index: Tensor | None = None) -> Arrays | FileRows:
    """A part of the data: these rows, or those of them that ``index`` names, with their targets."""
    if isinstance(x, Tensor):
        return Arrays(x if index is None else x[index], y)
    index = torch.arange(x.count) if index is None else index
    return FileRows(x, index, y=y, labels=y)


def _write(folder: Path, size: int, chunks: Callable[[list[int]], Iterable[Tensor]]) -> list[int]:
    folder.mkdir(parents=True, exist_ok=True)
    if not on_disk(size):
        free = shutil.disk_usage(folder).free
        raise InputError(
            "data",
            got=f"{size / 1e9:.3g} GB of decoded rows, and {free / 1e9:.3g} GB free at {folder}",
            expected="room for them twice over: they do not fit into memory",
            repair="name another disk by the environment variable XDG_CACHE_HOME",
        )
    lost: list[int] = []
    with atomic(folder / "rows.bin") as partial, partial.open("wb") as file:
        for chunk in chunks(lost):
            file.write(chunk.contiguous().numpy().tobytes())
    return lost
