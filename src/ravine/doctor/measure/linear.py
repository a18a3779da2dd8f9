"""What a linear model reaches on the validation part: the least that a network should."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ravine.doctor.measure.untrained import Untrained

MOST_ROWS = 5000  # of the training part, drawn at random
MOST_HELD = 20_000  # samples of a validation part that is scored
WIDEST = 1024  # inputs
MOST_WEIGHTS = 50_000  # inputs times classes
FEWEST = 100  # samples of either part under which nothing can be said
PENALTIES = np.logspace(-2, 4, 7)
LARGEST = 5.0  # standard deviations; inputs are cut there


@dataclass(frozen=True)
class LinearScore:
    """``accuracy``, or ``r2`` in the targets' units, of so many validation samples."""

    metric: str
    value: float
    samples: int
    fitted: int  # training samples

    @property
    def model(self) -> str:
        return "logistic regression" if self.metric == "accuracy" else "ridge regression"


def fitted_linear(program: Untrained) -> LinearScore | None:
    """A linear model of standardised inputs, fitted to the training part (5,000 samples at most), on
    the validation part; None for other tasks, few samples, tokens and wide inputs.

    scikit-learn's logistic regression for classes, ridge regression with a penalty chosen by
    leaving one out for numbers.
    """
    pipeline = program.pipeline
    classes = program.task == "classification"
    if not (classes or program.task == "regression") or not pipeline.has("validation"):
        return None
    held = pipeline.size("validation")
    if not FEWEST <= held <= MOST_HELD or pipeline.size("train") < FEWEST:
        return None
    width = program.probe.x[0].numel()
    outputs = pipeline.outputs if classes else 1
    if width > WIDEST or width * outputs > MOST_WEIGHTS or not program.probe.x.is_floating_point():
        return None
    x, y = _rows(*program.sample(most=MOST_ROWS))
    asked, truth = _rows(*_whole(program, held))
    if classes and (y.is_floating_point() or len(y.unique()) < 2):
        return None
    if not classes and y.numel() != len(y):
        return None
    x, asked = standardized(x, asked)
    if not x.shape[1]:
        return None
    guess = _predicted(x.numpy(), y.numpy(), asked.numpy(), classes)
    if classes:
        value = float((guess == truth.numpy()).mean())
        return LinearScore("accuracy", value, held, len(x))
    in_units, truth = (
        pipeline.target_units(part.float().reshape(held, -1)).double()
        for part in (torch.from_numpy(guess), truth)
    )
    left = (in_units - truth).square().sum() / (truth - truth.mean(0)).square().sum()
    return LinearScore("r2", 1 - float(left), held, len(x))


def standardized(fitted: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
    """Both parts [N, I] by the first one's means and standard deviations, cut at ``LARGEST`` of them;
    inputs that are always the same are left out."""
    mean, spread = fitted.mean(0), fitted.std(0, correction=0)
    live = spread > 1e-9
    first, second = (
        ((part - mean) / spread.clamp_min(1e-9))[:, live].clamp(-LARGEST, LARGEST)
        for part in (fitted, asked)
    )
    return first, second


def _whole(program: Untrained, held: int) -> tuple[Tensor, Tensor]:
    parts = [(b.x, b.y) for b in program.pipeline.split("validation", limit=held, batch=4096)]
    return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])


def _rows(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    y = y.cpu()
    return x.cpu().double().flatten(1), y.double() if y.is_floating_point() else y.flatten()


def _predicted(x: np.ndarray, y: np.ndarray, asked: np.ndarray, classes: bool) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression, RidgeCV

    model = LogisticRegression(max_iter=200) if classes else RidgeCV(PENALTIES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a fit that could go on: it is a lower bound
        return np.asarray(model.fit(x, y).predict(asked))
