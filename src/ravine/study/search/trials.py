"""Configurations that a search has tried, and which of them are better."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ravine.engine.loop.halving import COARSE_END, DROPPED, recently
from ravine.recipe import Recipe
from ravine.study import measuring

FINALISTS = 2  # of each method


@dataclass(frozen=True)
class Trial:
    """One configuration that was tried."""

    method: str
    round: int
    values: dict[str, Any]
    recipe: Recipe
    result: dict[str, Any]
    recent: float  # the metric's mean over the second half of the epochs: breaks ties


@dataclass(frozen=True)
class Outcome:
    """A finalist (or the recipe as it was, where ``trial`` is None) on fresh seeds."""

    trial: Trial | None
    recipe: Recipe
    runs: list[Any]
    scores: list[float]


def finalists_of(trials: Sequence[Trial], metric: str) -> list[Trial]:
    """The best two of each method, and no configuration twice."""
    found: dict[str, Trial] = {}
    for name in dict.fromkeys(trial.method for trial in trials):
        own = sorted(
            (trial for trial in trials if trial.method == name),
            key=lambda trial: rank(trial, metric),
        )
        whole = {trial.recipe.hash: trial for trial in reversed(own) if age(trial) == age(own[0])}
        best = [trial for trial in own if whole.get(trial.recipe.hash) is trial]
        found |= {
            trial.recipe.hash: trial for trial in best[:FINALISTS] if trial.recipe.hash not in found
        }
    return list(found.values())


def rank(trial: Trial, metric: str) -> tuple[int, float, float]:
    """A key that sorts the best trial first: those that ran longest, by the metric, equals by its
    last epochs."""
    return age(trial), *ranked(trial.result.get(metric, math.nan), trial.recent, metric)


def age(trial: Trial) -> int:
    """0 for a trial that ran to its end, then those of a coarse round, those that were dropped,
    those that diverged."""
    ends = (COARSE_END, DROPPED, "diverged")
    stopped = str(trial.result["stopped"])
    return next((place for place, end in enumerate(ends, 1) if stopped.startswith(end)), 0)


def ranked(value: float, recent: float, metric: str) -> tuple[float, float]:
    return measuring.score({metric: value}, metric)[0], measuring.score({metric: recent}, metric)[0]


def recent_of(run: Any, metric: str) -> float:
    return recently([float(value) for value in run.metrics.get(metric, ())])


def best_of(outcomes: Sequence[Outcome], metric: str) -> Outcome:
    def place(outcome: Outcome) -> tuple[float, float]:
        recent = float(np.mean([recent_of(run, metric) for run in outcome.runs]))
        # one that is not finite comes last
        return ranked(float(np.mean(outcome.scores)), recent, metric)

    return min(outcomes, key=place)
