"""Running a formula over the rows of a group: tile by tile in cache on a CPU, all rows at once on
other devices.

A tile is so small that PyTorch runs each of its operations on one thread. Threads take runs of
tiles instead: they do not wait for each other within a formula, which on a machine with other work
to do is many times faster.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from ravine.layout import Layout
from ravine.optim.arithmetic import TILE
from ravine.optim.rows.groups import Now, RowGroup, selection

RUN = 8 * TILE  # elements of one matrix that a thread takes at a time

# w, g, the slots, and the layout of these columns
_Tile = tuple[Tensor, Tensor, dict[str, Tensor], Layout]


class LongRows:
    """Each live row by itself, over tiles of its columns, its numbers plain floats."""

    def __init__(self, group: RowGroup):
        self.group = group
        self.pieces = by_tensor(group.layout) if group.whole else by_tile(group.layout)
        self.bound = (0, 0)  # the matrices that the tiles are views of
        self.runs: list[list[list[_Tile]]] = []  # of each position of the group

    def step(self, theta: Tensor, grad: Tensor, now: Now) -> None:
        places = (theta.data_ptr(), grad.data_ptr())
        if places != self.bound:
            self.bound = places
            self.runs = [
                self._cut(theta, grad, position) for position in range(len(self.group.rows))
            ]
        tasks = list(self._tasks(now))
        threads = torch.get_num_threads()
        if threads == 1 or len(tasks) == 1:
            for task in tasks:
                task()
        else:
            for done in [_pool(threads).submit(task) for task in tasks]:
                done.result()

    def _cut(self, theta: Tensor, grad: Tensor, position: int) -> list[list[_Tile]]:
        """The tiles of one row, in runs: views of w, of g and of the slots, and their layouts."""
        row, runs, size = self.group.rows[position], list[list[_Tile]](), RUN
        for columns, layout in self.pieces:
            state = {
                name: slot[position : position + 1, columns]
                for name, slot in self.group.slots.items()
            }
            if size >= RUN:
                runs.append([])
                size = 0
            runs[-1].append(
                (theta[row : row + 1, columns], grad[row : row + 1, columns], state, layout)
            )
            size += columns.stop - columns.start
        return runs

    def _tasks(self, now: Now) -> Iterator[Callable[[], None]]:
        group = self.group
        for position, row in enumerate(group.rows):
            if now.lives[row]:
                numbers = group.numbers_at(
                    position, now.lrs[row], now.momenta[row] if now.momenta else None
                )
                formula = partial(group.formula, **group.flags, **numbers)
                for run in self.runs[position]:
                    yield partial(_run, formula, run, now.ts[row])


class ShortRows:
    """Blocks of rows that fill a tile together; rows that are not neighbours are gathered and put back.

    Their numbers are float64 columns, or plain floats in a block whose rows all have the same.
    """

    def __init__(self, group: RowGroup):
        self.group = group
        self.height = max(1, TILE // group.layout.size)
        self.live: list[int] = []
        self.blocks: list[_Block] = []

    def step(self, theta: Tensor, grad: Tensor, now: Now) -> None:
        group = self.group
        live = [position for position, row in enumerate(group.rows) if now.lives[row]]
        if live != self.live:
            self.live = live
            self.blocks = [
                _Block(group, live[i : i + self.height]) for i in range(0, len(live), self.height)
            ]
        for block in self.blocks:
            rows, positions = block.rows, block.positions
            t, numbers = block.numbers(now)
            w, state = theta[rows], {name: slot[positions] for name, slot in group.slots.items()}
            group.formula(w, grad[rows], state, t, group.layout, **group.flags, **numbers)
            if not isinstance(rows, slice):
                theta[rows] = w
            if not isinstance(positions, slice):
                for name, slot in state.items():
                    group.slots[name][positions] = slot


class _Block:
    """Some rows of a group: where they are, and their numbers."""

    def __init__(self, group: RowGroup, positions: list[int]):
        self.group, self.first = group, positions[0]
        self.members = [group.rows[p] for p in positions]
        self.rows, self.positions = (
            selection(self.members, group.device),
            selection(positions, group.device),
        )
        self.fixed = group.columns(positions)
        self.alike = all(group.numbers[p] == group.numbers[self.first] for p in positions)

    def numbers(self, now: Now) -> tuple[Any, dict[str, Any]]:
        """The step number and the numbers: floats where all rows have the same, else columns."""
        if not (self.alike and now.same(self.members)):
            return self.group.columns_now(self.fixed, self.rows, now)
        row = self.members[0]
        momentum = now.momenta[row] if now.momenta else None
        return now.ts[row], self.group.numbers_at(self.first, now.lrs[row], momentum)


class DeviceRows:
    """All rows of the group at once, nothing read back from the device: dead rows are computed but
    not taken over.

    ``compiled``: one pass over memory, made by ``torch.compile`` at the first step (which takes
    seconds to a minute). Where there is no compiler the formula runs as it is.
    """

    def __init__(self, group: RowGroup, compiled: bool = False):
        self.group = group
        self.fixed = group.columns(range(len(group.rows)))
        self.plain = partial(_advance, partial(group.formula, **group.flags), group.layout)
        self.advance: Callable[..., None] = (
            torch.compile(self.plain, dynamic=False) if compiled else self.plain
        )

    def step(self, theta: Tensor, grad: Tensor, now: Now) -> None:
        group, rows = self.group, self.group.select
        t, numbers = group.columns_now(self.fixed, rows, now)
        live, w = now.alive[rows].unsqueeze(1), theta[rows]
        try:
            self.advance(w, grad[rows], group.slots, t, live, numbers)
        except Exception as error:  # of many classes, and before anything is changed
            if self.advance is self.plain:
                raise
            warnings.warn(f"the {group.kind} step is not compiled: {error!r}", stacklevel=2)
            self.advance = self.plain
            self.advance(w, grad[rows], group.slots, t, live, numbers)
        if not isinstance(rows, slice):
            theta[rows] = w


def _advance(
    formula: Callable[..., None],
    layout: Layout,
    w: Tensor,
    g: Tensor,
    slots: dict[str, Tensor],
    t: Tensor,
    live: Tensor,
    numbers: dict[str, Any],
) -> None:
    """The formula on copies, taken over by the rows that live."""
    moved, state = w.clone(), {name: slot.clone() for name, slot in slots.items()}
    formula(moved, g, state, t, layout, **numbers)
    w.copy_(torch.where(live, moved, w))
    for name, slot in slots.items():
        slot.copy_(torch.where(live, state[name], slot))


def _run(formula: Callable[..., None], tiles: list[_Tile], t: float) -> None:
    with torch.no_grad():
        for w, g, state, layout in tiles:
            formula(w, g, state, t, layout)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="ravine-optimizer")


def by_tile(layout: Layout) -> list[tuple[slice, Layout]]:
    """The columns of each tile and its layout, which says how many of them, the first, decay.

    >>> layout = Layout.of([("w", (TILE + 1,), "weight", 0), ("b", (7,), "bias", 0)])
    >>> [(columns.start == i * TILE, tile.weights == (TILE, 1)[i]) for i, (columns, tile) in enumerate(by_tile(layout))]
    [(True, True), (True, True)]
    """
    starts = range(0, layout.size, TILE)
    counts = [min(max(layout.weights - start, 0), TILE) for start in starts]
    columns = [slice(start, min(start + TILE, layout.size)) for start in starts]
    return [(piece, Layout((), count)) for piece, count in zip(columns, counts, strict=True)]


def by_tensor(layout: Layout) -> list[tuple[slice, Layout]]:
    """The columns of each tensor and its layout.

    >>> layout = Layout.of([("w", (9,), "weight", 0), ("b", (7,), "bias", 0)])
    >>> [(columns.start, tile.weights, tile.size) for columns, tile in by_tensor(layout)]
    [(0, 9, 9), (9, 0, 7)]
    """
    return [
        (
            slice(e.start, e.stop),
            Layout((replace(e, start=0),), e.stop - e.start if e.stop <= layout.weights else 0),
        )
        for e in layout.entries
    ]
