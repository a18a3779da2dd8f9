"""Gradient clipping by row: by value, by the norm of each tensor, by the norm of the whole
gradient. Zero is off."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeGuard

import torch
from torch import Tensor

from ravine.layout import Layout

# numbers from which a dot product takes half the time of a norm on two threads, and no longer on one
_LONG = 2**16
_EPS = 1e-6  # as torch.nn.utils.clip_grad_norm_ adds to the norm


def clip(
    grad: Tensor,
    layout: Layout,
    norm: Tensor | None = None,
    tensor_norm: Tensor | None = None,
    value: Tensor | None = None,
    *,
    norms_of: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Clip grad [P, D] in place, each row by its own limits [P], and give the norms [P] of the rows
    before clipping.

    By value: g = min(max(g, -value), value). By the norm of each tensor, then of the whole gradient
    (after the others): g *= min(1, limit / (||g|| + 1e-6)), as PyTorch has it. A limit of 0, or
    None for all rows, is off. A row whose norm is not finite holds a number that is not (or whose
    square is not); such rows are not to be used. ``norms_of`` gives the norms [P] of rows of which grad
    holds a part.

    >>> grad = torch.tensor([[3.0, 4.0], [3.0, 4.0]])
    >>> clip(grad, Layout((), 0), norm=torch.tensor([1.0, 0.0]))
    tensor([5., 5.])
    >>> grad
    tensor([[0.6000, 0.8000],
            [3.0000, 4.0000]])

    Source: Pascanu, Mikolov and Bengio 2013.
    """
    norms_of = norms_of or row_norms
    norms = norms_of(grad)
    if _used(value):
        limit = _limits(value, grad)
        torch.minimum(torch.maximum(grad, -limit, out=grad), limit, out=grad)
    if _used(tensor_norm):
        limit = _limits(tensor_norm, grad)
        for entry in layout.entries:
            columns = grad[:, entry.start : entry.stop]
            columns.mul_(_factor(norms_of(columns), limit))
    if _used(norm):
        now = norms_of(grad) if _used(value) or _used(tensor_norm) else norms
        grad.mul_(_factor(now, _limits(norm, grad)))
    return norms


def row_norms(x: Tensor) -> Tensor:
    """The Euclidean norm of each row, [P]; one row alone is reduced by all threads, a long one as a
    product with itself."""
    if x.shape[0] == 1:
        if x.shape[1] >= _LONG and x.device.type == "cpu":
            return torch.dot(x[0], x[0]).sqrt_().unsqueeze(0)
        return torch.linalg.vector_norm(x).unsqueeze(0)
    return torch.linalg.vector_norm(x, dim=1)


def _used(limit: Tensor | None) -> TypeGuard[Tensor]:
    """Whether any row has this limit; on other devices than the CPU looking would cost more than
    clipping."""
    return limit is not None and (limit.device.type != "cpu" or bool(limit.any()))


def _limits(limit: Tensor, grad: Tensor) -> Tensor:
    """Limits as a column [P, 1], infinite where off."""
    return torch.where(limit > 0, limit, torch.inf).to(grad).unsqueeze(1)


def _factor(norms: Tensor, limit: Tensor) -> Tensor:
    factor = limit / (norms.unsqueeze(1) + _EPS)
    return torch.where(limit.isinf(), 1.0, factor.clamp(max=1.0))
