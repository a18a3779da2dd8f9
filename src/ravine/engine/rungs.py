"""Successive halving: at given ages members are judged against all that have come so far; the losers' rows are refilled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ravine import durations
from ravine.engine.evaluate import better_is
from ravine.errors import InputError
from ravine.rundir import RunDir


@dataclass(frozen=True)
class Halving:
    """The rule, as data: at ``first``, ``first`` · eta, ``first`` · eta², … a member stays if it is among the best 1/eta.

    It is judged by ``metric`` against every member that has reached the same age, so nobody waits for anybody
    (ASHA in its stopping form).

    >>> Halving(first="2ep", eta=3).rungs(epoch_steps=10, total=300)
    [20, 60]

    Source: Li et al., "A system for massively parallel hyperparameter tuning", 2020.
    """

    metric: str = "val_loss"
    first: str = "1ep"
    eta: int = 3

    def __post_init__(self) -> None:
        if self.eta < 2:
            raise InputError("halving.eta", got=self.eta, expected="a whole number of at least 2")
        durations.parse(self.first)

    def rungs(self, epoch_steps: int, total: int) -> list[int]:
        """The ages in steps at which members are judged; whole epochs, none after half of ``total``."""
        step = durations.steps(self.first, epoch_steps)
        step = max(1, math.ceil(step / epoch_steps)) * epoch_steps
        found = []
        while 2 * step <= total:
            found.append(step)
            step *= self.eta
        return found

    def stays(self, value: float, all_values: Sequence[float]) -> bool:
        """Whether ``value`` is among the best 1/eta (rounded up) of all values at a rung, its own included.

        >>> rule = Halving("val_accuracy", eta=2)
        >>> [rule.stays(v, [0.1, 0.5, 0.9, float("nan")]) for v in (0.1, 0.5, 0.9, float("nan"))]
        [False, True, True, False]
        """
        if not math.isfinite(value):
            return False
        sign = 1.0 if better_is(self.metric) == "min" else -1.0
        better = sum(sign * other < sign * value for other in all_values if math.isfinite(other))
        return better < math.ceil(len(all_values) / self.eta)

    def judge(self, rundir: RunDir, rows: Sequence[dict[str, Any]], epoch_steps: int, totals: Sequence[int]) -> list[str | None]:
        """Record who stands at a rung; the reason why each member leaves, None for those that stay."""
        at = [
            row["step"] if row["step"] in self.rungs(epoch_steps, total) else None for row, total in zip(rows, totals, strict=True)
        ]
        for row, rung in zip(rows, at, strict=True):
            if rung is not None:
                if self.metric not in row:
                    known = ", ".join(sorted(name for name in row if name not in ("member", "epoch", "step", "seconds")))
                    raise InputError("halving.metric", got=self.metric, expected=f"one of {known}")
                text = f"at {row['epoch']:g} epochs {self.metric} is {row[self.metric]:.6g}"
                rundir.add_event(row["step"], row["member"], "rung", text, {"rung": row["epoch"], "value": str(row[self.metric])})
        if not any(at):
            return [None] * len(rows)
        values: dict[float, list[float]] = {}
        for event in rundir.events("rung"):
            values.setdefault(event["data"]["rung"], []).append(float(event["data"]["value"]))
        return [
            f"halved at {row['epoch']:g}ep" if rung and not self.stays(row[self.metric], values[row["epoch"]]) else None
            for row, rung in zip(rows, at, strict=True)
        ]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
