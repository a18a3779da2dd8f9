"""How good an answer is against the best constant one: the measure that all verdicts rest on.

The *skill* is 1 - L / L0, L0 the least loss of any constant output for the loss in use: ln K's
refinement by the class frequencies for cross-entropy, the target variance for squared error. 0 is
the constant predictor, 1 is perfect, negative is worse. With smoothed labels both losses are counted
from the least that smoothing leaves to perfect answers.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ravine.nn.answers import Answers
from ravine.nn.loss.criterion import EntryLoss
from ravine.nn.loss.losses import BinaryCrossEntropy, CrossEntropy

_CONSTANT = 1e-3  # of the uninformed loss: targets that hardly vary leave nothing to beat but that
FLAT = 1e-5  # a slope under which there is nothing left to minimise


@dataclass(frozen=True)
class Baseline:
    """What the best constant predictor reaches on some targets: its loss, and its accuracy (or R²,
    which is 0)."""

    loss: float
    accuracy: float
    uninformed: float  # the loss of an answer that knows nothing: scores of 0, probabilities of 1/2
    floor: float = 0.0  # the loss of perfect answers to smoothed labels

    def skill(self, loss: float) -> float:
        """1 - L / L0, above the floor; minus infinity for a loss that is not finite."""
        if not math.isfinite(loss):
            return -math.inf
        return 1.0 - (loss - self.floor) / self.reference

    @property
    def reference(self) -> float:
        """L0 above the floor; for targets that do not vary, of an answer that knows nothing."""
        best, uninformed = self.loss - self.floor, self.uninformed - self.floor
        return max(best if best > _CONSTANT * uninformed else uninformed, 1e-12)

    def metric_skill(self, accuracy: float) -> float:
        """(accuracy - a0) / (1 - a0), a0 that of the most frequent class; R² itself for a
        regression."""
        if not math.isfinite(accuracy):
            return -math.inf
        return (accuracy - self.accuracy) / max(1.0 - self.accuracy, 0.02)


def baseline(loss: nn.Module, y: Tensor, outputs: int, task: str) -> Baseline:
    """Minimise the loss over one constant output for all targets ``y``; of targets with several axes, as
    images and masks, over one number for all places.

    >>> from ravine.nn.build import build_loss
    >>> y = torch.tensor([0, 0, 0, 1])
    >>> found = baseline(build_loss("cross_entropy", None), y, 2, "classification")
    >>> round(found.loss, 3), found.accuracy   # the entropy of (3/4, 1/4)
    (0.562, 0.75)
    """
    y = y.detach()
    places = y.dim() > 2 and y.is_floating_point() and isinstance(loss, EntryLoss)
    outputs = 1 if places else outputs
    kind = "scores" if task != "regression" else "values"
    reads = getattr(loss, "reads", "scores")
    free = torch.zeros(outputs, dtype=torch.float64, requires_grad=True)
    if kind == "values":
        start = y.double().reshape(len(y), -1).mean(0)
        with torch.no_grad():
            free.copy_(start if len(start) == outputs else start.mean().expand(outputs))
    else:
        with torch.no_grad():
            free.copy_(_frequencies(y, outputs, task))
    loss = copy.deepcopy(loss).cpu().double()
    y64 = y.double() if y.is_floating_point() else y

    def value() -> Tensor:
        out = free
        if kind == "scores" and reads in ("probabilities", "log_probabilities"):
            each = outputs == 1 or task == "multilabel"
            out = torch.sigmoid(free) if each else torch.softmax(free, -1)
            out = out if reads == "probabilities" else out.log()
        shape = (*y64.shape, outputs) if task == "sequence" else (len(y64), outputs)
        shape = tuple(y64.shape) if places else shape
        return loss(out.expand(shape), y64).double().mean()

    with torch.enable_grad():
        best = _minimise(free, value)
        with torch.no_grad():
            free.fill_(0.5 if reads == "probabilities" and kind == "values" else 0.0)
        uninformed = float(value().detach())
    return Baseline(best, _constant_accuracy(y, task), uninformed, _smoothed(loss, y64, outputs))


def _smoothed(loss: nn.Module, y: Tensor, outputs: int) -> float:
    """The loss of the answers that smoothed labels ask for; 0 where labels are not smoothed.

    >>> from ravine.nn.build import build_loss
    >>> loss = build_loss({"kind": "cross_entropy", "label_smoothing": 0.1}, None)
    >>> round(_smoothed(loss.double(), torch.tensor([0, 1, 1]), 2), 4)  # the entropy of (0.95, 0.05)
    0.1985
    """
    if not isinstance(loss, CrossEntropy | BinaryCrossEntropy) or not float(loss.label_smoothing):
        return 0.0
    share = float(loss.label_smoothing)
    classes = outputs > 1 and not y.is_floating_point()
    q = functional.one_hot(y.clamp_min(0), outputs).double() if classes else y.double()
    alone = isinstance(loss, BinaryCrossEntropy)  # each output is a probability of its own
    q = q + share * ((0.5 if alone else 1 / outputs) - q)
    if not alone and loss.class_weights is not None:
        q = (q * loss.class_weights.double()).clamp_min(1e-12)
        q = q / q.sum(-1, keepdim=True)
    if loss.reads == "scores":
        q = q.logit() if alone else q.log()
    q = q.reshape(len(y), -1) if outputs == 1 and y.dim() < 3 else q
    with torch.no_grad():
        return float(loss(q, y).double().mean())


def _frequencies(y: Tensor, outputs: int, task: str) -> Tensor:
    """Scores that give the classes (or labels) the probabilities of their frequencies: where the
    search begins."""
    if y.is_floating_point():
        share = y.double().reshape(-1, y.shape[-1] if y.dim() > 1 else 1).mean(0)
    else:
        kept = y[y >= 0].flatten()
        share = kept.bincount(minlength=max(outputs, 2)).double() / max(1, len(kept))
    if outputs == 1 and len(share) == 2:
        share = share[1:]
    if len(share) != outputs:
        return torch.zeros(outputs, dtype=torch.float64)
    share = share.clamp(1e-6, 1 - 1e-6)
    return (share / (1 - share)).log() if outputs == 1 or task == "multilabel" else share.log()


def _minimise(free: Tensor, value: Callable[[], Tensor]) -> float:
    def at(point: np.ndarray) -> tuple[float, np.ndarray]:
        with torch.no_grad():
            free.copy_(torch.from_numpy(point))
        found = value()
        (slope,) = torch.autograd.grad(found, free)
        return float(found.detach()), slope.numpy()

    begin = free.detach().numpy().copy()
    start = float(value().detach())
    try:
        _, slope = at(begin)
    except RuntimeError:  # a loss without a gradient: what it starts from is all there is
        return start
    if np.abs(slope).max() < FLAT:
        return start
    from scipy.optimize import minimize

    found = float(
        minimize(at, begin, jac=True, method="L-BFGS-B", options={"maxiter": 60, "gtol": 1e-7}).fun
    )
    return min(found, start) if math.isfinite(found) else start


def _constant_accuracy(y: Tensor, task: str) -> float:
    if task == "regression":
        return 0.0
    if task == "multilabel":
        share = y.double().mean(0)
        return float(torch.maximum(share, 1 - share).mean())
    if y.is_floating_point():
        y = y.argmax(-1) if y.dim() > 1 and y.shape[-1] > 1 else y.long().flatten()
    counts = y[y >= 0].flatten().bincount()
    return float(counts.max() / counts.sum().clamp_min(1)) if len(counts) else 0.0


def accuracy(output: Tensor, y: Tensor, task: str, answers: Answers) -> float:
    """The share of right answers; R² for a regression."""
    output, y = output.detach().double(), y.detach()
    if task == "regression":
        y = y.double().reshape(len(y), -1)
        if output.reshape(len(y), -1).shape != y.shape:
            return math.nan
        rest = (output.reshape(len(y), -1) - y).square().mean()
        return float(1 - rest / (y - y.mean(0)).square().mean().clamp_min(1e-12))
    y = answers.truth(y)
    if task == "multilabel":
        return float((answers.classes(output) == (y > 0.5)).double().mean())
    answer = answers.classes(output)
    y = y.reshape(answer.shape) if y.numel() == answer.numel() else y
    counts = y >= 0
    return float((answer == y.long())[counts].double().mean())
