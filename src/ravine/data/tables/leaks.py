"""Columns that give the target away: equal to it, or such that each of their values has one
target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

_LEAST_ROWS = 20
_SAME = 1e-6  # 1 - |correlation| up to which a column is the target, rounded or in other units
_MOST_ROWS = 200_000
_SCREENED = 3_000  # rows that are looked at first: most columns are no leak there already


def leak(column: Mapping[str, Any], values: np.ndarray, y: np.ndarray, classes: int) -> str:
    """Why a column [N] gives the target [N] away; "" where it does not. ``classes``: 0 for a
    regression. Rows without a value are not counted.

    >>> y = np.arange(40.0)
    >>> leak({"kind": "number"}, 1.19 * y + 3, y, 0)
    'it is the target in other units'
    """
    known = ~np.isnan(values)
    values, y = values[known][:_MOST_ROWS], y[known][:_MOST_ROWS]
    if len(values) < max(_LEAST_ROWS, 0.5 * len(known)) or (y == y[0]).all():
        return ""
    numeric = column["kind"] in ("number", "date", "flag")
    if len(values) > 2 * _SCREENED:
        every = len(values) // _SCREENED
        if not _found(numeric, values[::every], y[::every], classes):
            return ""
    return _found(numeric, values, y, classes)


def _found(numeric: bool, values: np.ndarray, y: np.ndarray, classes: int) -> str:
    found = _number_leak(values, y, classes) if numeric else ""
    return found or _value_leak(values, y, classes)


def _number_leak(values: np.ndarray, y: np.ndarray, classes: int) -> str:
    if values.std() == 0:
        return ""
    if not classes:
        correlation = abs(_correlation(values, y))
        if 1 - correlation < _SAME:
            return (
                "it is the target" if np.allclose(values, y) else "it is the target in other units"
            )
        if len(np.unique(y)) > 10 and 1 - abs(_rank_correlation(values, y)) < _SAME:
            return "it rises with the target everywhere: it determines it"
        return ""
    order = np.argsort(values, kind="stable")
    changes = int((np.diff(y[order]) != 0).sum())
    edges = np.flatnonzero(np.diff(y[order]))
    clean = all(values[order[e]] < values[order[e + 1]] for e in edges)
    if changes == len(np.unique(y)) - 1 and clean and len(y) >= 3 * classes:
        return "it separates the classes without a single error: it determines the target"
    return ""


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    ranks = [np.unique(x, return_inverse=True)[1].astype(np.float64) for x in (a, b)]
    if min(rank.std() for rank in ranks) == 0:
        return 0.0
    return _correlation(*ranks)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def _value_leak(values: np.ndarray, y: np.ndarray, classes: int) -> str:
    """Whether each value that comes often enough has one target."""
    different, code, counts = np.unique(values, return_inverse=True, return_counts=True)
    if len(different) < 2 or len(different) > len(values) / 5:
        return ""
    sums = np.bincount(code, y) / counts
    within = float(((y - sums[code]) ** 2).sum())
    total = float(((y - y.mean()) ** 2).sum())
    if within <= 1e-9 * total and (classes or len(different) > 2):
        return "each of its values has one target: it determines it"
    return ""
