"""Statistics of paired comparisons: each seed is one pair, since members see the same batches and
the same split."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

LEVEL, POWER = 0.05, 0.8  # of tests, and of the number of seeds that would be needed
MOST = 10_000  # seeds: nobody trains more


def paired_tests(scores: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """Every pair by Student's paired t-test, p-values corrected for all pairs (Holm, 1979), the
    surest first.

    ``scores`` holds one number for each seed, the same seeds in the same order for all; pairs with
    a number that is not finite are left out. With fewer than two pairs p is 1.

    >>> rows = paired_tests({"a": [1.0, 2.0, 3.0, 4.0], "b": [2.1, 3.0, 4.1, 5.0]})
    >>> rows[0]["difference"] < -0.9 and rows[0]["p"] < 0.001
    True
    """
    rows: list[dict[str, Any]] = []
    for one, other in itertools.combinations(scores, 2):
        difference = _differences(scores, one, other)
        rows.append(
            {
                "one": one,
                "other": other,
                "pairs": len(difference),
                "difference": float(difference.mean()) if difference.size else math.nan,
                "raw p": _p(difference),
                "seeds needed": None,
            }
        )
    for row in rows:
        if row["raw p"] * len(rows) >= LEVEL:
            difference = _differences(scores, row["one"], row["other"])
            row["seeds needed"] = seeds_needed(difference, LEVEL / len(rows))
    for row, corrected in zip(rows, holm([row["raw p"] for row in rows]), strict=True):
        row["p"] = corrected
    return sorted(rows, key=lambda row: row["p"])


def _differences(scores: Mapping[str, Sequence[float]], one: str, other: str) -> np.ndarray:
    pairs = np.array([scores[one], scores[other]], float)
    pairs = pairs[:, np.isfinite(pairs).all(0)]
    return pairs[0] - pairs[1]


def seeds_needed(
    differences: Sequence[float] | np.ndarray, level: float = LEVEL, power: float = POWER
) -> int | None:
    """The least number of seeds with which a paired t-test finds a difference of this mean and
    deviation with this power; MOST if more would be needed, None where nothing can be estimated
    (fewer than two pairs, or all alike).

    The power for n pairs is that of the noncentral t distribution with n - 1 degrees of freedom and
    noncentrality sqrt(n) |mean| / sd.

    >>> seeds_needed([0.5, 1.5, -0.3, 0.9, 0.4])
    12

    Source: Cohen, "Statistical power analysis for the behavioral sciences", 1988.
    """
    found = np.asarray(differences, float)
    if found.size < 2 or np.ptp(found) == 0:
        return None
    effect = abs(found.mean()) / found.std(ddof=1)

    def enough(n: int) -> bool:
        edge = stats.t.ppf(1 - level / 2, n - 1)
        # t^2 is noncentral F; SciPy's noncentral t itself is not a number for many n.
        return bool(stats.ncf.sf(edge**2, 1, n - 1, n * effect**2) >= power)

    if not enough(MOST):
        return MOST
    low, high = 1, MOST  # not enough, enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction: the k-th smallest of m is multiplied by m - k + 1, and none is
    less than the one before.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03, 0.005])]
    [0.03, 0.06, 0.06, 0.02]
    """
    order = np.argsort(p)
    raised = np.asarray(p, float)[order] * np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(raised))
    return [float(value) for value in corrected]


def _p(difference: np.ndarray) -> float:
    if difference.size < 2:
        return 1.0
    if np.ptp(difference) == 0:  # the same in every pair: no variance to test against
        return 1.0 if difference[0] == 0 else 0.0
    return float(stats.ttest_1samp(difference, 0.0).pvalue)
