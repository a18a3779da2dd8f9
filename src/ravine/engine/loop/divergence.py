"""What happens to a member that diverges: it is frozen (``stop``), skips the step (``report``), or
goes back to an earlier state (``rollback``).

It goes back at the end of an epoch only. Within an epoch it could go back only where a block ends,
which the clock decides, and the clock must not change a number.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from ravine.engine.loop.record import Record
from ravine.engine.rows.members import Arrays, Column, Facts, Members, Newcomers
from ravine.engine.rows.step import Measured

FACTOR = 0.2  # of the learning rate, at every return
# times the last good epoch's mean loss, and TWICE the first step's: diverged, though finite
BLOWN = 10.0
TWICE = 2.0
FACTS = ("step", "loss", "factor", "returns", "first", "values")


@dataclass
class Good:
    """The state that a member goes back to: all it owned at the end of its last good epoch."""

    step: int
    loss: float | None = None  # the epoch's mean; none at the beginning
    factor: float = 1.0  # of the recipe's learning rate, from now on
    returns: int = 0
    first: float | None = None  # the loss of the very first step
    arrays: Arrays = field(default_factory=dict)
    values: Facts = field(default_factory=dict)


class Rollback(Column):
    """The good states of the members with ``on_trouble = "rollback"``; a column of the members' table
    itself."""

    name = "rollback"

    def __init__(self, members: Members):
        self.members = members
        self.good: list[Good | None] = [None] * len(members)
        members.add(self)

    def begin(self, rows: Sequence[int]) -> None:
        """Keep the state with which these rows begin."""
        for row in rows:
            if self.members.recipes[row].stop.on_trouble == "rollback":
                arrays, values = self.members.take(row)
                self.good[row] = Good(0, arrays=arrays, values=values)

    @property
    def waits(self) -> bool:
        """Whether a diverged member may still go back."""
        return any(good is not None for good in self.good)

    def factors(self) -> np.ndarray:
        """The factors of the members' learning rates [P]."""
        return np.array([1.0 if good is None else good.factor for good in self.good])

    def judge(self, row: int, step: int, losses: np.ndarray, alive: Tensor) -> str | None:
        """After an epoch with these losses: keep a good state, or go back to it, alive; says so
        where the member went back."""
        good, recipe = self.good[row], self.members.recipes[row]
        if good is None:
            return None
        if good.first is None:
            good.first = float(losses[0])
        mean, lives = float(losses.mean()), bool(alive[row])
        if lives and not self._blown(good, mean):
            good.step, good.loss = step, mean
            good.arrays, good.values = self.members.take(row)
            return None
        if good.returns >= recipe.stop.rollbacks:
            return None
        good.returns += 1
        good.factor *= FACTOR
        self.members.put(row, good.arrays, good.values)
        alive[row] = True
        seen = (
            f"its mean loss rose to {mean:.4g}" if lives else "its loss or gradient was not finite"
        )
        return (
            f"return {good.returns} of at most {recipe.stop.rollbacks}: {seen}; from step {step} it goes on with the "
            f"weights of step {good.step} and lr {recipe.optimizer.lr * good.factor:.3g}"
        )

    def _blown(self, good: Good, mean: float) -> bool:
        first = good.first or 0.0
        before = first if good.loss is None else good.loss
        return not math.isfinite(mean) or (
            first > 0 and mean > BLOWN * before and mean > TWICE * first
        )

    # --- a column ---------------------------------------------------------------------------------

    def keep(self, rows: Sequence[int]) -> None:
        self.good = [self.good[row] for row in rows]

    def grow(self, new: Newcomers) -> None:
        self.good = [*self.good, *[None] * len(new)]

    def _of(self, rows: Sequence[int]) -> dict[int, Good]:
        named = {self.members.numbers[row]: self.good[row] for row in rows}
        return {number: good for number, good in named.items() if good is not None}

    def arrays(self, rows: Sequence[int]) -> Arrays:
        return {
            f"good/{number}/{name}": tensor
            for number, good in self._of(rows).items()
            for name, tensor in good.arrays.items()
        }

    def facts(self, rows: Sequence[int]) -> Facts:
        found = {
            str(number): {name: getattr(good, name) for name in FACTS}
            for number, good in self._of(rows).items()
        }
        return {self.name: found}

    def load(self, arrays: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        for number, values in facts.get(self.name, {}).items():
            prefix = f"good/{number}/"
            own = {n.removeprefix(prefix): t for n, t in arrays.items() if n.startswith(prefix)}
            self.good[self.members.numbers.index(int(number))] = Good(**values, arrays=own)


def skipped(losses: np.ndarray, norms: np.ndarray) -> str | None:
    """The report on a member that skipped steps with a loss or gradient that is not finite."""
    bad = ~(np.isfinite(losses) & np.isfinite(norms))
    return (
        f"{bad.sum()} of {len(losses)} steps had no finite loss or gradient and were skipped"
        if bad.any()
        else None
    )


def record_frozen(
    record: Record,
    rows: Sequence[int],
    numbers: Sequence[int],
    first: int,
    starts: Sequence[int],
    measured: Measured,
) -> None:
    """Record at which step of a block, and with which loss, these rows were frozen; ``first``: the
    population's step before the block."""
    for row in rows:
        losses, norms = measured.losses[:, row], measured.norms[:, row]  # [n]
        at = int((~(losses.isfinite() & norms.isfinite())).cpu().nonzero()[0])
        step, loss, norm = first - starts[row] + at, float(losses[at]), float(norms[at])
        text = f"frozen at step {step}: loss {loss:g}, gradient norm {norm:g}"
        data = {"loss": str(loss), "grad_norm": str(norm)}
        record.add_event(step, numbers[row], "frozen", text, data)


def report_averages(record: Record, rows: Sequence[int], numbers: Sequence[int], step: int) -> None:
    """Say of each of these rows, once, that the average it keeps is not finite any more."""
    told = {event["member"] for event in record.events("average")} if rows else set()
    for number in (numbers[row] for row in rows):
        if number not in told:
            text = (
                f"the average of the weights has NaN or infinity from step {step} on, the weights "
                "themselves have none: what is evaluated is the average; train without it"
            )
            record.add_event(step, number, "average", text)
            warnings.warn(f"member {number}: {text}", stacklevel=2)
