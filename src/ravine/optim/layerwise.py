"""Optimisers that scale each tensor's step by the tensor's own norm, for large batches: formulas
over whole tensors."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ravine.catalogue import Decay, Flag, NonNegative, Positive
from ravine.layout import Entry, Layout
from ravine.optim.arithmetic import (
    TILE,
    Column,
    State,
    adaptive,
    add,
    average,
    average_square,
    cast,
    off,
    whole_tensors,
)


@whole_tensors
def lars(
    w: Tensor,
    g: Tensor,
    state: State,
    t: Column,
    layout: Layout,
    *,
    lr: Positive = 0.1,
    momentum: Decay = 0.9,
    trust: Positive = 1e-3,
    ratio: Literal["paper", "plain"] = "paper",
    exclude: Flag = True,
    weight_decay: NonNegative = 0.0,
) -> None:
    """LARS: momentum whose rate is, for each tensor, in proportion to the tensor's norm over its
    gradient's.

    rate = lr * trust * ||w|| / (||g|| + weight_decay * ||w||);
    v = momentum * v + rate * (g + weight_decay * w);  w -= v.

    ``ratio = "plain"``: rate = lr * ||w|| / ||g||, as lectures give it, without trust coefficient
    and decay term. ``exclude``: biases and normalisation parameters take lr itself. So do tensors
    with ||w|| or ||g|| zero. Slots: ``v``.

    >>> from ravine.optim.descent import descend
    >>> descend("lars", lambda w: 2 * w, 1.0, steps=1, lr=0.1, trust=0.5)
    0.95

    Source: You, Gitman and Ginsburg 2017.
    """
    v = state["v"]
    for entry in layout.entries:
        columns = slice(entry.start, entry.stop)
        decay = weight_decay if entry.stop <= layout.weights else 0.0
        rate: Column = lr
        if not (exclude and entry.kind != "weight"):
            of_w, of_g = _norm(w[:, columns]), _norm(g[:, columns])
            below = of_g if ratio == "plain" else of_g + decay * of_w
            rate = lr * _ratio(of_w if ratio == "plain" else trust * of_w, below)
        for tile in _tiles(entry, w):
            velocity = v[:, tile].mul_(cast(momentum, w))
            add(velocity, g[:, tile], rate)
            if not off(decay):
                add(velocity, w[:, tile], rate * decay)
            w[:, tile].sub_(velocity)


@adaptive
@whole_tensors
def lamb(
    w: Tensor,
    g: Tensor,
    state: State,
    t: Column,
    layout: Layout,
    *,
    lr: Positive = 1e-3,
    beta1: Decay = 0.9,
    beta2: Decay = 0.999,
    eps: NonNegative = 1e-6,
    bias_correction: Flag = True,
    exclude: Flag = True,
    weight_decay: NonNegative = 0.0,
) -> None:
    """LAMB: Adam's step, with decay, scaled for each tensor to the tensor's norm.

    m, v as in ``adam``;  r = (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps) + weight_decay * w;
    w -= lr * ||w|| / ||r|| * r.

    ``bias_correction = false`` leaves out the two divisions by 1 - beta^t. ``exclude``: biases and
    normalisation parameters take w -= lr * r. So do tensors with ||w|| or ||r|| zero. Slots: ``m``,
    ``v``.

    >>> from ravine.optim.descent import descend
    >>> descend("lamb", lambda w: 2 * w, 1.0, steps=1, lr=0.1)
    0.9

    Source: You et al. 2020, algorithm 2.
    """
    m, v = state["m"], state["v"]
    correct1, correct2 = (1 - beta1**t, 1 - beta2**t) if bias_correction else (1.0, 1.0)
    for entry in layout.entries:
        columns = slice(entry.start, entry.stop)
        step = torch.empty_like(w[:, columns])
        for tile in _tiles(entry, w):
            part = step[:, tile.start - entry.start : tile.stop - entry.start]
            mean, square = (
                average(m[:, tile], g[:, tile], beta1),
                average_square(v[:, tile], g[:, tile], beta2),
            )
            torch.sqrt(square, out=part)
            part.mul_(cast(correct2**-0.5, w)).add_(cast(eps, w)).reciprocal_().mul_(mean).mul_(
                cast(1 / correct1, w)
            )
            if entry.stop <= layout.weights and not off(weight_decay):
                add(part, w[:, tile], weight_decay)
        excluded = exclude and entry.kind != "weight"
        add(
            w[:, columns],
            step,
            -lr if excluded else -lr * _ratio(_norm(w[:, columns]), _norm(step)),
        )


def _norm(x: Tensor) -> Column:
    """The norm of each row, a float64 column [P, 1]; of one row on a CPU a float."""
    if x.shape[0] == 1 and x.device.type == "cpu" and not torch.compiler.is_compiling():
        return torch.linalg.vector_norm(x).item()
    return torch.linalg.vector_norm(x, dim=1, keepdim=True).double()


def _ratio(above: Column, below: Column) -> Column:
    """above / below, 1 where either is zero."""
    if isinstance(above, Tensor) or isinstance(below, Tensor):
        return torch.where((above > 0) & (below > 0), above / below, 1.0)
    return above / below if above > 0 and below > 0 else 1.0


def _tiles(entry: Entry, w: Tensor) -> list[slice]:
    """The columns of a tensor in pieces that stay in a CPU's cache."""
    if w.device.type != "cpu" or torch.compiler.is_compiling():
        return [slice(entry.start, entry.stop)]
    size = max(1, TILE // w.shape[0])
    return [
        slice(start, min(start + size, entry.stop))
        for start in range(entry.start, entry.stop, size)
    ]
