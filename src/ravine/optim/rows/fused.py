"""The kinds that PyTorch has as one fused kernel: one call for all rows whose numbers agree, or for
each live row.

The kernel divides each tensor among the threads, which takes longer than its work where rows are
short. So rows that lie one behind the other are one long row to it; and where only their rates
differ, as in a search, it computes their updates at a rate of 1, which are then added at each row's
own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, pairwise
from typing import Any

import torch
from torch import Tensor

from ravine.optim.rows.groups import Now, RowGroup, on_host

SHORT = 2**15  # columns up to which updates at different rates are computed together

_Call = Callable[["_Pieces", dict[str, float], float, float], None]


@dataclass(slots=True)
class _Pieces:
    """What one kernel call works on: the same columns of one or more rows."""

    w: list[Tensor]
    g: list[Tensor]
    slots: list[list[Tensor]]
    steps: list[Tensor]
    decays: bool


def _sgd(
    nesterov: bool, p: _Pieces, numbers: dict[str, float], weight_decay: float, t: float
) -> None:
    torch._fused_sgd_(
        p.w,
        p.g,
        p.slots[0] if p.slots else [],
        weight_decay=weight_decay,
        momentum=numbers.get("momentum", 0.0),
        lr=numbers["lr"],
        dampening=numbers.get("dampening", 0.0),
        nesterov=nesterov,
        maximize=False,
        is_first_step=t == 1,
    )


def _adam(
    kernel: Any, amsgrad: bool, p: _Pieces, numbers: dict[str, float], weight_decay: float, t: float
) -> None:
    kernel(
        p.w,
        p.g,
        p.slots[0],
        p.slots[1],
        p.slots[2] if amsgrad else [],
        p.steps,
        lr=numbers["lr"],
        beta1=numbers["beta1"],
        beta2=numbers["beta2"],
        weight_decay=weight_decay,
        eps=numbers["eps"],
        amsgrad=amsgrad,
        maximize=False,
    )


def _adagrad(p: _Pieces, numbers: dict[str, float], weight_decay: float, t: float) -> None:
    if t == 1 and numbers["initial"]:
        for total in p.slots[0]:
            total.add_(numbers["initial"])
    torch._fused_adagrad_(
        p.w,
        p.g,
        p.slots[0],
        p.steps,
        lr=numbers["lr"],
        lr_decay=numbers["lr_decay"],
        weight_decay=weight_decay,
        eps=numbers["eps"],
        maximize=False,
    )


def _kernel(group: RowGroup) -> tuple[_Call, tuple[str, ...]] | None:
    """The fused call of a group, and the slots that it works on; none where PyTorch has none for
    these flags."""
    flags = group.flags
    velocity = ("v",) if group.numbers[0].get("momentum") else ()
    table: dict[str, tuple[bool, _Call, tuple[str, ...]]] = {
        "sgd": (True, partial(_sgd, bool(velocity and flags.get("nesterov"))), velocity),
        "momentum": (flags.get("lr_in") == "step", partial(_sgd, False), velocity),
        "nesterov": (flags.get("gradient") == "here", partial(_sgd, bool(velocity)), velocity),
        "adam": (
            bool(flags.get("bias_correction")) and flags.get("eps_in") == "outside",
            partial(_adam, torch._fused_adam_, False),
            ("m", "v"),
        ),
        "amsgrad": (
            bool(flags.get("bias_correction")),
            partial(_adam, torch._fused_adam_, True),
            ("m", "v", "v_max"),
        ),
        "adamw": (True, partial(_adam, torch._fused_adamw_, False), ("m", "v")),
        "adagrad": (flags.get("eps_in") == "outside", _adagrad, ("s",)),
    }
    fits, call, slots = table.get(group.kind, (False, _adagrad, ()))
    return (call, slots) if fits and group.dtype in (torch.float32, torch.float64) else None


def fits(group: RowGroup) -> bool:
    """Whether PyTorch has a fused kernel for this kind with these flags."""
    return on_host(group.device) and _kernel(group) is not None


@dataclass(slots=True)
class _Bucket:
    """Rows whose numbers agree but for their rates."""

    positions: list[int]
    long: list[_Pieces] = field(default_factory=list)  # all as one row, if they lie together
    together: list[_Pieces] = field(default_factory=list)
    apart: list[list[_Pieces]] = field(default_factory=list)


class FusedRows:
    """The fused kernel over the live rows of a group."""

    def __init__(self, group: RowGroup):
        found = _kernel(group)
        assert found is not None
        self.group = group
        self.call, self.slot_names = found
        self.parts = _column_parts(group)
        # whether an update is its rate times what does not depend on the weights
        decays = group.numbers[0]["weight_decay"] and group.kind != "adamw"
        self.linear = not decays and group.layout.size <= SHORT
        self.steps = torch.zeros(len(group.rows), dtype=torch.float64)
        self.numbers = [dict(numbers) for numbers in group.numbers]
        self.bound = (0, 0)  # the matrices that the pieces are views of
        buckets: dict[tuple[Any, ...], list[int]] = {}
        for position, numbers in enumerate(group.numbers):
            key = tuple(value for name, value in numbers.items() if name != "lr")
            buckets.setdefault(key, []).append(position)
        self.buckets = [_Bucket(positions) for positions in buckets.values()]
        self.decays = [self._decay(numbers) for numbers in group.numbers]

    def _decay(self, numbers: dict[str, float]) -> float:
        """adamw by the schedule: eta * weight_decay is lr * (weight_decay / the unscheduled lr)."""
        decay = numbers["weight_decay"]
        return decay / numbers["lr"] if self.group.flags.get("decay_by") == "schedule" else decay

    def step(self, theta: Tensor, grad: Tensor, now: Now) -> None:
        places = (theta.data_ptr(), grad.data_ptr())
        if places != self.bound:
            self.bound = places
            self._bind(theta, grad)
        for bucket in self.buckets:
            self._advance(bucket, theta, now)

    def _advance(self, bucket: _Bucket, theta: Tensor, now: Now) -> None:
        rows = self.group.rows
        live = [p for p in bucket.positions if now.lives[rows[p]]]
        of_live = [rows[p] for p in live]
        alike = bool(live) and len(bucket.positions) > 1 and now.same(of_live, rates=False)
        equal = alike and now.same(of_live) and len({self.decays[p] for p in live}) == 1
        scalable = self.linear and bool(bucket.long)
        if equal and (len(self.parts) == 1 or not scalable):
            step = partial(self._run, live[0], bucket.long or bucket.together, now)
        elif alike and scalable:
            step = partial(self._run_scaled, bucket, live[0], theta, now)
        else:
            for place, position in enumerate(bucket.positions):
                if now.lives[rows[position]]:
                    self._run(position, bucket.apart[place], now)
            return
        with self._kept(bucket, [p for p in bucket.positions if not now.lives[rows[p]]]):
            step()

    def _run_scaled(self, bucket: _Bucket, position: int, theta: Tensor, now: Now) -> None:
        """The updates of all rows at a rate of 1, from weights of 0, then each at its own rate."""
        first, n = self.group.rows[bucket.positions[0]], len(bucket.positions)
        w = theta.detach()[first : first + n]
        rates = now.lr[first : first + n, None]  # [n, 1]
        if self.group.kind == "adamw":
            decays = torch.tensor([self.decays[p] for p in bucket.positions])[:, None]
            w[:, : self.group.layout.weights].mul_((1 - rates * decays).to(w.dtype))
        (piece,) = bucket.long
        updates = torch.zeros_like(piece.w[0])
        self._run(position, [replace(piece, w=[updates], decays=False)], now, rate=1.0)
        w.addcmul_(updates.view_as(w), rates.to(w.dtype))

    @contextmanager
    def _kept(self, bucket: _Bucket, positions: list[int]) -> Iterator[None]:
        """What the kernel does to these rows is undone."""
        pieces = [piece for p in positions for piece in bucket.apart[bucket.positions.index(p)]]
        values = [value for piece in pieces for value in (*piece.w, *chain(*piece.slots))]
        before = [value.clone() for value in values]
        yield
        for value, old in zip(values, before, strict=True):
            value.copy_(old)

    def _run(
        self, position: int, pieces: list[_Pieces], now: Now, rate: float | None = None
    ) -> None:
        row, name = self.group.rows[position], self.group.momentum_name
        numbers, t = self.numbers[position], now.ts[row]
        numbers["lr"] = now.lrs[row] if rate is None else rate
        if name and now.momenta is not None:
            scheduled = now.momenta[row]
            numbers[name] = (
                scheduled if scheduled == scheduled else self.group.numbers[position][name]
            )
        for step in pieces[0].steps:
            step.fill_(t)
        for piece in pieces:
            self.call(piece, numbers, self.decays[position] if piece.decays else 0.0, t)

    def _bind(self, theta: Tensor, grad: Tensor) -> None:
        """Views of every row's columns, made once for these matrices."""
        for bucket in self.buckets:
            bucket.apart = [
                [self._pieces(theta, grad, [p], *part) for part in self.parts]
                for p in bucket.positions
            ]
            bucket.long = self._long(theta, grad, bucket.positions)
            bucket.together = [
                self._pieces(theta, grad, bucket.positions, *part) for part in self.parts
            ]

    def _long(self, theta: Tensor, grad: Tensor, positions: list[int]) -> list[_Pieces]:
        """Rows that lie one behind the other as one long row; empty where they do not, or some of
        their columns decay in the kernel and others do not."""
        rows = [self.group.rows[p] for p in positions]
        first, last = slice(rows[0], rows[-1] + 1), slice(positions[0], positions[-1] + 1)
        neighbours = all(b - a == 1 for run in (rows, positions) for a, b in pairwise(run))
        split = len(self.parts) > 1 and not self.linear
        if split or not neighbours or not theta.is_contiguous():
            return []
        slots = [[self.group.slots[name][last].view(-1)] for name in self.slot_names]
        joined = [theta.detach()[first].view(-1)], [grad[first].view(-1)]
        return [_Pieces(*joined, slots, [self.steps[positions[0]]], self.parts[0][1])]

    def _pieces(
        self, theta: Tensor, grad: Tensor, positions: list[int], columns: slice, decays: bool
    ) -> _Pieces:
        rows = [self.group.rows[p] for p in positions]
        slots = [
            [self.group.slots[name][p, columns] for p in positions] for name in self.slot_names
        ]
        steps = [self.steps[p] for p in positions]
        return _Pieces(
            [theta[r, columns] for r in rows],
            [grad[r, columns] for r in rows],
            slots,
            steps,
            decays,
        )


def _column_parts(group: RowGroup) -> list[tuple[slice, bool]]:
    """The columns that decay and those that do not; one part where there is nothing to tell
    apart."""
    weights, size = group.layout.weights, group.layout.size
    if not group.numbers[0]["weight_decay"] or weights in (0, size):
        return [(slice(0, size), weights > 0)]
    return [(slice(0, weights), True), (slice(weights, size), False)]
