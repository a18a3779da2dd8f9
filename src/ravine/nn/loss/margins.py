"""Losses by margins, and one binary loss for each class: as in ``losses``, each is a module (output,
target) -> the loss of each sample [B]."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from ravine.catalogue import Loss, NonNegative, PerMember, make
from ravine.nn.loss.criterion import ClassLoss, EntryLoss, SampleLoss, entries, number, one_hot
from ravine.nn.stack import call


def hinge(
    *,
    margin: PerMember[NonNegative] = 1.0,
    power: Literal[1, 2] = 1,
    reduction: Literal["mean", "sum"] = "mean",
) -> SampleLoss:
    """Multiclass hinge of Weston and Watkins: sum over the wrong classes k of max(0, margin + s_k -
    s_y)^power.

    ``reduction`` mean (default) divides by the number of classes K, as PyTorch's MultiMarginLoss; sum is
    the textbook form. ``margin`` 0 with ``power`` 1 is the perceptron criterion of several classes.

    >>> import torch
    >>> hinge(reduction="sum")(torch.tensor([[3.2, 5.1, -1.7]]), torch.tensor([0]))
    tensor([2.9000])

    Source: Weston and Watkins, "Multi-class support vector machines", 1998.
    """
    return Hinge(margin, power, reduction)


def crammer_singer(*, margin: PerMember[NonNegative] = 1.0) -> SampleLoss:
    """Multiclass hinge of Crammer and Singer: max(0, margin + max over wrong classes s_k - s_y).

    ``margin`` 0 is the perceptron criterion of several classes (Collins, 2002). Some texts leave out
    the outer maximum with 0: a sample far on the right side would then pay less and less.

    >>> import torch
    >>> crammer_singer()(torch.tensor([[3.0, 5.0, 4.5]]), torch.tensor([0]))
    tensor([3.])

    Source: Crammer and Singer, "On the algorithmic implementation of multiclass kernel-based vector
    machines", 2001.
    """
    return CrammerSinger(margin)


def binary_hinge(
    *,
    margin: PerMember[NonNegative] = 1.0,
    power: Literal[1, 2] = 1,
    reduction: Literal["mean", "sum"] = "mean",
) -> SampleLoss:
    """Binary hinge: max(0, margin - t s)^power, t = +-1 (targets 0 and 1 become -1 and 1); K
    outputs: one against all.

    ``reduction`` over the outputs of a sample: mean or sum. ``margin`` 0 with ``power`` 1 is the
    perceptron criterion, max(0, -t s): only samples on the wrong side move the weights (Rosenblatt,
    1958).

    >>> import torch
    >>> binary_hinge()(torch.tensor([[0.5], [0.5]]), torch.tensor([1, 0]))
    tensor([0.5000, 1.5000])

    Source: Cortes and Vapnik, "Support-vector networks", 1995; one against all: Rifkin and Klautau,
    2004.
    """
    return BinaryHinge(margin, power, reduction)


def one_vs_all(*, loss: Loss = "binary_cross_entropy") -> SampleLoss:
    """One against all: the sum over the classes k of a binary loss of (s_k, 1 where y = k, else 0).

    ``loss`` is any loss of one output: binary_cross_entropy, binary_hinge, squared, absolute, huber.

    Errors: ``loss`` is not a loss of one output.

    >>> import torch
    >>> one_vs_all(loss="squared")(torch.tensor([[1.0, 0.0, 2.0]]), torch.tensor([0]))
    tensor([4.])

    Source: Rifkin and Klautau, "In defense of one-vs-all classification", 2004.
    """
    return OneVsAll(call("loss", make("loss", loss)))


class Hinge(ClassLoss):
    margin: Tensor

    def __init__(self, margin: float, power: int, reduction: str):
        super().__init__()
        self.power, self.mean = power, reduction == "mean"
        self.register_buffer("margin", number(margin), persistent=False)

    def rows(self, output: Tensor, target: Tensor) -> Tensor:
        right = one_hot(target, output)
        excess = (
            self.margin.to(output.dtype) + output - (output * right).sum(-1, keepdim=True)
        ).clamp_min(0)
        wrong = excess.pow(self.power) * (1 - right)
        return wrong.mean(-1) if self.mean else wrong.sum(-1)


class CrammerSinger(ClassLoss):
    margin: Tensor

    def __init__(self, margin: float):
        super().__init__()
        self.register_buffer("margin", number(margin), persistent=False)

    def rows(self, output: Tensor, target: Tensor) -> Tensor:
        right = one_hot(target, output)
        rival = output.masked_fill(right > 0, float("-inf")).amax(-1)
        return (self.margin.to(output.dtype) + rival - (output * right).sum(-1)).clamp_min(0)


class BinaryHinge(EntryLoss):
    margin: Tensor

    def __init__(self, margin: float, power: int, reduction: str):
        super().__init__(reduction)
        self.power = power
        self.register_buffer("margin", number(margin), persistent=False)

    def entry(self, output: Tensor, target: Tensor) -> Tensor:
        # -1 is the negative class too
        margin, positive = (
            self.margin.to(output.dtype),
            target.clamp_min(0),
        )
        if_positive, if_negative = (margin - output).clamp_min(0), (margin + output).clamp_min(0)
        return positive * if_positive.pow(self.power) + (1 - positive) * if_negative.pow(self.power)


class OneVsAll(SampleLoss):
    def __init__(self, loss: SampleLoss):
        super().__init__()
        self.loss, self.reads = loss, loss.reads

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        outputs, targets = entries(output, target)
        each = self.loss(outputs.reshape(-1, 1), targets.reshape(-1, 1)).view(outputs.shape).sum(-1)
        if self.class_weights is not None:
            each = each * (targets @ self.class_weights.to(each.dtype))
        return each.flatten(1).mean(1) if each.dim() > 1 else each
