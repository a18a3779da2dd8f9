"""``cross_validate``: the folds of scikit-learn's cross-validation trained as one population."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.base import clone, is_classifier
from sklearn.metrics import check_scoring
from sklearn.model_selection import check_cv
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing, indexable
from sklearn.utils.multiclass import type_of_target

from ravine.errors import InputError
from ravine.interop.estimator import RavineClassifier, RavineRegressor, fit_folds
from ravine.recipe import Recipe

_OURS = (RavineClassifier, RavineRegressor)


def cross_validate(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    groups: Any = None,
    scoring: Any = None,
    cv: Any = None,
    return_train_score: bool = False,
    return_estimator: bool = False,
    return_indices: bool = False,
) -> dict[str, Any]:
    """Fit and score an estimator on each fold, as ``sklearn.model_selection.cross_validate`` does,
    with the folds trained together as one population.

    ``estimator``: a ``RavineClassifier`` or ``RavineRegressor``, a scikit-learn ``Pipeline`` that
    ends in one, or a recipe. ``cv``, ``scoring``, ``groups`` and the ``return_`` flags mean what they
    mean there, and so do the keys of what is given back: arrays ``test_score`` (``test_NAME`` for
    several scores), ``fit_time``, ``score_time``, …. ``fit_time`` is an equal share of the time in
    which the folds were trained.

    Each fold has the preprocessing, the batches and the draws of a fit of its own: its samples held
    back for the score are in none of them. Scores equal those of separate fits but for rounding. Folds
    whose training parts differ in size need two populations where samples see one another (batch
    normalisation), see ``ravine.training.folds``. A bias right before batch normalisation has no effect and
    a gradient of rounding errors alone, which Adam scales up: such biases differ from those of separate
    fits, outputs and scores do not.

    >>> from sklearn.datasets import load_iris
    >>> x, y = load_iris(return_X_y=True)
    >>> found = cross_validate(RavineClassifier(lr=0.01, epochs=20), x, y, cv=3)
    >>> sorted(found), len(found["test_score"])
    (['fit_time', 'score_time', 'test_score'], 3)

    Errors: another estimator; one with ``out``, since folds are trained in memory; samples that are
    missing from X or y.
    """
    estimator = _estimator(estimator, y)
    X, y, groups = indexable(X, y, groups)
    splits = list(check_cv(cv, y, classifier=is_classifier(estimator)).split(X, y, groups))
    scorer = check_scoring(estimator, scoring=scoring)
    began = time.perf_counter()
    fitted = _fitted(estimator, X, y, [train for train, _ in splits])
    share = (time.perf_counter() - began) / len(splits)
    found: dict[str, Any] = {"fit_time": np.full(len(splits), share)}
    scores, seconds = _scores(scorer, fitted, X, y, [held for _, held in splits])
    found["score_time"] = np.array(seconds)
    if return_estimator:
        found["estimator"] = fitted
    if return_indices:
        train_rows, test_rows = zip(*splits, strict=True)
        found["indices"] = {"train": train_rows, "test": test_rows}
    found |= _columns("test", scores)
    if return_train_score:
        scores, _ = _scores(scorer, fitted, X, y, [train for train, _ in splits])
        found |= _columns("train", scores)
    return found


def _fitted(estimator: Any, X: Any, y: Any, parts: list[np.ndarray]) -> list[Any]:
    """A clone of the estimator for each training part; what precedes the network in a Pipeline is
    fitted one part after the other."""
    fitted = [clone(estimator) for _ in parts]
    nets, data = [], []
    for each, rows in zip(fitted, parts, strict=True):
        own_x, own_y = _safe_indexing(X, rows), _safe_indexing(y, rows)
        if isinstance(each, Pipeline):
            own_x = each[:-1].fit_transform(own_x, own_y) if len(each) > 1 else own_x
        nets.append(each[-1] if isinstance(each, Pipeline) else each)
        data.append((own_x, own_y))
    fit_folds(nets, data)
    return fitted


def _estimator(estimator: Any, y: Any) -> Any:
    """The estimator whose folds are trained: a recipe becomes the one that its targets ask for."""
    if isinstance(estimator, Recipe):
        numbers = type_of_target(y).startswith("continuous")
        return RavineRegressor(estimator) if numbers else RavineClassifier(estimator)
    last = estimator[-1] if isinstance(estimator, Pipeline) else estimator
    if not isinstance(last, _OURS):
        raise InputError(
            "cross_validate",
            got=f"a {type(last).__name__}",
            expected="a RavineClassifier or RavineRegressor, a Pipeline that ends in one, or a recipe",
            repair="sklearn.model_selection.cross_validate takes any estimator, one fold after the "
            "other",
        )
    if last.out is not None:
        raise InputError(
            "cross_validate",
            got=f"out={last.out!r}",
            expected="no out: folds are trained in memory",
            repair="leave it out; return_estimator=True gives the fitted estimators",
        )
    return estimator


def _scores(
    scorer: Any, fitted: list[Any], X: Any, y: Any, parts: list[np.ndarray]
) -> tuple[list[dict[str, float]], list[float]]:
    """The scores of each estimator on its part by name, a single one called ``score``; seconds."""
    scores, seconds = [], []
    for each, rows in zip(fitted, parts, strict=True):
        began = time.perf_counter()
        found = scorer(each, _safe_indexing(X, rows), _safe_indexing(y, rows))
        seconds.append(time.perf_counter() - began)
        scores.append(dict(found) if isinstance(found, Mapping) else {"score": found})
    return scores, seconds


def _columns(part: str, scores: list[dict[str, float]]) -> dict[str, np.ndarray]:
    return {f"{part}_{name}": np.array([own[name] for own in scores]) for name in scores[0]}
