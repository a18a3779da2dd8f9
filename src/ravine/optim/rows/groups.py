"""Rows of one kind with the same flags form a group: their numbers, their slots, and how formulas
are run over them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ravine.catalogue import Part
from ravine.catalogue.own import PREFIX
from ravine.errors import InputError, RavineError, first_line
from ravine.layout import Layout

Rows = slice | Tensor  # which rows of a matrix: a slice where they are neighbours, else an index
# of a rate or any other number: larger ones lead out of float32 as surely, and kernels refuse numbers that
# they cannot hold
LARGEST = 1e30


@dataclass(slots=True)
class Now:
    """What changes from step to step, of all P rows: tensors [P], and the same as lists where rows
    are on the CPU."""

    lr: Tensor
    alive: Tensor
    t: Tensor
    momentum: Tensor | None
    lrs: list[float]
    lives: list[bool]
    ts: list[float]
    momenta: list[float] | None

    def same(self, rows: Sequence[int], *, rates: bool = True) -> bool:
        """Whether these rows are at the same step, with the same momentum and the same rates."""
        first, columns = rows[0], [self.ts]
        columns += [self.lrs] if rates else []
        columns += [] if self.momenta is None else [self.momenta]
        return all(column[row] == column[first] for column in columns for row in rows)


class RowGroup:
    """The rows of one kind whose flags, and whose numbers that are zero, agree."""

    def __init__(
        self,
        rows: Sequence[int],
        parts: Sequence[Any],
        layout: Layout,
        device: torch.device,
        dtype: torch.dtype,
    ):
        first = parts[0]
        self.rows = list(rows)  # rows of theta; position i of the group is rows[i]
        self.kind: str = first.kind
        technique = first.technique
        self.formula, self.marks = technique.function(), technique.marks
        self.flags = {
            name: value for name, value in own(first).items() if not isinstance(value, float)
        }
        self.numbers: list[dict[str, float]] = [
            {
                name: min(value, LARGEST)
                for name, value in own(part).items()
                if isinstance(value, float)
            }
            for part in parts
        ]
        self.layout = layout if first.decay == "weights" else replace(layout, weights=layout.size)
        self.device, self.dtype = device, dtype
        # name -> [rows of the group, D]
        self.slots = {name: self.empty() for name in self._slot_names()}
        names = [name for name in ("momentum", "beta1") if self.numbers[0].get(name)]
        # the number that a momentum schedule sets; none: not used
        self.momentum_name = names[0] if names else None

    @cached_property
    def select(self) -> Rows:
        return selection(self.rows, self.device)

    @property
    def whole(self) -> bool:
        return "whole_tensors" in self.marks

    def empty(self) -> Tensor:
        return torch.zeros(len(self.rows), self.layout.size, device=self.device, dtype=self.dtype)

    def _slot_names(self) -> list[str]:
        """The slots that the formula asks for, by a trial on a single parameter."""
        asked: defaultdict[str, Tensor] = defaultdict(lambda: torch.zeros(1, 1))
        w, one = torch.zeros(1, 1), Layout.of([("w", (1,), "weight", 0)])
        self.formula(w, torch.zeros_like(w), asked, 1.0, one, **self.flags, **self.numbers[0])
        return list(asked)

    def numbers_at(self, position: int, lr: float, momentum: float | None) -> dict[str, float]:
        """The numbers of one row at this step; a momentum that is not a number (NaN) is not
        scheduled."""
        numbers = dict(self.numbers[position])
        if self.flags.get("decay_by") == "schedule":
            numbers["weight_decay"] *= lr / numbers["lr"]
        if "unscheduled" not in self.marks:
            numbers["lr"] = lr
        if self.momentum_name and momentum is not None and momentum == momentum:
            numbers[self.momentum_name] = momentum
        return numbers

    def columns(self, positions: Sequence[int]) -> dict[str, Any]:
        """The numbers of some rows as float64 columns [n, 1]; zeros stay the plain float zero."""
        return {
            name: torch.tensor(
                [[self.numbers[i][name]] for i in positions],
                dtype=torch.float64,
                device=self.device,
            )
            if self.numbers[0][name] or name == "lr"
            else 0.0
            for name in self.numbers[0]
        }

    def columns_now(
        self, fixed: dict[str, Any], rows: Rows, now: Now
    ) -> tuple[Tensor, dict[str, Any]]:
        """The step numbers t and the columns of some rows at this step, from their fixed
        columns."""
        numbers = dict(fixed)
        lr = now.lr[rows].unsqueeze(1)
        if self.flags.get("decay_by") == "schedule":
            numbers["weight_decay"] = numbers["weight_decay"] * (lr / numbers["lr"])
        if "unscheduled" not in self.marks:
            numbers["lr"] = lr
        if self.momentum_name and now.momentum is not None:
            momentum = now.momentum[rows].unsqueeze(1)
            numbers[self.momentum_name] = torch.where(
                momentum.isnan(), numbers[self.momentum_name], momentum
            )
        return now.t[rows].unsqueeze(1), numbers


def on_host(device: torch.device) -> bool:
    """Whether numbers can be read at no cost."""
    return device.type == "cpu"


def own(part: Any) -> dict[str, Any]:
    """The technique's own fields of an optimiser part, without those that all optimisers share."""
    return part.arguments


def key(part: Any) -> tuple[Any, ...]:
    """Rows with equal keys form one group."""
    fields = own(part)
    values = tuple(
        (name, value == 0.0 if isinstance(value, float) else value)
        for name, value in fields.items()
    )
    decay = part.decay if fields.get("weight_decay") else "weights"
    return (part.kind, decay, *values)


def selection(rows: Sequence[int], device: torch.device) -> Rows:
    """Neighbouring rows as a slice, others as an index."""
    if list(rows) == list(range(rows[0], rows[0] + len(rows))):
        return slice(rows[0], rows[0] + len(rows))
    return torch.tensor(rows, device=device)


def grouped(
    parts: Sequence[Part], layout: Layout, device: torch.device, dtype: torch.dtype
) -> list[RowGroup]:
    """The groups of a population, in the order of their first rows."""
    members: dict[tuple[Any, ...], list[int]] = {}
    for row, part in enumerate(parts):
        if "torch" not in part.technique.marks:  # those are objects, which step by themselves
            members.setdefault(key(part), []).append(row)
    return [
        RowGroup(rows, [parts[r] for r in rows], layout, device, dtype) for rows in members.values()
    ]


def check_formula(part: Part) -> None:
    """A formula of a person's own is called once on a single parameter; what fails is an InputError."""
    if not part.kind.startswith(PREFIX):
        return
    layout = Layout.of([("w", (1,), "weight", 0)])
    try:
        RowGroup([0], [part], layout, torch.device("cpu"), torch.float32)
    except RavineError:  # nobody has brought it
        raise
    except Exception as error:  # a person's formula may fail in any way
        raise InputError(
            "optimizer",
            got=f"{part.kind.removeprefix(PREFIX)}, whose formula fails "
            f"({type(error).__name__}: {first_line(error)})",
            expected="a function of (w, g, state, t, layout) that changes w [P, D] in place",
            repair="fields are numbers or columns [P, 1], which broadcast: w.sub_(lr * g); "
            'state["NAME"] is a slot like w, zero at first',
        ) from None
