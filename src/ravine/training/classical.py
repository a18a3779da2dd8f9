"""scikit-learn's classical models: which there are for a task, and what a linear model and gradient
boosting reach beside the network of a table."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import (
    LogisticRegression,
    LogisticRegressionCV,
    Perceptron,
    Ridge,
    RidgeCV,
)
from sklearn.multioutput import MultiOutputRegressor
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from ravine.data.pipeline import Pipeline
from ravine.recipe import Recipe

MOST_ROWS = 50_000  # training rows, so that it takes seconds
NAMES = ("linear model", "gradient boosting")
FREQUENT = 0.75  # share of one class: from here on always answering with it stands beside, too
_VALIDATED = 1_000_000  # cells of a table up to which a linear model chooses its penalty


@dataclass
class ClassicalScore:
    """One model on the test part (validation, where there is no test part)."""

    model: str
    metric: str  # "accuracy" or "rmse"
    value: float
    seconds: float


def plain_models(task: str, seed: int, outputs: int = 1) -> dict[str, BaseEstimator]:
    """The usual models for a classification or a regression, with scikit-learn's own defaults."""
    if task == "classification":
        return {
            "logistic regression": LogisticRegression(max_iter=1000),
            "perceptron": Perceptron(random_state=seed),
            "k-nearest neighbours": KNeighborsClassifier(),
            "support vector machine": SVC(random_state=seed),
            "decision tree": DecisionTreeClassifier(random_state=seed),
            "random forest": RandomForestClassifier(random_state=seed),
        }
    return {
        "ridge regression": Ridge(),
        "k-nearest neighbours": KNeighborsRegressor(),
        "support vector machine": MultiOutputRegressor(SVR()) if outputs > 1 else SVR(),
        "decision tree": DecisionTreeRegressor(random_state=seed),
        "random forest": RandomForestRegressor(random_state=seed),
    }


def careful_models(task: str, outputs: int, seed: int, cells: int) -> dict[str, BaseEstimator]:
    """Models for a table by name, with their own preprocessing: the linear ones see standardised
    features and choose their penalty by cross-validation (of tables up to a million ``cells``)."""
    small = cells <= _VALIDATED
    if task == "classification":
        logistic = (
            LogisticRegressionCV(
                Cs=np.logspace(-3, 1, 5), cv=3, max_iter=1000, l1_ratios=(0.0,),
                use_legacy_attributes=False, scoring="neg_log_loss",
            )
            if small
            else LogisticRegression(max_iter=1000)
        )  # fmt: skip
        return {
            "linear model": make_pipeline(StandardScaler(), logistic),
            "gradient boosting": HistGradientBoostingClassifier(random_state=seed),
            "random forest": RandomForestClassifier(random_state=seed),
        }
    boosting = HistGradientBoostingRegressor(random_state=seed)
    ridge = RidgeCV(np.logspace(-3, 3, 13)) if small and outputs == 1 else Ridge()
    return {
        "linear model": make_pipeline(StandardScaler(), ridge),
        "gradient boosting": MultiOutputRegressor(boosting) if outputs > 1 else boosting,
        "random forest": RandomForestRegressor(random_state=seed),
    }


def beside(recipe: Recipe) -> list[ClassicalScore]:
    """What a linear model and gradient boosting reach on a recipe's table, on the same split, and first
    what one answer for all reaches, where classes are uneven; an empty list for other data."""
    if recipe.data.source.kind != "csv":
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the table has been read before, and its warnings shown
        pipeline = Pipeline(recipe.data)
        return [*_most_frequent(pipeline), *classical_scores(pipeline, recipe.seed)]


def _most_frequent(pipeline: Pipeline) -> list[ClassicalScore]:
    """The accuracy of always answering with one class, where that is high."""
    counts, split = pipeline.class_counts(), "test" if pipeline.has("test") else "validation"
    if pipeline.task != "classification" or not pipeline.has(split) or not len(counts):
        return []
    if float(counts.max()) < FREQUENT * float(counts.sum()):
        return []
    most, names = int(counts.argmax()), pipeline.classes
    y = torch.cat([y for _, y in pipeline.part(split).chunks()])
    answer = f"always {names[most] if names else most!r}"
    return [ClassicalScore(answer, "accuracy", float((y == most).double().mean()), 0.0)]


def classical_scores(
    pipeline: Pipeline, seed: int = 0, names: tuple[str, ...] = NAMES
) -> list[ClassicalScore]:
    """Fit each model to the training and validation parts of a table, which it needs no other use
    of, and score it on the test part; without a test part, fit to training and score on
    validation.

    Features are those of the table's reader, before any scaling. Gives an empty list for tasks
    other than classification and regression.
    """
    if pipeline.task not in ("classification", "regression"):
        return []
    parts = {name: _part(pipeline, name) for name in ("train", "validation", "test") if pipeline.has(name)}  # fmt: skip
    split = "test" if "test" in parts else "validation"
    if split not in parts:
        return []
    fitted = [part for name, part in parts.items() if name != split]
    x, y = (np.concatenate([part[i] for part in fitted]) for i in (0, 1))
    if len(x) > MOST_ROWS:
        chosen = np.random.default_rng(seed).choice(len(x), MOST_ROWS, replace=False)
        x, y = x[chosen], y[chosen]
    wanted = careful_models(pipeline.task, pipeline.outputs, seed, x.size)
    return [_score(name, wanted[name], (x, y), parts[split], pipeline.task) for name in names]


def _part(pipeline: Pipeline, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Features as the table's reader makes them, and targets in their own units."""
    chunks = [(pipeline.encoded(x), y) for x, y in pipeline.part(name).chunks()]
    x = torch.cat([x for x, _ in chunks]).flatten(1).cpu().double().numpy()
    y = torch.cat([y for _, y in chunks]).cpu().numpy()
    return x, y.ravel() if y.ndim > 1 and y.shape[1] == 1 else y


def _score(name: str, model: Any, fit: Any, held: Any, task: str) -> ClassicalScore:
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        predicted = model.fit(*fit).predict(held[0])
    if task == "classification":
        metric, value = "accuracy", float((predicted == held[1]).mean())
    else:
        metric, value = "rmse", float(np.sqrt(((predicted - held[1]) ** 2).mean()))
    return ClassicalScore(name, metric, value, time.perf_counter() - began)


def sentence(scores: list[ClassicalScore]) -> str:
    """The closing line; "" of no scores.

    >>> sentence([ClassicalScore("linear model", "rmse", 47603.2, 0.1)])
    'a linear model has 47,603 (rmse; scikit-learn on the same split, 0.1 s)'
    """
    if not scores:
        return ""
    shown = ", ".join(
        f"{'a ' if s.model == 'linear model' else ''}{s.model} has {_shown(s)}" for s in scores
    )
    seconds = sum(score.seconds for score in scores)
    return f"{shown} ({scores[0].metric}; scikit-learn on the same split, {seconds:.1f} s)"


def _shown(score: ClassicalScore) -> str:
    if score.metric == "accuracy":
        return f"{100 * score.value:.2f} %"
    return f"{score.value:,.0f}" if score.value >= 1000 else f"{score.value:.4g}"
