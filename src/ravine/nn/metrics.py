"""Metrics: (outputs, targets) of a whole split -> a number; the definitions are scikit-learn's
where it has them.

Outputs are what ``nn.answers.Answers.scores`` makes of those of a network, whatever its output layer
and its loss: logits [N, K] for classes (the greatest wins), the log-odds [N] or [N, 1] of the second
of two classes (positive above 0), log-odds [N, K] of K labels, [N, T, K] for sequences (every step
counts), values in the target's units for a regression. Each sample is answered by its own scores
alone. Class targets below 0 are padding and do not count.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ravine.catalogue import Count, NonNegative
from ravine.errors import InputError
from ravine.nn.decisions import least_cost

Average = Literal["macro", "micro", "weighted"]


def accuracy(output: Tensor, target: Tensor) -> float:
    """The fraction of right answers; with several labels, of right labels.

    >>> import torch
    >>> accuracy(torch.tensor([[2.0, 1.0], [0.0, 1.0]]), torch.tensor([0, 0]))
    0.5

    Source: Pedregosa et al., "Scikit-learn: machine learning in Python", 2011 (accuracy_score).
    """
    answer, right = _answers(output, target)
    return float((answer == right).double().mean())


def error(output: Tensor, target: Tensor) -> float:
    """The 0/1 error: 1 - accuracy.

    It is flat almost everywhere, so its gradient says nothing: it is measured, and a surrogate
    above it, such as cross-entropy or a hinge, is trained.

    >>> import torch
    >>> error(torch.tensor([[2.0, 1.0], [0.0, 1.0]]), torch.tensor([0, 0]))
    0.5

    Source: Vapnik, "The nature of statistical learning theory", 1995 (the 0/1 loss).
    """
    return 1.0 - accuracy(output, target)


def mean_cost(
    output: Tensor,
    target: Tensor,
    *,
    costs: tuple[tuple[NonNegative, ...], ...],
    decision: Literal["cheapest", "likeliest"] = "cheapest",
) -> float:
    """The mean cost of the answers: C_ya, where y is true and a is answered.

    ``costs`` C has a row for each true class and a column for each answer. ``decision``: a is the
    answer of least expected cost under the probabilities, argmin_a sum_y p_y C_ya (cheapest), or
    the most probable class (likeliest). With C = 1 off the diagonal both are the 0/1 error.

    Errors: ``costs`` is not square with a row for each class; outputs are labels that do not exclude
    one another.

    >>> import torch
    >>> mean_cost(torch.zeros(2, 2), torch.tensor([0, 1]), costs=((0.0, 1.0), (5.0, 0.0)))
    0.5

    Source: Elkan, "The foundations of cost-sensitive learning", 2001.
    """
    if _by_label(output, target):
        raise InputError(
            "metrics.mean_cost",
            got="labels that do not exclude one another",
            expected="one class for each sample",
        )
    scores, right = _classes(output, target)
    scores = scores.double()
    p = scores.softmax(-1)
    if scores.shape[1] == 1:
        p = torch.cat([torch.sigmoid(-scores), torch.sigmoid(scores)], 1)
    answer = least_cost(p, costs) if decision == "cheapest" else p.argmax(-1)
    return float(torch.as_tensor(costs, dtype=torch.float64)[right.cpu(), answer.cpu()].mean())


def balanced_accuracy(output: Tensor, target: Tensor) -> float:
    """The mean over the classes of the fraction of each class that is answered rightly.

    >>> import torch
    >>> balanced_accuracy(torch.tensor([[2.0, 1.0], [2.0, 1.0], [2.0, 1.0]]), torch.tensor([0, 0, 1]))
    0.5

    Source: Brodersen et al., "The balanced accuracy and its posterior distribution", 2010.
    """
    answer, right = _numpy(*_answers(output, target))
    return float(np.mean([(answer[right == k] == k).mean() for k in np.unique(right)]))


def top_k(output: Tensor, target: Tensor, *, k: Count = 5) -> float:
    """The fraction of samples whose class is among the k greatest scores.

    Errors: outputs that are not [N, K].

    >>> import torch
    >>> top_k(torch.tensor([[3.0, 2.0, 1.0]]), torch.tensor([1]), k=2)
    1.0

    Source: Russakovsky et al., "ImageNet large scale visual recognition challenge", 2015.
    """
    scores, right = _classes(output, target)
    if scores.shape[-1] < 2:
        raise InputError(
            "metrics.top_k",
            got=tuple(output.shape),
            expected="outputs [N, K], a score for each class",
        )
    best = scores.topk(min(k, scores.shape[-1]), dim=-1).indices  # [N, k]
    return float((best == right[:, None]).any(-1).double().mean())


def precision(output: Tensor, target: Tensor, *, average: Average = "macro") -> float:
    """Of what is answered k, the fraction that is k.

    ``average``: the mean over the classes (macro), over all answers (micro), or over the classes by
    size (weighted). Two classes with one output, and several labels, count the positives alone.
    Nothing answered k: 0.

    >>> import torch
    >>> precision(torch.tensor([1.0, 1.0, -1.0]), torch.tensor([1, 0, 0]))
    0.5

    Source: van Rijsbergen, "Information retrieval", 1979.
    """
    return _scikit("precision_score", output, target, average)


def recall(output: Tensor, target: Tensor, *, average: Average = "macro") -> float:
    """Of what is k, the fraction that is answered k; ``average`` as for precision.

    >>> import torch
    >>> recall(torch.tensor([1.0, 1.0, -1.0]), torch.tensor([1, 0, 0]))
    1.0

    Source: van Rijsbergen, "Information retrieval", 1979.
    """
    return _scikit("recall_score", output, target, average)


def f1(output: Tensor, target: Tensor, *, average: Average = "macro") -> float:
    """The harmonic mean of precision and recall: 2 p r / (p + r); ``average`` as for precision.

    >>> import torch
    >>> round(f1(torch.tensor([1.0, 1.0, -1.0]), torch.tensor([1, 0, 0])), 4)
    0.6667

    Source: van Rijsbergen, "Information retrieval", 1979.
    """
    return _scikit("f1_score", output, target, average)


def roc_auc(output: Tensor, target: Tensor) -> float:
    """The area under the ROC curve: the chance that a positive scores above a negative.

    Several classes, by their probabilities, or labels: each against the rest, then the mean. NaN
    where a class does not occur.

    >>> import torch
    >>> roc_auc(torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([0, 0, 1, 1]))
    0.75

    Source: Fawcett, "An introduction to ROC analysis", 2006.
    """
    if _by_label(output, target):
        scores, right = output.flatten(0, -2), target.flatten(0, -2)
        columns = [(scores[:, k], right[:, k]) for k in range(scores.shape[1])]
    else:
        scores, right = _classes(output, target)
        p = scores.double().softmax(-1)
        columns = [(p[:, k], right == k) for k in range(p.shape[1])]
        if p.shape[1] == 1:
            columns = [(scores[:, 0], right == 1)]
    if any(int(r.sum()) in (0, len(r)) for _, r in columns):
        return math.nan
    score = _of_scikit("roc_auc_score")
    return float(np.mean([score(*_numpy(r, s)) for s, r in columns]))


def log_loss(output: Tensor, target: Tensor) -> float:
    """Mean negative log-likelihood in nats of the right classes, from logits.

    >>> import torch
    >>> round(log_loss(torch.zeros(3, 2), torch.tensor([0, 1, 0])), 4)
    0.6931

    Source: Good, "Rational decisions", 1952.
    """
    scores, right = _classes(output, target) if not _by_label(output, target) else (output, target)
    scores = scores.double()
    if scores.shape[-1] == 1 or _by_label(output, target):
        return float(F.binary_cross_entropy_with_logits(scores, right.double().view_as(scores)))
    return float(F.cross_entropy(scores, right))


def perplexity(output: Tensor, target: Tensor) -> float:
    """exp of the mean negative log-likelihood: the number of equally likely symbols that would be
    as hard to guess.

    >>> import torch
    >>> round(perplexity(torch.zeros(3, 7), torch.tensor([0, 1, 6])), 4)
    7.0

    Source: Jelinek et al., "Perplexity: a measure of the difficulty of speech recognition tasks",
    1977.
    """
    return math.exp(log_loss(output, target))


def confusion_matrix(output: Tensor, target: Tensor) -> np.ndarray:
    """Counts [K, K]: rows are true classes, columns answers.

    >>> import torch
    >>> confusion_matrix(torch.tensor([[2.0, 1.0], [0.0, 1.0], [0.0, 1.0]]), torch.tensor([0, 0, 1])).tolist()
    [[1, 1], [0, 1]]

    Source: Pedregosa et al., "Scikit-learn: machine learning in Python", 2011 (confusion_matrix).
    """
    answer, right = _numpy(*_answers(output, target))
    size = output.shape[-1] if output.dim() > 1 and output.shape[-1] > 1 else 2
    return _of_scikit("confusion_matrix")(right.ravel(), answer.ravel(), labels=np.arange(size))


def mse(output: Tensor, target: Tensor) -> float:
    """Mean squared error.

    >>> import torch
    >>> mse(torch.tensor([[1.0], [3.0]]), torch.tensor([1.0, 1.0]))
    2.0

    Source: Gauss, "Theoria combinationis observationum", 1821.
    """
    s, t = _numbers(output, target)
    return float((s - t).square().mean())


def rmse(output: Tensor, target: Tensor) -> float:
    """Root of the mean squared error, in the target's units.

    >>> import torch
    >>> rmse(torch.tensor([[1.0], [3.0]]), torch.tensor([1.0, -1.0]))
    2.8284271247461903

    Source: Gauss, "Theoria combinationis observationum", 1821.
    """
    return math.sqrt(mse(output, target))


def mae(output: Tensor, target: Tensor) -> float:
    """Mean absolute error, in the target's units.

    >>> import torch
    >>> mae(torch.tensor([[1.0], [3.0]]), torch.tensor([1.0, 1.0]))
    1.0

    Source: Willmott and Matsuura, "Advantages of the mean absolute error over the root mean square
    error", 2005.
    """
    s, t = _numbers(output, target)
    return float((s - t).abs().mean())


def r2(output: Tensor, target: Tensor) -> float:
    """Coefficient of determination: 1 - sum (s - t)^2 / sum (t - mean t)^2, mean over several
    targets.

    1 is perfect, 0 as good as the mean, negative worse. NaN for fewer than two samples.

    >>> import torch
    >>> r2(torch.tensor([[1.0], [2.0]]), torch.tensor([1.0, 2.0]))
    1.0

    Source: Wright, "Correlation and causation", 1921.
    """
    s, t = _numbers(output, target)
    if len(t) < 2 or not bool(s.isfinite().all()):
        return math.nan
    return float(_of_scikit("r2_score")(t.numpy(), s.numpy()))


def _numbers(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    s, t = output.detach().double().cpu(), target.detach().double().cpu()
    if s.numel() != t.numel():
        raise InputError(
            "metrics",
            got=f"outputs {tuple(s.shape)} and targets {tuple(t.shape)}",
            expected="one target for each output",
        )
    return s.reshape(len(s), -1), t.reshape(len(s), -1)


def _by_label(output: Tensor, target: Tensor) -> bool:
    """Whether the K outputs are K labels, each with a target of its own."""
    return output.shape == target.shape and output.dim() > 1 and output.shape[-1] > 1


def _classes(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Scores [N, K] and classes [N], padding left out."""
    scores = output[:, None] if output.dim() == 1 else output
    flat = target.reshape(-1).long()
    scores = scores.reshape(-1, scores.shape[-1])
    if len(flat) != len(scores):
        raise InputError(
            "metrics",
            got=f"outputs {tuple(output.shape)}, targets {tuple(target.shape)}",
            expected="a class for each row",
        )
    counts = flat >= 0
    return scores[counts], flat[counts]


def _answers(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """What the model answers and what is right: classes [N], or labels [N, K] as 0 and 1."""
    if _by_label(output, target):
        return (output > 0).long(), (target > 0.5).long()
    scores, right = _classes(output, target)
    return (scores.argmax(-1) if scores.shape[1] > 1 else (scores[:, 0] > 0).long()), right


def _numpy(*tensors: Tensor) -> list[np.ndarray]:
    return [tensor.detach().cpu().numpy() for tensor in tensors]


def _of_scikit(name: str) -> Callable[..., Any]:
    """A metric of scikit-learn, which is imported when first needed: it takes a second and 100 MB
    that most runs can save."""
    from sklearn import metrics

    return getattr(metrics, name)


def _scikit(name: str, output: Tensor, target: Tensor, average: str) -> float:
    answer, right = _numpy(*_answers(output, target))
    positives = output.dim() == 1 or output.shape[-1] == 1
    return float(
        _of_scikit(name)(right, answer, average="binary" if positives else average, zero_division=0)
    )
