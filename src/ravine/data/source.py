"""What a source gives: parts of rows, and what is known about them before anything is fitted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from ravine.randomness import key

PARTS = ("train", "validation", "test")
TARGET_NAMES = ("target", "label", "class", "y")  # of columns, where none is named
CHUNK = 1 << 18  # numbers looked at in one go: in float64 they fit a second-level cache


@dataclass
class Batch:
    """Rows as the network sees them. Read them, do not write: a batch may be a view of a larger
    block. Where each member of a population has rows of its own, all three begin with an axis P."""

    x: Tensor  # [B, ...]
    y: Tensor  # [B] or [B, T] int64, or [B, outputs] floats
    index: Tensor  # [B] place of each row in the training part
    weight: Tensor | None = None  # [P, B] of the rows in each member's mean; None: 1
    # where these are a rank's part of a batch: its first row, its rows, and those of all ranks
    part: tuple[int, int, int] | None = field(default=None, kw_only=True)

    @property
    def size(self) -> int:
        """Rows that a member sees, on all ranks together."""
        return self.index.shape[-1] if self.part is None else self.part[2]


class Split(Protocol):
    """One part of the data: rows that can be taken by number."""

    def __len__(self) -> int: ...

    def take(self, index: Tensor, epoch: int | None = None) -> tuple[Tensor, Tensor]:
        """Raw inputs and targets of those rows; ``epoch`` where rows differ from epoch to epoch."""
        ...

    def chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """All rows in order, some at a time."""
        ...


@dataclass
class Arrays:
    """Rows in memory (or in a mapped file): ``x`` [N, ...] and ``y`` [N, ...]."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def take(self, index: Tensor, epoch: int | None = None) -> tuple[Tensor, Tensor]:
        if index.device != self.x.device:
            index = index.to(self.x.device)
        return self.x.index_select(0, index), self.y.index_select(0, index)

    def chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        rows = rows_per_chunk(self.x)
        return zip(self.x.split(rows), self.y.split(rows), strict=True)

    @property
    def labels(self) -> Tensor:
        return self.y

    def rows(self, index: Tensor) -> Arrays:
        return Arrays(self.x[index], self.y[index])

    @property
    def device(self) -> torch.device:
        return self.x.device

    @property
    def nbytes(self) -> int:
        return self.x.nbytes + self.y.nbytes

    def to(self, device: torch.device) -> Arrays:
        return Arrays(self.x.to(device), self.y.to(device))


@dataclass
class Windows:
    """A text as rows: ``length`` tokens and, as targets, the same moved on by one.

    ``moving``: every epoch starts at another place, so that the windows differ.
    """

    tokens: Tensor  # [L], small integers
    length: int
    seed: int
    moving: bool = False

    def __len__(self) -> int:
        spare = self.length if self.moving else 1
        return max(0, (len(self.tokens) - spare) // self.length)

    def take(self, index: Tensor, epoch: int | None = None) -> tuple[Tensor, Tensor]:
        offset = (
            0 if epoch is None or not self.moving else key(self.seed, "offset", epoch) % self.length
        )
        places = torch.arange(self.length + 1, device=self.tokens.device)
        starts = index.to(self.tokens.device) * self.length + offset
        rows = self.tokens[starts[:, None] + places].long()  # [B, T + 1]
        return rows[:, :-1], rows[:, 1:]

    def chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        for index in torch.arange(len(self)).split(max(1, CHUNK // self.length)):
            yield self.take(index)

    @property
    def device(self) -> torch.device:
        return self.tokens.device

    @property
    def nbytes(self) -> int:
        return self.tokens.nbytes

    def to(self, device: torch.device) -> Windows:
        return replace(self, tokens=self.tokens.to(device))


@dataclass
class Source:
    """Parts of data and their meaning; from ``facts``, plain data kept with the run, new files are
    read alike."""

    # "train", perhaps "validation" and "test" -> Split, or a text (str) to be cut
    parts: dict[str, Any]
    task: str
    classes: tuple[str, ...] = ()
    vocabulary: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    encode: Callable[[Any], Any] | None = (
        None  # rows of the training part -> a Transform before all others
    )
    outputs: int | None = None
    batch: int | None = None  # of a DataLoader
    groups: Tensor | None = None  # [N] of "train": rows with one number stay in one part
    order: Tensor | None = None  # [N] of "train": the last rows are held out, NaN comes first


def rows_per_chunk(x: Tensor) -> int:
    """Rows of x that are looked at in one go."""
    return max(1, CHUNK // max(1, x[:1].numel()))
