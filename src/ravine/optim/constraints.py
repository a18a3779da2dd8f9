"""Constraints: projections of the weights after each step. w [P, D] is projected in place, each row
by its own numbers.

Biases and normalisation parameters are free. A unit's weights are those that lead into it:
``weight[unit]``, along the first dimension of a tensor (the first two, positions and channels, of
an untied convolution). A number is a float or a float64 column [P, 1].
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from ravine.catalogue import Positive
from ravine.layout import Layout
from ravine.optim.arithmetic import Column, tensor

Over = Literal["all", "tensor", "unit"]


def max_norm(w: Tensor, layout: Layout, *, limit: Positive = 3.0) -> None:
    """The Euclidean norm of each unit's weights is at most ``limit``: w *= min(1, limit / ||w||).

    >>> w = torch.tensor([[3.0, 4.0, 0.3, 0.4]])
    >>> max_norm(w, Layout.of([("w", (2, 2), "weight", 0)]), limit=1.0)
    >>> w
    tensor([[0.6000, 0.8000, 0.3000, 0.4000]])

    Source: Srebro and Shraibman 2005; with dropout: Srivastava et al. 2014.
    """
    for rows in _views(w, layout, "unit"):
        norm = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
        rows.mul_((_column(limit, rows) / norm.clamp(min=_tiny(w))).clamp_(max=1.0))


def unit_norm(w: Tensor, layout: Layout) -> None:
    """The Euclidean norm of each unit's weights is 1: w /= ||w||. Weights that are all zero stay
    so.

    >>> w = torch.tensor([[3.0, 4.0]])
    >>> unit_norm(w, Layout.of([("w", (1, 2), "weight", 0)]))
    >>> w
    tensor([[0.6000, 0.8000]])
    """
    for rows in _views(w, layout, "unit"):
        rows.div_(torch.linalg.vector_norm(rows, dim=-1, keepdim=True).clamp_(min=_tiny(w)))


def l2_ball(w: Tensor, layout: Layout, *, radius: Positive = 10.0, over: Over = "all") -> None:
    """Projection onto ||w||_2 <= ``radius``: of all weights together, of each tensor, or of each unit.

    ``over`` says what the norm is taken of: all weights together, each tensor, or each unit.

    >>> w = torch.tensor([[3.0, 4.0]])
    >>> l2_ball(w, Layout.of([("w", (2, 1), "weight", 0)]), radius=1.0)
    >>> w
    tensor([[0.6000, 0.8000]])
    """
    for rows in _views(w, layout, over):
        norm = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
        rows.mul_((_column(radius, rows) / norm.clamp(min=_tiny(w))).clamp_(max=1.0))


def l1_ball(w: Tensor, layout: Layout, *, radius: Positive = 100.0, over: Over = "all") -> None:
    """Projection onto ||w||_1 <= ``radius``: of all weights together, of each tensor, or of each unit.

    ``over`` says what the norm is taken of: all weights together, each tensor, or each unit.

    The nearest point of the ball: w = sign(w) max(|w| - theta, 0), with theta from the sorted
    magnitudes; many weights become exactly zero.

    >>> w = torch.tensor([[3.0, -1.0, 0.1]])
    >>> l1_ball(w, Layout.of([("w", (3, 1), "weight", 0)]), radius=2.0)
    >>> w
    tensor([[2., -0., 0.]])

    Source: Duchi, Shalev-Shwartz, Singer and Chandra 2008.
    """
    for rows in _views(w, layout, over):
        size, limit = rows.abs(), _column(radius, rows)
        inside = size.sum(-1, keepdim=True) <= limit
        down = size.sort(dim=-1, descending=True).values
        above = down.cumsum(-1).sub_(limit)  # how far the k largest exceed the radius
        k = torch.arange(1, rows.shape[-1] + 1, dtype=w.dtype, device=w.device)
        last = (down * k > above).sum(-1, keepdim=True).clamp_(min=1) - 1
        theta = above.gather(-1, last) / (last + 1)
        rows.copy_(torch.where(inside, rows, rows.sign() * (size - theta).clamp_(min=0.0)))


def _views(w: Tensor, layout: Layout, over: str) -> Iterator[Tensor]:
    """Views of the weights whose last dimension is what a norm is taken over: [P, n] or [P, units,
    n]."""
    if over == "all":
        yield w[:, : layout.weights]
        return
    for entry in layout.entries:
        if entry.kind == "weight":
            columns = w[:, entry.start : entry.stop]
            yield columns.unflatten(1, (entry.units, -1)) if over == "unit" else columns


def _column(x: Column, like: Tensor) -> Tensor:
    """A float, or a column [P, 1], in the shape that meets [P, n] or [P, units, n]."""
    x = tensor(x, like)
    return x if x.ndim == 0 else x.reshape(-1, *[1] * (like.ndim - 1))


def _tiny(w: Tensor) -> float:
    return torch.finfo(w.dtype).tiny
