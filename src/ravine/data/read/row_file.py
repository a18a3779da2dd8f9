"""Rows on the disk: what does not fit into memory is decoded once and then read by row number.

A cached file holds rows of one shape and dtype, one after the other. Reading a row takes one call of
the system, whatever order an epoch has; so training sees the order and the bits of rows in memory.
Nothing is mapped into the address space, which may be limited; what is read twice comes from the
system's own cache of files.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ravine.data.download.cache import cache_root
from ravine.data.objects.stream import Items, reading_processes
from ravine.data.order import Order
from ravine.data.room import fits
from ravine.data.source import Arrays, rows_per_chunk
from ravine.errors import InputError
from ravine.storage.bounded import MOST_SETTINGS, parse_json, read_text
from ravine.storage.files import atomic, write_text

DISK_SHARE = 0.5  # of the free disk that one file may take
BLOCK_BYTES = 1 << 20  # of the batches that are read in one go
IN_PLACE = 16  # blocks before a process beside reads: a short stream is not worth its start
AHEAD = 4  # blocks that the system brings from the disk while earlier ones are trained on

_preadv = getattr(os, "preadv", None)  # reads at a place that the call names


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
        bounds = np.concatenate(([0], ends, [len(rows)])) * size
        offsets = (rows[np.concatenate(([0], ends))] * size).tolist()
        handle, bounds = self._file.fileno(), bounds.tolist()
        # a step of a small network takes no longer than some hundred calls of Python's
        for start, end, offset in zip(bounds, bounds[1:], offsets, strict=False):
            room = into[start:end]
            got = _preadv(handle, [room], offset) if _preadv else 0
            if got != end - start:  # a call of the system may give less than it was asked for
                self._fill(room[got:], offset + got)
        return torch.from_numpy(out)

    def announce(self, places: Tensor) -> None:
        """Tell the system that rows will be read, where it takes such hints and has not got them in
        its cache of files: a few of them say whether it has."""
        size = self.row_bytes
        offsets = (places.numpy() * size).tolist()
        if hasattr(os, "posix_fadvise") and not self._cached(offsets[:: len(offsets) // 32 + 1]):
            handle = self._file.fileno()
            for offset in offsets:
                os.posix_fadvise(handle, offset, size, os.POSIX_FADV_WILLNEED)

    def _cached(self, offsets: list[int]) -> bool:
        """Whether rows can be read without waiting for the disk; False where nobody can say."""
        if not _preadv or not hasattr(os, "RWF_NOWAIT"):
            return False
        byte, handle = [bytearray(1)], self._file.fileno()
        try:
            return all(_preadv(handle, byte, each, os.RWF_NOWAIT) == 1 for each in offsets)
        except OSError:  # it is not in the cache, or the file system does not tell
            return False

    def _fill(self, into: memoryview, offset: int) -> None:
        while len(into):
            got = self._read_at(into, offset)
            if not got:
                repair = f"delete {self.path.parent}: it is made again"
                raise InputError(str(self.path), expected="all of its rows", repair=repair)
            into, offset = into[got:], offset + got

    def _read_at(self, into: memoryview, offset: int) -> int:
        if _preadv:
            return _preadv(self._file.fileno(), [into], offset)
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
        """Raw batches of the steps from ``first`` on, without end: those of a long stream are read
        by a process beside, a few blocks ahead. A thread would compete with the steps for the
        interpreter, row by row."""
        reading, place = _Blocks(self, order, first, BLOCK_BYTES), 0
        while place < IN_PLACE or not spare_core():
            yield from _batches(*reading[place])
            place += 1
        # a larger block costs the process that trains less for each row
        after = first + place * reading.steps
        beside = _Blocks(self, order, after, 4 * BLOCK_BYTES)
        loader = DataLoader(
            _Tried(beside),
            sampler=itertools.count(),
            batch_size=None,
            num_workers=1,
            prefetch_factor=2,
            generator=torch.Generator(),  # else it draws a seed from the user's random numbers
        )
        for place, block in enumerate(loader):
            yield from _batches(*(beside[place] if block is None else block))


class _Blocks(Dataset):
    """Some steps' rows at a time, read in one go: x, y, row numbers, and the size of each batch."""

    def __init__(self, part: FileRows, order: Order, first: int, size: int):
        self.part, self.order, self.first = part, order, first
        self.steps = max(1, size // max(1, part.dataset.row_bytes * order.batch))
        self._ahead: dict[int, list[Tensor]] = {}  # row numbers by block, of which the system knows

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor, Tensor, list[int]]:
        for ahead in range(place, place + AHEAD + 1):
            if ahead not in self._ahead:
                first = self.first + ahead * self.steps
                found = [self.order.rows(step).cpu() for step in range(first, first + self.steps)]
                self.part.dataset.announce(self.part.index[torch.cat(found)])
                self._ahead[ahead] = found
        found = self._ahead.pop(place)
        rows = torch.cat(found)
        return *self.part.fetch(rows), rows, [len(each) for each in found]


class _Tried(Dataset):
    """The same blocks; None where one cannot be read: the process that trains reads it then itself,
    and says what is wrong with it."""

    def __init__(self, blocks: _Blocks):
        self.blocks = blocks

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor, Tensor, list[int]] | None:
        try:
            return self.blocks[place]
        except (InputError, OSError):
            return None


def _batches(
    x: Tensor, y: Tensor, rows: Tensor, sizes: list[int]
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    yield from zip(x.split(sizes), y.split(sizes), rows.split(sizes), strict=True)


def spare_core() -> bool:
    """Whether a process that reads ahead can be started, and has a processor core to run on."""
    held = getattr(os, "sched_getaffinity", None)
    return reading_processes() > 0 and (len(held(0)) if held else os.cpu_count() or 1) > 1


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
        digest.update(os.fsencode(file.absolute()))  # a name may hold what is no text
        digest.update(f" {found.st_size} {found.st_mtime_ns}\n".encode())
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
