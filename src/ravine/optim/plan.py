"""The schedules of a population: every row's multipliers of lr, with warm-up, floor, and what was observed on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ravine import durations
from ravine.catalogue import Part, find
from ravine.errors import InputError

_MINIMISED = ("loss", "error", "rmse", "mse", "mae", "perplexity")


@dataclass
class _Plateau:
    """What a row's plateau schedule has seen."""

    scale: float = 1.0
    best: float | None = None
    bad: int = 0  # steps without improvement
    resting: int = 0  # steps of the cooldown that are left


class Schedules:
    """One schedule for each row; ``totals`` are the rows' lengths in steps, ``epoch_steps`` the steps of an epoch.

    A warm-up of W steps multiplies lr by warmup_start + (1 - warmup_start) i / W at its step i (``linear``), or by
    warmup_start (``constant``); the schedule itself starts after it and has the remaining steps. Percentages of the warm-up are of the
    whole run. No multiplier falls below ``floor``.

    >>> from ravine.catalogue import make
    >>> part = make("schedule", {"kind": "cosine", "warmup": "2it"})
    >>> Schedules([part], epoch_steps=5, totals=[6]).factors(0, 6)[:, 0].round(3).tolist()
    [0.0, 0.5, 1.0, 0.854, 0.5, 0.146]
    """

    def __init__(self, parts: Sequence[Part], *, epoch_steps: int, totals: Sequence[int]):
        self.parts, self.epoch_steps, self.totals = list(parts), epoch_steps, list(totals)
        self.plateaus = [_Plateau() if part.kind == "on_plateau" else None for part in parts]  # type: ignore[attr-defined]
        self._warmups = [self._warmup(part, total) for part, total in zip(parts, totals, strict=True)]

    def _warmup(self, part: Any, total: int) -> int:
        if part.warmup_kind == "constant" and part.warmup_start == 0 and not part.warmup.startswith("0"):
            raise InputError("schedule.warmup_start", got=0.0, expected="a multiplier > 0 for a constant warm-up", repair="try 0.1")
        return durations.steps(part.warmup, self.epoch_steps, total)

    def factors(self, first: int, last: int) -> np.ndarray:
        """Multipliers of lr of the steps ``first`` to ``last - 1`` (from 0), [last - first, P] float64."""
        known: dict[tuple[Any, ...], np.ndarray] = {}
        columns = []
        for row, part in enumerate(self.parts):
            key = (part, self.totals[row])
            if key not in known:
                known[key] = self._curve(part, self._warmups[row], self.totals[row], first, last)
            plateau = self.plateaus[row]
            columns.append(np.maximum(known[key] * (plateau.scale if plateau else 1.0), part.floor))  # type: ignore[attr-defined]
        return np.stack(columns, axis=1) if columns else np.zeros((last - first, 0))

    def _curve(self, part: Any, warmup: int, total: int, first: int, last: int) -> np.ndarray:
        t = np.arange(first, last)
        curve = _function(part)(np.maximum(t - warmup, 0), max(1, total - warmup), self.epoch_steps, **_own(part))
        if warmup:
            rising = part.warmup_kind == "linear"
            ramp = part.warmup_start + (1 - part.warmup_start) * (t / warmup if rising else 0.0)
            curve = np.where(t < warmup, ramp, curve)
        return curve

    def momentum(self, first: int, last: int) -> np.ndarray | None:
        """The momentum of the steps ``first`` to ``last - 1``, [last - first, P]; NaN where a row's own stands; None if all rows' do."""
        return None

    def observe(self, metrics: Mapping[str, np.ndarray]) -> None:
        """At the end of an epoch: the metrics of all rows, each [P]."""
        for row, (part, plateau) in enumerate(zip(self.parts, self.plateaus, strict=True)):
            if plateau is not None:
                self._see(part, plateau, _value(metrics, part.monitor, row))  # type: ignore[attr-defined]

    def _see(self, part: Any, plateau: _Plateau, value: float) -> None:
        epoch = self.epoch_steps
        if _improved(value, plateau.best, _minimised(part), part.threshold):
            plateau.best, plateau.bad = value, 0
        else:
            plateau.bad += epoch
        if plateau.resting > 0:
            plateau.resting, plateau.bad = plateau.resting - epoch, 0
        if plateau.bad > durations.steps(part.patience, epoch):
            plateau.scale *= part.factor
            plateau.resting, plateau.bad = durations.steps(part.cooldown, epoch), 0

    def state(self) -> dict[str, Any]:
        """What was observed so far, as JSON."""
        return {"plateaus": [plateau and asdict(plateau) for plateau in self.plateaus]}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.plateaus = [plateau and _Plateau(**plateau) for plateau in state["plateaus"]]

    def keep(self, rows: Sequence[int]) -> None:
        """These rows stay, in this order."""
        for name in ("parts", "totals", "plateaus", "_warmups"):
            setattr(self, name, [getattr(self, name)[row] for row in rows])


def _function(part: Any) -> Any:
    return find("schedule", part.kind).function()


def _own(part: Any) -> dict[str, Any]:
    return {name: getattr(part, name) for name in find("schedule", part.kind).fields}


def _value(metrics: Mapping[str, np.ndarray], monitor: str, row: int) -> float:
    if monitor not in metrics:
        known = ", ".join(sorted(metrics))
        raise InputError("schedule.monitor", got=monitor, expected=f"a metric of this run: {known}")
    return float(metrics[monitor][row])


def _minimised(part: Any) -> bool:
    if part.mode != "auto":
        return part.mode == "min"
    return any(word in part.monitor for word in _MINIMISED)


def _improved(value: float, best: float | None, minimised: bool, threshold: float) -> bool:
    if not np.isfinite(value):
        return False
    if best is None:
        return True
    return value < best * (1 - threshold) if minimised else value > best * (1 + threshold)
