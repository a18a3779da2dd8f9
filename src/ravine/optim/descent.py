"""One optimiser on one function, without a network: for examples, and for the pictures in the
documentation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ravine.catalogue import make
from ravine.layout import Layout
from ravine.optim.rows.optimizer import RowOptimizer


def path(
    kind: str,
    gradient_at: Callable[[Tensor], Tensor],
    start: Sequence[float],
    steps: int,
    **fields: Any,
) -> Tensor:
    """Every point of a descent from ``start``, [steps + 1, D]; ``gradient_at`` maps a point [D] to
    the gradient there.

    >>> path("sgd", lambda w: 2 * w, [1.0, -2.0], steps=1, lr=0.25).tolist()
    [[1.0, -2.0], [0.5, -1.0]]
    """
    part: Any = make("optimizer", {"kind": kind, **fields})
    layout = Layout.of([("w", (len(start),), "weight", 0)])
    optimizer = RowOptimizer([part], layout, device="cpu", dtype=torch.float64)
    theta = torch.tensor([list(start)], dtype=torch.float64)
    lr, alive = torch.tensor([part.lr], dtype=torch.float64), torch.ones(1, dtype=torch.bool)
    points = [theta[0].clone()]
    for t in range(1, steps + 1):
        optimizer.point(theta)
        grad = gradient_at(theta[0]).unsqueeze(0)
        optimizer.step(theta, grad, lr, alive, torch.tensor([float(t)], dtype=torch.float64))
        points.append(theta[0].clone())
    return torch.stack(points)


def descend(
    kind: str, gradient_at: Callable[[Tensor], Tensor], start: float, steps: int, **fields: Any
) -> float:
    """Where a descent in one dimension ends, to six decimals.

    >>> descend("sgd", lambda w: 2 * w, 1.0, steps=2, lr=0.25)
    0.25
    """
    return round(float(path(kind, gradient_at, [start], steps, **fields)[-1, 0]), 6)
