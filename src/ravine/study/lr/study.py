"""The learning-rate panel: many rates at once, from too low to diverged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np

from ravine.catalogue import Duration, Positive
from ravine.errors import InputError
from ravine.recipe import Recipe
from ravine.report.courses import smoothed
from ravine.study.declare import Conclusion, OfRecipe, study
from ravine.study.directory import Study
from ravine.study.live import LiveTable
from ravine.study.lr.figures import page_of
from ravine.study.signature import Trained

# a rate is in the range where its loss has fallen by all but this part of the best rate's fall
NEAR = 0.1
SLOW = 0.5  # a rate is too low where it has fallen by less than this part


@study
def lr(
    study: Study,
    recipe: Recipe,
    *,
    low: Positive = 1e-6,
    high: Positive = 10.0,
    rates: Trained = 24,
    after: Duration = "200it",
    **common: Unpack[OfRecipe],
) -> Conclusion:
    """The learning-rate panel: many rates at once, a suggested range, the edge of divergence.

    ``rates`` learning rates from ``low`` to ``high``, evenly in the logarithm, train side by side
    with a constant schedule. Each rate is judged by how far its smoothed training loss has fallen from the first loss,
    against the best rate's fall: ``good`` (all but a tenth), ``slow`` or ``high`` (less), ``too
    low`` (less than half, below the good ones), ``diverged`` (not finite, or above the first loss).
    The suggested range are the good rates around the best; the edge of divergence lies between the
    last rate that did not diverge and the first that did.

    Args:
        low: The lowest rate.
        high: The highest rate.
        rates: How many rates.
        after: How long each trains, e.g. 200it or 3ep.

    >>> recipe = Recipe(data={"source": "blobs"}, model="softmax", optimizer="sgd")
    >>> found = lr(recipe, rates=6, after="30it", quiet=True, out=tmp / "lr")
    >>> low, high = found["range"]
    >>> low <= found["suggested"] <= high
    True
    """
    if not low < high:
        raise InputError("--low and --high", got=[low, high], expected="0 < low < high")
    if rates < 3:
        raise InputError("--rates", got=rates, expected="a whole number of at least 3")
    values = [float(f"{rate:.4g}") for rate in np.geomspace(low, high, rates)]
    base = recipe.edit({"schedule": "constant", "stop": {"after": after}})
    recipes = [base.edit({"optimizer.lr": value}) for value in values]
    with LiveTable(f"learning rates of {recipe.name}", "train_loss", 1, quiet=study.quiet) as live:
        runs = study.train(
            "rates",
            recipes,
            report=live.stage("rates", recipes, [{"optimizer.lr": v} for v in values]),
        )
    losses = [run.losses for run in runs]
    stopped = [run.result["stopped"] for run in runs]
    return _conclude(study, values, losses, stopped)


def judge(
    rates: Sequence[float], losses: Sequence[np.ndarray], stopped: Sequence[str]
) -> dict[str, Any]:
    """The verdict on each rate, the suggested rate and range, and the edge of divergence."""
    first = float(np.median([loss[0] for loss in losses if len(loss)]))
    width = max(1, max(map(len, losses)) // 20)
    finals = [_final(loss, width, why) for loss, why in zip(losses, stopped, strict=True)]
    falls = np.array([first - final if math.isfinite(final) else -math.inf for final in finals])
    best = int(np.argmax(falls))
    share = falls / falls[best] if falls[best] > 0 else np.full(len(falls), -math.inf)
    good = share >= 1 - NEAR
    low = high = best
    while low > 0 and good[low - 1]:
        low -= 1
    while high + 1 < len(rates) and good[high + 1]:
        high += 1
    lost = [
        i
        for i in range(len(rates))
        if not math.isfinite(finals[i]) or finals[i] > max(first, 1e-300) * 1.05
    ]
    above = [i for i in lost if i > best] if falls[best] > 0 else lost
    edge = [rates[above[0] - 1] if above[0] else None, rates[above[0]]] if above else None
    verdicts = [_verdict(i, share[i], best, bool(good[i]), lost) for i in range(len(rates))]
    learns = bool(falls[best] > 0)
    return {
        "suggested": rates[best] if learns else None,
        "range": [rates[low], rates[high]] if learns else None,
        "edge": edge,
        "first_loss": first,
        "table": [
            {
                "optimizer.lr": rate,
                "final loss": final,
                "fall in %": float(100 * s) if math.isfinite(s) else None,
                "verdict": verdict,
            }
            for rate, final, s, verdict in zip(rates, finals, share, verdicts, strict=True)
        ],
    }


def _final(loss: np.ndarray, width: int, stopped: str) -> float:
    """The mean of the last losses; infinite where the run diverged."""
    if stopped == "diverged" or not len(loss) or not np.isfinite(loss[-width:]).all():
        return math.inf
    return float(loss[-width:].mean())


def _verdict(i: int, share: float, best: int, good: bool, lost: Sequence[int]) -> str:
    if i in lost:
        return "diverged"
    if good:
        return "good"
    if i < best:
        return "too low" if share < SLOW else "slow"
    return "high"


def _conclude(
    study: Study, rates: list[float], losses: list[np.ndarray], stopped: list[str]
) -> Conclusion:
    found = judge(rates, losses, stopped)
    width = max(1, max(map(len, losses)) // 20)
    # the ends are means of few
    courses = [smoothed(loss, width)[: max(1, len(loss) - width // 2)] for loss in losses]
    summary = {**found, "steps": max(map(len, losses)), "seconds": study.seconds}
    return summary, page_of(study, summary, rates, courses)
