"""What a script of the gallery receives: its size, places for its runs, and claims that are
checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

_T = TypeVar("_T")


@dataclass
class Number:
    """What was measured, and the rule that it was held against."""

    text: str
    mean: float
    low: float  # of the 95 % confidence interval of the mean over seeds; of one number, itself
    high: float
    count: int
    rule: str
    true: bool
    judged: bool = True  # whether the item's answer depends on it

    def shown(self) -> str:
        """``2.3 [2.1, 2.5] > 2``: the mean, its interval, the rule.

        >>> Number("steps saved", 2.3, 2.1, 2.5, 5, "> 2", True).shown()
        '2.3 [2.1, 2.5] > 2'
        """
        interval = f" [{self.low:.3g}, {self.high:.3g}]" if self.count > 1 else ""
        aside = "" if self.judged else " (a time: not judged in quick mode)"
        return f"{self.mean:.3g}{interval} {self.rule}{aside}"


@dataclass
class Item:
    """One item of the gallery while it runs.

    ``quick`` asks for smaller sizes with the same claims; ``folder`` is where runs go.
    """

    folder: Path
    quick: bool = False
    numbers: list[Number] = field(default_factory=list)
    animation: tuple[Any, Callable[[int], object], int] | None = None

    def animate(self, figure: Any, frame: Callable[[int], object], count: int) -> None:
        """Add an animation to the figure: ``frame(k)`` draws frame k of ``count`` into ``figure``."""
        self.animation = figure, frame, count

    def size(self, full: _T, quick: _T) -> _T:
        """The size of this run: ``full``, or ``quick`` in quick mode."""
        return quick if self.quick else full

    def out(self, name: str = "runs") -> Path:
        """A directory for the runs or the study of this name."""
        return self.folder / name

    def claim(
        self,
        text: str,
        values: float | Sequence[float] | np.ndarray,
        *,
        above: float | None = None,
        below: float | None = None,
        timed: bool = False,
    ) -> bool:
        """State a number and hold it against bounds; give back whether it holds.

        ``values``: one number, or one a seed. Of several, the 95 % confidence interval of their
        mean (Student's t) must lie above ``above`` and below ``below`` as a whole. ``timed``: a
        measured time, which depends on the machine and on what runs beside; quick mode shows it
        and judges by the other numbers.

        >>> item = Item(Path())
        >>> item.claim("two seeds", [2.0, 2.2], above=0)
        True
        >>> item.claim("two seeds apart", [1.0, 3.0], above=0)  # the interval holds 0
        False
        """
        found = np.asarray(values, float).ravel()
        mean, half = float(found.mean()), _half_width(found)
        bounds = [("> ", above), ("< ", below)]
        rule = " and ".join(f"{sign}{bound:.4g}" for sign, bound in bounds if bound is not None)
        holds = (above is None or mean - half > above) and (below is None or mean + half < below)
        judged = not (timed and self.quick)
        number = Number(text, mean, mean - half, mean + half, len(found), rule, bool(holds), judged)
        self.numbers.append(number)
        return number.true


def _half_width(values: np.ndarray) -> float:
    if len(values) < 2:
        return 0.0
    from scipy.stats import t

    return float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))


def plain(numbers: Sequence[Number]) -> list[dict[str, Any]]:
    """Numbers for results.json: of four digits, so that a stored file changes only with its
    meaning."""
    digits = {"mean", "low", "high"}
    return [
        {k: float(f"{v:.4g}") if k in digits else v for k, v in vars(number).items()}
        for number in numbers
    ]
