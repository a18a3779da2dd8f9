"""scikit-learn's classical models on the very split and preprocessing of a recipe."""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np
import torch

from ravine.data.pipeline import Pipeline
from ravine.engine.rows.evaluate import metric_functions
from ravine.errors import InputError
from ravine.nn.answers import Answers
from ravine.training.classical import plain_models

MOST = 20_000  # training samples: kernels and neighbours grow with their square


def baselines(pipeline: Pipeline, seed: int) -> list[dict[str, Any]]:
    """One row for each model: its metrics on validation and test data, and the seconds of its
    fit."""
    if pipeline.task not in ("classification", "regression"):
        raise InputError(
            "--baselines", got=f"a {pipeline.task} task", expected="classification or regression"
        )
    x, y = _part(pipeline, "train")
    if len(x) > MOST:
        chosen = np.random.default_rng(seed).choice(len(x), MOST, replace=False)
        x, y = x[chosen], y[chosen]
    kind = "classes" if pipeline.task == "classification" else "numbers"
    answers = Answers(kind, "softmax" if kind == "classes" else "values")
    metrics = metric_functions(answers, pipeline.task, ())
    rows = []
    for name, model in plain_models(pipeline.task, seed, pipeline.outputs).items():
        began = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(x, y.ravel() if y.ndim > 1 and y.shape[1] == 1 else y)
        row: dict[str, Any] = {
            "model": name,
            "trained on": len(x),
            "seconds": time.perf_counter() - began,
        }
        for split, short in (("validation", "val"), ("test", "test")):
            if pipeline.has(split):
                inputs, targets = _part(pipeline, split)
                output, target = _as_output(model.predict(inputs), targets, pipeline)
                row |= {
                    f"{short}_{name}": function(output, target)
                    for name, function in metrics.items()
                }
        rows.append(row)
    return rows


def _part(pipeline: Pipeline, split: str) -> tuple[np.ndarray, np.ndarray]:
    batches = list(pipeline.split(split))
    x = torch.cat([batch.x for batch in batches]).flatten(1).cpu().double().numpy()
    return x, pipeline.target_units(torch.cat([batch.y for batch in batches])).cpu().numpy()


def _as_output(
    predicted: np.ndarray, target: np.ndarray, pipeline: Pipeline
) -> tuple[torch.Tensor, torch.Tensor]:
    """Predictions in the form of a network's outputs: one-hot scores for classes."""
    wanted = torch.from_numpy(target)
    if pipeline.task == "classification":
        classes = max(pipeline.outputs, 2)
        return torch.nn.functional.one_hot(
            torch.from_numpy(predicted).long(), classes
        ).double(), wanted
    return torch.from_numpy(predicted).double().reshape(wanted.shape), wanted
