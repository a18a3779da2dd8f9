"""Penalties on the weights, by formula: their values and gradients. Biases and normalisation
parameters are spared.

l1 * sum |w|  +  l2 * sum w^2  +  lp * sum |w|^p;  l1 and l2 together are the elastic net. The l1
penalty may instead be taken by its proximal step, which gives exact zeros.
"""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import Tensor

from ravine.layout import Layout


def add_penalty_gradients(
    grad: Tensor,
    theta: Tensor,
    layout: Layout,
    l1: Tensor | None = None,
    l2: Tensor | None = None,
    lp: Tensor | None = None,
    p: Tensor | None = None,
) -> None:
    """Add the penalties' gradients to grad [P, D] in place: l1 sign(w) + 2 l2 w + lp p |w|^(p-1)
    sign(w).

    Each strength is [P], one for each row, or None for all rows off. The gradient of |w| at zero is
    0.

    >>> grad = torch.zeros(1, 2)
    >>> add_penalty_gradients(grad, torch.tensor([[1.0, -2.0]]), Layout((), 2), l2=torch.tensor([0.5]))
    >>> grad
    tensor([[ 1., -2.]])
    """
    grad, w = grad[:, : layout.weights], theta[:, : layout.weights]
    if _used(l2):
        grad.addcmul_(w, _column(2 * l2, w))
    if _used(l1):
        grad.addcmul_(w.sign(), _column(l1, w))
    if _used(lp):
        assert p is not None, "an lp penalty needs its order p"
        grad.addcmul_(w.abs().pow_(_column(p - 1, w)).mul_(w.sign()), _column(lp * p, w))


def soft_threshold(
    theta: Tensor, layout: Layout, amount: Tensor, scale: Tensor | None = None
) -> None:
    """The proximal step of amount * sum |w|, in place: w = sign(w) max(|w| - amount, 0) on weights.

    ``amount`` [P] is lr * l1; ``scale`` [P, D] is the part of it that each column takes.

    >>> theta = torch.tensor([[1.0, -2.0, 0.25]])
    >>> soft_threshold(theta, Layout((), 3), torch.tensor([0.5]))
    >>> theta
    tensor([[ 0.5000, -1.5000,  0.0000]])

    Source: Daubechies, Defrise and De Mol 2004 (ISTA); as a step of gradient descent: Duchi and
    Singer 2009 (FOBOS).
    """
    w = theta[:, : layout.weights]
    limit = _column(amount, w)
    if scale is not None:
        limit = limit * scale[:, : layout.weights]
    w.sub_(torch.minimum(torch.maximum(w, -limit), limit))  # what lies within becomes exactly 0


def penalty(
    theta: Tensor,
    layout: Layout,
    l1: Tensor | None = None,
    l2: Tensor | None = None,
    lp: Tensor | None = None,
    p: Tensor | None = None,
) -> Tensor:
    """The value of the penalties of each row, [P].

    >>> penalty(torch.tensor([[1.0, -2.0]]), Layout((), 2), l1=torch.tensor([1.0]), l2=torch.tensor([1.0]))
    tensor([8.])
    """
    w = theta[:, : layout.weights]
    total = torch.zeros(len(theta), dtype=theta.dtype, device=theta.device)
    if _used(l1):
        total += l1.to(theta) * w.abs().sum(1)
    if _used(l2):
        total += l2.to(theta) * w.square().sum(1)
    if _used(lp):
        assert p is not None, "an lp penalty needs its order p"
        total += lp.to(theta) * w.abs().pow(_column(p, w)).sum(1)
    return total


def _used(x: Tensor | None) -> TypeGuard[Tensor]:
    """Whether any row has this penalty; on other devices than the CPU looking would cost more than
    the penalty."""
    return x is not None and (x.device.type != "cpu" or bool(x.any()))


def _column(x: Tensor, like: Tensor) -> Tensor:
    return x.to(like).unsqueeze(1)
