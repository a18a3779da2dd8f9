"""A small problem with weights and biases, our optimisers on it, and plain references to hold them
against."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ravine.catalogue import make
from ravine.layout import Layout
from ravine.optim.clipping import clip
from ravine.optim.rows.optimizer import RowOptimizer

LAYOUT = Layout.of(
    [
        ("a.weight", (5, 3), "weight", 0),
        ("a.bias", (5,), "bias", 0),
        ("n.weight", (5,), "norm", 1),
        ("b.weight", (2, 5), "weight", 2),
        ("b.bias", (2,), "bias", 2),
    ]
)
STEPS = 100
torch.set_num_threads(1)  # on 37 columns threads would only wait for each other


def problem(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """A starting point [D], and the gradient of a curved, coupled, convex function (no chaos:
    roundings stay small)."""
    generator = torch.Generator().manual_seed(3)
    d = LAYOUT.size
    root = torch.randn(d, d, generator=generator, dtype=torch.float64) / math.sqrt(d)
    curvature = (root @ root.T + 0.5 * torch.eye(d, dtype=torch.float64)).to(dtype)
    start = torch.randn(d, generator=generator, dtype=torch.float64).to(dtype)
    return start, lambda w: curvature @ w + 0.1 * torch.sin(3 * w) + 0.1


def rate(lr: float, t: int) -> float:
    """A learning rate that moves, since much that is wrong hides while it stands still."""
    return lr * (1 + 0.5 * math.sin(t / 9))


def population(parts: Sequence[Any], norm: float = 0.0, steps: int = STEPS) -> Tensor:
    """Where our optimiser takes each row, [P, D]."""
    start, gradient = problem()
    theta = start.repeat(len(parts), 1)
    optimizer = RowOptimizer(parts, LAYOUT, device="cpu", dtype=theta.dtype)
    alive = torch.ones(len(parts), dtype=torch.bool)
    limit = torch.full((len(parts),), norm, dtype=torch.float64)
    for t in range(1, steps + 1):
        optimizer.point(theta)
        grad = torch.stack([gradient(row) for row in theta])
        clip(grad, LAYOUT, norm=limit)
        lr = torch.tensor([rate(part.lr, t) for part in parts], dtype=torch.float64)
        optimizer.step(
            theta, grad, lr, alive, torch.full((len(parts),), float(t), dtype=torch.float64)
        )
    return theta


def split(w: Tensor) -> list[Tensor]:
    return [w[entry.start : entry.stop].clone() for entry in LAYOUT.entries]


def by_torch(
    optimizer: type[torch.optim.Optimizer], weight_decay: float, norm: float, **arguments: Any
) -> Tensor:
    """Where PyTorch's optimiser goes, [D]; weights alone decay."""
    torch.set_default_dtype(torch.float64)  # in which NAdam keeps its product
    try:
        return _by_torch(optimizer, weight_decay, norm, **arguments)
    finally:
        torch.set_default_dtype(torch.float32)


def _by_torch(
    optimizer: type[torch.optim.Optimizer], weight_decay: float, norm: float, **arguments: Any
) -> Tensor:
    start, gradient = problem()
    sizes = [LAYOUT.weights, LAYOUT.size - LAYOUT.weights]
    parameters = [torch.nn.Parameter(piece) for piece in start.split(sizes)]
    groups: list[dict[str, Any]] = [{"params": [p]} for p in parameters]
    if optimizer is not torch.optim.Rprop:
        groups[0]["weight_decay"], groups[1]["weight_decay"] = weight_decay, 0.0
    made = optimizer(groups, **arguments, foreach=False)
    for t in range(1, STEPS + 1):
        for parameter, piece in zip(
            parameters,
            gradient(torch.cat([p.detach() for p in parameters])).split(sizes),
            strict=True,
        ):
            parameter.grad = piece
        if norm:
            torch.nn.utils.clip_grad_norm_(parameters, norm)
        for group in made.param_groups:
            if optimizer is not torch.optim.Rprop:  # whose sizes start at lr, unscheduled
                group["lr"] = rate(arguments["lr"], t)
        made.step()
    return torch.cat([p.detach() for p in parameters])


Update = Callable[[Tensor, Tensor, dict[str, Any], int, float, float, bool], Tensor]


def by_hand(
    update: Update, weight_decay: float, norm: float, lr: float, ahead: float = 0.0
) -> Tensor:
    """Where a formula written down plainly for one tensor goes, [D]: (w, g, memory, t, lr, decay,
    is_weight) -> new w.

    ``ahead``: the gradient is taken at w + ahead * memory["v"].
    """
    start, gradient = problem()
    tensors = split(start)
    memories: list[dict[str, Any]] = [{"v": torch.zeros_like(w)} for w in tensors]
    for t in range(1, STEPS + 1):
        point = torch.cat([w + ahead * m["v"] for w, m in zip(tensors, memories, strict=True)])
        grad = gradient(point)
        if norm:
            grad = grad * min(1.0, norm / (float(grad.norm()) + 1e-6))
        for i, (entry, g) in enumerate(zip(LAYOUT.entries, split(grad), strict=True)):
            is_weight = entry.kind == "weight"
            decay = weight_decay if is_weight else 0.0
            tensors[i] = update(tensors[i], g, memories[i], t, rate(lr, t), decay, is_weight)
    return torch.cat(tensors)


def part(kind: str, **fields: Any) -> Any:
    return make("optimizer", {"kind": kind, **fields})
