"""Statistics of paired comparisons: each seed is one pair, since members see the same batches and
the same split."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats


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
        pairs = np.array([scores[one], scores[other]], float)
        pairs = pairs[:, np.isfinite(pairs).all(0)]
        difference = pairs[0] - pairs[1]
        rows.append(
            {
                "one": one,
                "other": other,
                "pairs": pairs.shape[1],
                "difference": float(difference.mean()) if difference.size else math.nan,
                "raw p": _p(difference),
            }
        )
    for row, corrected in zip(rows, holm([row["raw p"] for row in rows]), strict=True):
        row["p"] = corrected
    return sorted(rows, key=lambda row: row["p"])


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
