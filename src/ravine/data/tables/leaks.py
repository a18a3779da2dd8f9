"""Columns that give the target away: a copy of it, in other units or other names (left out), and
columns that determine it without being a copy (named, and kept: they may be honest)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

_LEAST_ROWS = 20
_SAME = 1e-6  # 1 - |correlation| up to which a column is the target, rounded or in other units
_NEAR = 1e-3  # and up to which it is named
_COPY = 1e-3  # share of a column's variance within the classes up to which it is a copy with noise
_CHANCE = -12.0  # the logarithm of how likely it is that so many rows are of one class by chance
_MOST_ROWS = 200_000
_SCREENED = 3_000  # rows that are looked at first: most columns are no leak there already
_WIDE = 10  # the deviation of whole numbers from which rounding them is little


@dataclass(frozen=True)
class Leak:
    """Why a column gives the target away; ``copy``: it is the target itself, in other words."""

    why: str
    copy: bool


def leak(column: Mapping[str, Any], values: np.ndarray, y: np.ndarray, classes: int) -> Leak | None:
    """How a column [N] gives the target [N] away; None where it does not. ``classes``: 0 for a
    regression. Rows without a value are not counted, but for where values stand at all: a day of
    discharge that the sick alone have.

    >>> y = np.arange(40.0)
    >>> leak({"kind": "number"}, 1.19 * y + 3, y, 0)
    Leak(why='it is the target in other units', copy=True)
    """
    known = ~np.isnan(values)
    if classes and (found := _by_gaps(known, y)):
        return found
    values, y = values[known][:_MOST_ROWS], y[known][:_MOST_ROWS]
    if len(values) < max(_LEAST_ROWS, 0.5 * len(known)) or (y == y[0]).all():
        return None
    numeric = column["kind"] in ("number", "date")
    if len(values) > 2 * _SCREENED:
        every = len(values) // _SCREENED
        if not _found(numeric, values[::every], y[::every], classes):
            return None
    return _found(numeric, values, y, classes)


def _by_gaps(known: np.ndarray, y: np.ndarray) -> Leak | None:
    """Whether a value stands, or is missing, in rows of one class alone, and not by chance."""
    for rows, word in ((known, "have"), (~known, "lack")):
        one = y[rows]
        if _LEAST_ROWS <= len(one) < len(y) and (one == one[0]).all():
            elsewhere = float((y[~rows] == one[0]).mean())
            if (
                len(one) * np.log(max(float((y == one[0]).mean()), 1e-9)) < _CHANCE
                and elsewhere < 0.5
            ):
                return Leak(f"only rows of one class {word} a value", False)
    return None


def _found(numeric: bool, values: np.ndarray, y: np.ndarray, classes: int) -> Leak | None:
    if values.std() == 0:
        return None
    found = _by_value(values, y, classes)
    if found is None and numeric:
        found = _separating(values, y, classes) if classes else _rising(values, y)
    return found


def _rising(values: np.ndarray, y: np.ndarray) -> Leak | None:
    """Whether a number is the target of a regression, or says where it is."""
    apart = 1 - abs(_correlation(values, y))
    if apart < _SAME:
        same = np.allclose(values, y)
        return Leak("it is the target" if same else "it is the target in other units", True)
    if _rounded(y, values) or _rounded(values, y):
        return Leak("it is the target in other units, rounded", True)
    if len(np.unique(y)) > 10 and 1 - abs(_rank_correlation(values, y)) < _SAME:
        return Leak("it rises with the target everywhere: it is a function of it", True)
    if apart < _NEAR:
        return Leak(f"its correlation with the target is {1 - apart:.4f}", False)
    return None


def _rounded(fine: np.ndarray, whole: np.ndarray) -> bool:
    """Whether whole numbers are a multiple of other ones, and a constant, to the next whole number."""
    if whole.std() < _WIDE or (whole != np.round(whole)).any():
        return False
    slope, base = np.polyfit(fine, whole, 1)
    return bool(np.abs(whole - slope * fine - base).max() <= 0.51)


def _separating(values: np.ndarray, y: np.ndarray, classes: int) -> Leak | None:
    """Whether thresholds of a number tell the classes without an error."""
    if len(y) < 3 * classes:
        return None
    order = np.argsort(values, kind="stable")
    edges = np.flatnonzero(np.diff(y[order]))
    if len(edges) >= classes or len(edges) != len(np.unique(y)) - 1:
        return None
    if (values[order[edges]] == values[order[edges + 1]]).any():
        return None
    within = _within(values, np.unique(y, return_inverse=True)[1])
    if within <= _COPY:
        return Leak("it is the target with a little noise", True)
    return Leak("it separates the classes without a single error", False)


def _by_value(values: np.ndarray, y: np.ndarray, classes: int) -> Leak | None:
    """Whether each value that comes often enough has one target."""
    different, code = np.unique(values, return_inverse=True)
    if len(different) < 2 or len(different) > len(values) / 5:
        return None
    if _within(y, code) > 1e-9 or not (classes or len(different) > 2):
        return None
    if len(different) == len(np.unique(y)):
        return Leak("each of its values has one target, and each target one of its values", True)
    return Leak("each of its values has one target", False)


def _within(values: np.ndarray, group: np.ndarray) -> float:
    """The share of the variance of values [N] that is within groups [N]."""
    mean = np.bincount(group, values) / np.bincount(group)
    total = float(((values - values.mean()) ** 2).sum())
    return float(((values - mean[group]) ** 2).sum()) / total if total else 0.0


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    ranks = [np.unique(x, return_inverse=True)[1].astype(np.float64) for x in (a, b)]
    if min(rank.std() for rank in ranks) == 0:
        return 0.0
    return _correlation(*ranks)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1])
