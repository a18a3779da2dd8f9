"""The optimiser step of a population: each row of theta [P, D] by its own kind and numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ravine.catalogue import Part
from ravine.errors import RavineError
from ravine.layout import Layout
from ravine.optim.arithmetic import TILE
from ravine.optim.rows.ahead import Ahead, SlowWeights
from ravine.optim.rows.fused import FusedRows, fits
from ravine.optim.rows.groups import Now, RowGroup, grouped, on_host
from ravine.optim.rows.tiles import DeviceRows, LongRows, ShortRows


class RowOptimizer:
    """Optimiser parts, one for each row of theta, as one step over all rows.

    Rows of the same kind and flags form a group. On a CPU a group runs PyTorch's fused kernel where
    there is one and its formula over tiles in cache where not; on other devices its formula over
    all rows, with nothing read back. ``compiled``: formulas without a fused kernel go through
    ``torch.compile``, one pass over memory (large networks).

    >>> from ravine.catalogue import make
    >>> layout = Layout.of([("w", (2,), "weight", 0)])
    >>> part = make("optimizer", {"kind": "sgd", "lr": 0.5})
    >>> optimizer = RowOptimizer([part], layout, device="cpu", dtype=torch.float64)
    >>> theta, grad = torch.ones(1, 2, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64)
    >>> one = torch.ones(1, dtype=torch.float64)
    >>> optimizer.step(theta, grad, lr=0.5 * one, alive=one.bool(), t=one)
    >>> theta.tolist()
    [[0.5, 0.5]]
    """

    def __init__(
        self,
        parts: Sequence[Part],
        layout: Layout,
        *,
        device: torch.device | str,
        dtype: torch.dtype,
        compiled: bool = False,
    ):
        self.parts, self.layout, self.compiled = list(parts), layout, compiled
        self.device, self.dtype = torch.device(device), dtype
        self.groups = grouped(self.parts, layout, self.device, dtype)
        self.lookahead = SlowWeights(self.parts, layout.size, self.device, dtype)
        self._prepare()

    def _prepare(self) -> None:
        self._runners = [_runner(group, self.compiled) for group in self.groups]
        self._ahead = [
            Ahead(group) for group in self.groups if group.flags.get("gradient") == "ahead"
        ]

    def point(self, theta: Tensor, momentum: Tensor | None = None) -> None:
        """Move the rows that want their gradient elsewhere (``nesterov`` with ``gradient =
        "ahead"``) there, in place.

        ``momentum`` [P] is what ``step`` will get. ``step`` puts the rows back first, to the bit.
        """
        for ahead in self._ahead:
            ahead.go(theta, momentum)

    def step(
        self,
        theta: Tensor,
        grad: Tensor,
        lr: Tensor,
        alive: Tensor,
        t: Tensor,
        momentum: Tensor | None = None,
        others: Callable[[Now], None] | None = None,
    ) -> None:
        """Update theta [P, D] in place from grad [P, D], which stays as it is.

        ``lr`` [P] float64 is already scheduled, ``t`` [P] float64 counts each row's steps from 1,
        ``momentum`` [P] float64 sets momentum or beta1 (NaN: the row's own number holds; a row without
        momentum stays without). Rows not ``alive`` [P] do not change in a single bit, nor do their
        slots. ``others`` steps the rows whose optimisers are not formulas.
        """
        now = Now(lr, alive, t, momentum, [], [], [], None)
        if on_host(self.device):
            now.lrs, now.lives, now.ts = lr.tolist(), alive.tolist(), t.tolist()
            now.momenta = None if momentum is None else momentum.tolist()
        for ahead in self._ahead:
            ahead.come_back(theta)
        if self.lookahead.rows:
            self.lookahead.before(theta, now)
        for runner in self._runners:
            runner.step(theta, grad, now)
        if others is not None:
            others(now)
        if self.lookahead.rows:
            self.lookahead.after(theta, now)

    def state(self) -> dict[str, Tensor]:
        """Every slot, ``"GROUP.KIND.SLOT"`` -> [rows of the group, D] in the order of the rows (not
        copies)."""
        found = {
            f"{i}.{group.kind}.{name}": slot
            for i, group in enumerate(self.groups)
            for name, slot in group.slots.items()
        }
        if self.lookahead.rows:
            found["lookahead.slow"] = self.lookahead.slow
        return found

    def load_state(self, arrays: Mapping[str, Tensor]) -> None:
        """Take over what ``state`` of an optimiser with the same parts gave."""
        own = self.state()
        if set(arrays) != set(own):
            raise RavineError(
                f"optimiser slots {sorted(arrays)} are not those of these rows: {sorted(own)}"
            )
        for name, slot in own.items():
            if arrays[name].shape != slot.shape:
                shapes = (
                    f"has shape {tuple(arrays[name].shape)}, these rows need {tuple(slot.shape)}"
                )
                raise RavineError(f"the optimiser slot {name!r} {shapes}")
            slot.copy_(arrays[name])

    def row(self, row: int) -> dict[str, Tensor]:
        """The slots of one row, each [D], live."""
        found: dict[str, Tensor] = {}
        for group in self.groups:
            if row in group.rows:
                place = list(group.rows).index(row)
                found |= {f"slot/{name}": slot[place] for name, slot in group.slots.items()}
        if row in self.lookahead.rows:
            found["slot/slow"] = self.lookahead.slow[list(self.lookahead.rows).index(row)]
        return found

    def keep(self, rows: Sequence[int]) -> None:
        """These rows stay, in this order."""
        self._regroup([self.parts[row] for row in rows], list(rows))

    def grow(self, parts: Sequence[Part]) -> None:
        """More rows, with all slots zero."""
        self._regroup([*self.parts, *parts], [*range(len(self.parts)), *[None] * len(parts)])

    def reset(self, rows: Sequence[int], parts: Sequence[Part] | None = None) -> None:
        """These rows start afresh, with all slots zero; ``parts``, one for each of them, replace
        their old ones."""
        new, source = list(self.parts), list[int | None](range(len(self.parts)))
        for place, row in enumerate(rows):
            source[row] = None
            if parts is not None:
                new[row] = parts[place]
        self._regroup(new, source)

    def _regroup(self, parts: list[Part], source: Sequence[int | None]) -> None:
        """New groups for these parts; row i takes over the slots of old row ``source[i]``, or
        starts afresh."""
        origin = {
            row: (group, position)
            for group in self.groups
            for position, row in enumerate(group.rows)
        }
        groups = grouped(parts, self.layout, self.device, self.dtype)
        for group in groups:
            for position, row in enumerate(group.rows):
                old = source[row]
                if old is not None:
                    before, place = origin[old]
                    for name, slot in before.slots.items():
                        group.slots[name][position].copy_(slot[place])
        self.lookahead = self.lookahead.regrouped(parts, source)
        self.parts, self.groups = parts, groups
        self._prepare()


def _runner(group: RowGroup, compiled: bool) -> FusedRows | LongRows | ShortRows | DeviceRows:
    if fits(group):
        return FusedRows(group)
    if compiled or not on_host(group.device):
        return DeviceRows(group, compiled)
    if len(group.rows) == 1 or group.layout.size > TILE // 2:
        return LongRows(group)
    return ShortRows(group)
