"""Losses: each is a module (output, target) -> the loss of each sample [B]; training minimises the
mean over the batch, plus the penalties on the weights.

What is reported as a loss (train_loss, val_loss, ...) is this mean over samples, with class weights
and without penalties; train_loss is taken while the epoch's steps change the weights, each batch
weighed by its samples.

Output s [B, K] (or [B, T, K] for sequences: the loss of a sample is then the mean over its steps).
Class targets y are whole numbers [B] (or [B, T]); losses that work output by output take targets of
the output's shape, and turn class numbers into one-hot rows. Class targets may be probabilities [B,
K] instead (soft targets, as mixup gives them).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ravine.catalogue import (
    Count,
    Integer,
    Loss,
    NonNegative,
    PerMember,
    Positive,
    Probability,
    make,
)
from ravine.errors import InputError
from ravine.nn.loss.criterion import (
    ClassLoss,
    EntryLoss,
    MultiTask,
    SampleLoss,
    exact,
    number,
    one_hot,
)
from ravine.nn.stack import call


def auto() -> SampleLoss:
    """What suits the task: cross_entropy for classes and sequences, squared for regression, else
    binary_cross_entropy.

    >>> auto()(torch.zeros(2, 3), torch.tensor([0, 1]))
    tensor([1.0986, 1.0986])
    """
    return Auto()


def squared(*, reduction: Literal["mean", "sum"] = "mean") -> SampleLoss:
    """Squared error: mean over the outputs of (s - t)^2 (PyTorch's MSELoss), or their sum. Some
    texts halve it.

    ``reduction`` over the outputs of a sample: mean or sum.

    >>> squared()(torch.tensor([[1.0, 3.0]]), torch.tensor([[1.0, 1.0]]))
    tensor([2.])

    Source: Gauss, "Theoria motus", 1809; Legendre, 1805.
    """
    return Squared(reduction)


def absolute(*, reduction: Literal["mean", "sum"] = "mean") -> SampleLoss:
    """Absolute error: mean (or sum) over the outputs of |s - t|; robust to outliers, minimised by
    the median.

    ``reduction`` over the outputs of a sample: mean or sum.

    >>> absolute()(torch.tensor([[1.0, 3.0]]), torch.tensor([[1.0, 1.0]]))
    tensor([1.])

    Source: Boscovich, 1757; Laplace.
    """
    return Absolute(reduction)


def huber(
    *, delta: PerMember[Positive] = 1.0, reduction: Literal["mean", "sum"] = "mean"
) -> SampleLoss:
    """Huber's loss of r = s - t: r^2 / 2 for |r| <= delta, delta (|r| - delta / 2) beyond; mean (or
    sum) over outputs.

    ``reduction`` over the outputs of a sample: mean or sum. ``delta`` is where the parabola ends.

    >>> huber()(torch.tensor([[0.5], [3.0]]), torch.zeros(2, 1))
    tensor([0.1250, 2.5000])

    Source: Huber, "Robust estimation of a location parameter", 1964.
    """
    return Huber(delta, reduction)


def cross_entropy(
    *,
    input: Literal["logits", "probabilities"] = "logits",
    label_smoothing: PerMember[Probability] = 0.0,
    ignore: Integer = -100,
) -> SampleLoss:
    """Softmax cross-entropy: -s_y + ln sum_k exp(s_k), or -sum_k q_k ln p_k for soft targets q.

    Computed by log-sum-exp: scores of 1000 do not overflow. ``input`` probabilities takes the
    output of a softmax instead; these are divided by their sum and clamped to [1e-7, 1 - 1e-7], as
    in Keras. ``label_smoothing`` e mixes the target with the uniform distribution: (1 - e) q + e /
    K. Steps whose target is ``ignore`` do not count (padding). The same number added to all scores of a
    sample changes nothing, so one of them may be held at zero; with K = 2 that is logistic regression.

    >>> cross_entropy()(torch.tensor([[0.0, 1000.0]]), torch.tensor([0]))
    tensor([1000.])

    Source: Bridle, 1990; label smoothing: Szegedy et al., "Rethinking the Inception architecture",
    2016.
    """
    return CrossEntropy(input, label_smoothing, ignore)


def binary_cross_entropy(
    *,
    input: Literal["logits", "probabilities"] = "logits",
    label_smoothing: PerMember[Probability] = 0.0,
    reduction: Literal["mean", "sum"] = "mean",
) -> SampleLoss:
    """Logistic loss: -t ln p - (1 - t) ln(1 - p), p = sigmoid(s), mean (or sum) over the outputs.

    One output for two classes, K outputs for K labels that do not exclude one another. Stable for
    any s. ``input`` probabilities takes p itself, clamped to [1e-7, 1 - 1e-7]. ``label_smoothing``
    e: t (1 - e) + e / 2. ``reduction`` is mean or sum.

    >>> binary_cross_entropy()(torch.tensor([[0.0], [-1000.0]]), torch.tensor([1, 0]))
    tensor([0.6931, 0.0000])

    Source: Cox, "The regression analysis of binary sequences", 1958.
    """
    return BinaryCrossEntropy(input, label_smoothing, reduction)


def nll(*, ignore: Integer = -100) -> SampleLoss:
    """Negative log-likelihood: -s_y, s log-probabilities (of ``log_softmax``); targets ``ignore``
    do not count.

    >>> nll()(torch.tensor([[-0.5, -2.0]]), torch.tensor([1]))
    tensor([2.])

    Source: Fisher, "On the mathematical foundations of theoretical statistics", 1922.
    """
    return NegativeLogLikelihood(ignore)


def kl(*, input: Literal["logits", "probabilities"] = "logits") -> SampleLoss:
    """Kullback-Leibler divergence: sum_k q_k (ln q_k - ln p_k), q the target distribution, p the
    model's; 0 ln 0 = 0.

    It differs from cross-entropy by the target's entropy: same gradient, and zero where the model
    is right.

    ``input`` says whether the model gives logits or probabilities.

    >>> kl()(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
    tensor([0.6931])

    Source: Kullback and Leibler, "On information and sufficiency", 1951.
    """
    return KullbackLeibler(input)


def expected_cost(
    *,
    costs: tuple[tuple[NonNegative, ...], ...],
    input: Literal["logits", "probabilities"] = "logits",
) -> SampleLoss:
    """A cost matrix: sum_k C_yk p_k, the expected cost of answering k by the model's
    probabilities when y is true.

    With C = 1 off the diagonal it is 1 - p_y, a smooth form of the 0/1 error.

    ``input`` says whether the model gives logits or probabilities.

    Errors: ``costs`` is not square, or does not have one row for each output.

    >>> expected_cost(costs=((0.0, 1.0), (5.0, 0.0)))(torch.zeros(2, 2), torch.tensor([0, 1]))
    tensor([0.5000, 2.5000])

    Source: Elkan, "The foundations of cost-sensitive learning", 2001.
    """
    return ExpectedCost(costs, input)


def multi_task(
    *,
    losses: tuple[Loss, ...],
    sizes: tuple[Count, ...],
    weights: PerMember[tuple[NonNegative, ...]] | None = None,
) -> SampleLoss:
    """A weighted sum of several targets' losses: sum_h weights_h * losses_h(outputs of head h,
    target h).

    The model's outputs, side by side, are cut into heads of ``sizes``; the target's columns
    likewise: one column for a head whose loss takes class numbers, else as many as the head has
    outputs. Outputs and targets may also be tuples.

    Errors: not one of ``losses``, ``sizes`` and ``weights`` for each head; outputs or targets
    that are not as wide as these say.

    >>> loss = multi_task(losses=("cross_entropy", "squared"), sizes=(3, 1), weights=(1.0, 0.5))
    >>> loss(torch.zeros(1, 4), torch.tensor([[2.0, 2.0]]))
    tensor([3.0986])

    Source: Caruana, "Multitask learning", 1997.
    """
    return MultiTask([call("loss", make("loss", part)) for part in losses], sizes, weights)


def output() -> SampleLoss:
    """The model's output is the loss of each sample: [B] or [B, 1]; targets are not looked at.

    Errors: an output that is not [B] or [B, 1].

    >>> output()(torch.tensor([[2.0], [3.0]]), torch.zeros(2))
    tensor([2., 3.])
    """
    return Output()


class Auto(SampleLoss):
    """Cross-entropy for whole-number targets, else the squared error."""

    def __init__(self) -> None:
        super().__init__()
        self.classes, self.numbers = CrossEntropy("logits", 0.0, -100), Squared("mean")

    weighable = False

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return (self.numbers if target.is_floating_point() else self.classes)(output, target)


class Squared(EntryLoss):
    reads = "targets"

    def entry(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target).square()


class Absolute(EntryLoss):
    reads = "targets"

    def entry(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target).abs()


class Huber(EntryLoss):
    delta: Tensor
    reads = "targets"

    def __init__(self, delta: float, reduction: str):
        super().__init__(reduction)
        self.register_buffer("delta", number(delta), persistent=False)

    def entry(self, output: Tensor, target: Tensor) -> Tensor:
        distance = (output - target).abs()
        near = torch.minimum(distance, self.delta.to(output.dtype))
        return near * (distance - near / 2)


class NegativeLogLikelihood(ClassLoss):
    soft = True
    reads = "log_probabilities"

    def likelihood(self, log_p: Tensor, target: Tensor) -> Tensor:
        weights = None if self.class_weights is None else self.class_weights.to(log_p.dtype)
        if target.is_floating_point():
            return -(target * (log_p if weights is None else log_p * weights)).sum(-1)
        return F.nll_loss(log_p, target, weights, ignore_index=self.ignore, reduction="none")

    def rows(self, output: Tensor, target: Tensor) -> Tensor:
        return self.likelihood(output, target)


class CrossEntropy(NegativeLogLikelihood):
    label_smoothing: Tensor
    idle_at = ("label_smoothing", 0.0)
    idle = False

    def __init__(self, input: str, label_smoothing: float, ignore: int):
        super().__init__(ignore)
        self.input, self.reads = input, _reads(input)
        self.register_buffer("label_smoothing", number(label_smoothing), persistent=False)

    def rows(self, output: Tensor, target: Tensor) -> Tensor:
        log_p = F.log_softmax(output, -1) if self.input == "logits" else _clamped_log(output)
        plain = self.likelihood(log_p, target)
        if self.idle:
            return plain
        spread = log_p if self.class_weights is None else log_p * self.class_weights.to(log_p.dtype)
        smooth = -spread.mean(-1)
        if not target.is_floating_point():
            smooth = smooth.masked_fill(target == self.ignore, 0.0)
        return plain + self.label_smoothing.to(plain.dtype) * (smooth - plain)


class BinaryCrossEntropy(EntryLoss):
    label_smoothing: Tensor

    def __init__(self, input: str, label_smoothing: float, reduction: str):
        super().__init__(reduction)
        self.input, self.reads = input, _reads(input)
        self.register_buffer("label_smoothing", number(label_smoothing), persistent=False)

    def entry(self, output: Tensor, target: Tensor) -> Tensor:
        target = target + self.label_smoothing.to(target.dtype) * (0.5 - target)
        if self.input == "logits":
            return F.binary_cross_entropy_with_logits(output, target, reduction="none")
        p = output.clamp(1e-7, 1 - 1e-7)
        return -(target * p.log() + (1 - target) * (-p).log1p())


class KullbackLeibler(ClassLoss):
    soft = True

    def __init__(self, input: str):
        super().__init__()
        self.input, self.reads = input, _reads(input)

    def rows(self, output: Tensor, target: Tensor) -> Tensor:
        log_p = F.log_softmax(output, -1) if self.input == "logits" else _clamped_log(output)
        q = target if target.is_floating_point() else one_hot(target, output)
        each = torch.xlogy(q, q) - q * log_p
        return (
            each if self.class_weights is None else each * self.class_weights.to(each.dtype)
        ).sum(-1)


class ExpectedCost(ClassLoss):
    costs: Tensor

    def __init__(self, costs: tuple[tuple[float, ...], ...], input: str):
        super().__init__()
        if len({len(costs), *map(len, costs)}) != 1:
            raise InputError(
                "costs",
                got=costs,
                expected="a square matrix: one row and one column for each class",
            )
        self.input, self.reads = input, _reads(input)
        self.register_buffer("costs", number(costs), persistent=False)

    def rows(self, output: Tensor, target: Tensor) -> Tensor:
        if output.shape[-1] != self.costs.shape[0]:
            raise InputError(
                "loss.costs",
                got=f"{self.costs.shape[0]} rows",
                expected=f"{output.shape[-1]}, one for each class",
            )
        p = output.softmax(-1) if self.input == "logits" else output
        return (self.costs.to(p.dtype)[target] * p).sum(-1)


class Output(SampleLoss):
    weighable = False
    reads = "loss"

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        if output.dim() > 1 and output[0].numel() != 1:
            raise InputError(
                "loss.output",
                got=tuple(output.shape),
                expected="an output [B] or [B, 1]: the loss of each sample",
            )
        return exact(output).flatten()


def _reads(input: str) -> str:
    return "probabilities" if input == "probabilities" else "scores"


def _clamped_log(p: Tensor) -> Tensor:
    return (p / p.sum(-1, keepdim=True)).clamp(1e-7, 1 - 1e-7).log()
