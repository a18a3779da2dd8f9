"""Successive halving: at given ages members are judged against all that have come so far; the
losers' rows are refilled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ravine.catalogue import durations
from ravine.engine.loop.record import Record, metrics_of
from ravine.errors import InputError
from ravine.measures import better_is

DROPPED = "dropped by halving"  # how the reasons of members that leave at a rung begin
COARSE_END = "end of the coarse stage"
Standing = float | tuple[float, ...]


@dataclass(frozen=True)
class Halving:
    """The rule, as data: at ``first``, ``first`` · eta, ``first`` · eta², … a member stays if it is
    among the best 1/eta.

    It is judged by ``metric`` against every member that has reached the same age, so that no member waits
    for another (ASHA in its stopping form). Ties are broken by the mean of ``metric`` over
    the second half of their epochs, then by their places. In a ``coarse`` population the last of
    these ages is the end of all.

    >>> Halving(first="2ep", eta=3).rungs(epoch_steps=10, total=300)
    [20, 60]

    Source: Li et al., "A system for massively parallel hyperparameter tuning", 2020.
    """

    metric: str = "val_loss"
    first: str = "1ep"
    eta: int = 3
    coarse: bool = False

    def __post_init__(self) -> None:
        if self.eta < 2:
            raise InputError("halving.eta", got=self.eta, expected="a whole number of at least 2")
        durations.parse(self.first)

    def rungs(self, epoch_steps: int, total: int) -> list[int]:
        """The ages in steps at which members are judged; whole epochs, none after half of
        ``total``."""
        step = durations.steps(self.first, epoch_steps)
        step = max(1, math.ceil(step / epoch_steps)) * epoch_steps
        found = []
        while 2 * step <= total:
            found.append(step)
            step *= self.eta
        return found

    def stays(self, value: Standing, all_values: Sequence[Standing]) -> bool:
        """Whether ``value`` is among the best 1/eta (rounded up) of all values at a rung, its own
        included.

        A value is a number, or several, of which the later ones break ties.

        >>> rule = Halving("val_accuracy", eta=2)
        >>> [rule.stays(v, [0.1, 0.5, 0.9, float("nan")]) for v in (0.1, 0.5, 0.9, float("nan"))]
        [False, True, True, False]
        >>> [rule.stays(v, [(0.9, 0.8), (0.9, 0.7), (0.9, 0.6)]) for v in ((0.9, 0.7), (0.9, 0.6))]
        [True, False]
        """
        own, *others = (
            value if isinstance(value, tuple) else (value,) for value in (value, *all_values)
        )
        if not math.isfinite(own[0]):
            return False
        sign = 1.0 if better_is(self.metric) == "min" else -1.0
        better = sum(
            [sign * v for v in other] < [sign * v for v in own]
            for other in others
            if math.isfinite(other[0])
        )
        return better < math.ceil(len(all_values) / self.eta)

    def judge(
        self,
        record: Record,
        rows: Sequence[dict[str, Any]],
        epoch_steps: int,
        totals: Sequence[int],
    ) -> list[str | None]:
        """Record which members have reached a rung; the reason why each member leaves, None for those that
        stay."""
        at = [
            row["step"] if row["step"] in self.rungs(epoch_steps, total) else None
            for row, total in zip(rows, totals, strict=True)
        ]
        for row, rung in zip(rows, at, strict=True):
            if rung is not None:
                if self.metric not in row:
                    known = ", ".join(metrics_of(row))
                    raise InputError("halving.metric", got=self.metric, expected=f"one of {known}")
                recent = recently(
                    [one.get(self.metric, math.nan) for one in record.epochs(row["member"])]
                )
                text = f"at {row['epoch']:g} epochs {self.metric} is {row[self.metric]:.6g}"
                data = {"rung": row["epoch"], "value": str(row[self.metric]), "recent": str(recent)}
                record.add_event(row["step"], row["member"], "rung", text, data)
        if not any(at):
            return [None] * len(rows)
        values: dict[float, dict[int, Standing]] = {}
        sign = 1.0 if better_is(self.metric) == "min" else -1.0
        for event in record.events("rung"):
            data, member = event["data"], event["member"]
            standing = float(data["value"]), float(data.get("recent", data["value"])), sign * member
            values.setdefault(data["rung"], {})[member] = standing
        return [
            None
            if rung is None
            else self._leaves(row, values[row["epoch"]], rung == self.rungs(epoch_steps, total)[-1])
            for row, rung, total in zip(rows, at, totals, strict=True)
        ]

    def _leaves(self, row: dict[str, Any], values: dict[int, Standing], last: bool) -> str | None:
        """Why a member at a rung leaves; None if it stays."""
        if not self.stays(values[row["member"]], list(values.values())):
            return f"{DROPPED} at {row['epoch']:g}ep"
        return f"{COARSE_END} at {row['epoch']:g}ep" if last and self.coarse else None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def recently(values: Sequence[float]) -> float:
    """The mean over the second half of a run's epochs, at least three; NaN if one of them is.

    >>> recently([0.25, 0.25, 0.25, 0.5, 0.75, 1.0])
    0.75
    """
    last = values[-max(3, len(values) // 2) :]
    return math.fsum(last) / len(last) if last else math.nan
