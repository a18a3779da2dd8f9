"""Running a formula over the rows of a group: tile by tile in cache on a CPU, all rows at once on other devices."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ravine.layout import Layout
from ravine.optim.columns import TILE
from ravine.optim.groups import Group, Now, Rows, selection


class LongRows:
    """Each live row by itself, over tiles of its columns, its numbers plain floats."""

    def __init__(self, group: Group):
        self.group = group
        self.layouts = tile_layouts(group.layout)
        self.slots = [_TileSlots(group, position) for position in range(len(group.rows))]

    def step(self, theta: Tensor, grad: Tensor, now: Now) -> None:
        group = self.group
        for position, row in enumerate(group.rows):
            if now.lives[row]:
                numbers = group.numbers_at(position, now.lrs[row], now.momenta[row] if now.momenta else None)
                self._row(theta[row : row + 1], grad[row : row + 1], self.slots[position], now.ts[row], numbers)

    def _row(self, w: Tensor, g: Tensor, state: _TileSlots, t: float, numbers: dict[str, float]) -> None:
        formula, flags = self.group.formula, self.group.flags
        if self.group.whole or len(self.layouts) == 1:
            formula(w, g, _WholeSlots(self.group, state.position), t, self.group.layout, **flags, **numbers)
            return
        tiles = zip(w.split(TILE, 1), g.split(TILE, 1), self.layouts, strict=True)
        for state.tile, (w_tile, g_tile, layout) in enumerate(tiles):
            formula(w_tile, g_tile, state, t, layout, **flags, **numbers)


class ShortRows:
    """Blocks of rows that fill a tile together, their numbers float64 columns; rows apart are gathered and put back."""

    def __init__(self, group: Group):
        self.group = group
        self.height = max(1, TILE // group.layout.size)
        self.live: list[int] = []
        self.blocks: list[tuple[Rows, Rows, dict[str, Any]]] = []

    def step(self, theta: Tensor, grad: Tensor, now: Now) -> None:
        live = [position for position, row in enumerate(self.group.rows) if now.lives[row]]
        if live != self.live:
            self.live = live
            self.blocks = [self._block(live[i : i + self.height]) for i in range(0, len(live), self.height)]
        for rows, positions, fixed in self.blocks:
            t, numbers = self.group.columns_now(fixed, rows, now)
            w, state = theta[rows], _BlockSlots(self.group, positions)
            self.group.formula(w, grad[rows], state, t, self.group.layout, **self.group.flags, **numbers)
            if not isinstance(rows, slice):
                theta[rows] = w
            state.put_back()

    def _block(self, positions: list[int]) -> tuple[Rows, Rows, dict[str, Any]]:
        group = self.group
        rows = selection([group.rows[p] for p in positions], group.device)
        return rows, selection(positions, group.device), group.columns(positions)


class DeviceRows:
    """All rows of the group at once, nothing read back from the device: dead rows are computed but not taken over."""

    def __init__(self, group: Group):
        self.group = group
        self.fixed = group.columns(range(len(group.rows)))

    def step(self, theta: Tensor, grad: Tensor, now: Now) -> None:
        rows = self.group.select
        t, numbers = self.group.columns_now(self.fixed, rows, now)
        live = now.alive[rows].unsqueeze(1)
        w, state = theta[rows], _Copies(self.group)
        moved = w.clone()
        self.group.formula(moved, grad[rows], state, t, self.group.layout, **self.group.flags, **numbers)
        theta[rows] = torch.where(live, moved, w)
        for name, slot in state.copies.items():
            self.group.slots[name].copy_(torch.where(live, slot, self.group.slots[name]))


class _TileSlots:
    """The slots of one row, seen at one tile."""

    def __init__(self, group: Group, position: int):
        self.group, self.position, self.tile = group, position, 0
        self.tiles: dict[str, tuple[Tensor, ...]] = {}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.tiles:
            self.tiles[name] = self.group.slot(name)[self.position : self.position + 1].split(TILE, 1)
        return self.tiles[name][self.tile]


class _WholeSlots:
    def __init__(self, group: Group, position: int):
        self.group, self.position = group, position

    def __getitem__(self, name: str) -> Tensor:
        return self.group.slot(name)[self.position : self.position + 1]


class _BlockSlots:
    """The slots of a block of rows; those that had to be gathered are put back."""

    def __init__(self, group: Group, positions: Rows):
        self.group, self.positions = group, positions
        self.taken: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.taken:
            self.taken[name] = self.group.slot(name)[self.positions]
        return self.taken[name]

    def put_back(self) -> None:
        if not isinstance(self.positions, slice):
            for name, slot in self.taken.items():
                self.group.slots[name][self.positions] = slot


class _Copies:
    """Copies of the slots, so that the rows that must stay as they are can."""

    def __init__(self, group: Group):
        self.group = group
        self.copies: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.copies:
            self.copies[name] = self.group.slot(name).clone()
        return self.copies[name]


def tile_layouts(layout: Layout) -> list[Layout]:
    """The layout of each tile of columns: how many of its columns, the first, decay.

    >>> layout = Layout.of([("w", (TILE + 5,), "weight", 0), ("b", (TILE,), "bias", 0)])
    >>> [tile.weights for tile in tile_layouts(layout)] == [TILE, 5, 0]
    True
    """
    starts = range(0, layout.size, TILE)
    return [replace(layout, entries=(), weights=min(max(layout.weights - start, 0), TILE)) for start in starts]
