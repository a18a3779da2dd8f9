"""What formulas over rows are written with.

A hyper-parameter is a plain float (one row, or the same for all) or a float64 column [P, 1] (one
number a row). Both know ``+ - * / **``; the other operations that formulas need are here. Coefficients
are computed in float64 and cast where they meet the rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor

from ravine.layout import Layout

Column: TypeAlias = Any  # a float, or a float64 Tensor [P, 1]

# elements of one matrix in a core's part of a tile: w, g, two slots and a temporary stay in its cache
TILE = 2**15


class State(Protocol):
    """The slots of some rows: each name is a tensor like w, zero at first."""

    def __getitem__(self, name: str, /) -> Tensor: ...


_F = TypeVar("_F", bound=Callable[..., Any])

# Marks: properties of an optimiser are decorators of its function. ``find("optimizer", kind).marks`` reads
# them from the source, without importing torch.


def whole_tensors(technique: _F) -> _F:
    """Mark a formula that needs the norms of tensors: it sees whole tensors, never a part of
    one."""
    return technique


def adaptive(technique: _F) -> _F:
    """Mark an optimiser that divides each parameter's step by the size of its gradients, so that
    the length of a step is about lr whatever the scale of the loss."""
    return technique


def unscheduled(technique: _F) -> _F:
    """Mark an optimiser that takes lr as its recipe has it: schedules and warm-up do not change
    it."""
    return technique


def off(x: Column) -> bool:
    """Whether a number is the plain float zero: what it multiplies need not be computed.

    >>> off(0.0), off(0.1), off(torch.zeros(2, 1))
    (True, False, False)
    """
    return isinstance(x, float) and x == 0.0


def cast(x: Column, like: Tensor) -> Any:
    """A column in the rows' own precision."""
    return x.to(like.dtype) if isinstance(x, Tensor) else x


def choose(condition: Any, yes: Column, no: Column) -> Column:
    """``yes`` where the condition (a bool, or a column of them) holds, else ``no``.

    >>> choose(True, 1.0, 2.0), choose(torch.tensor([[True], [False]]), 1.0, 2.0).tolist()
    (1.0, [[1.0], [2.0]])
    """
    if not isinstance(condition, Tensor):
        return yes if condition else no
    wide = torch.empty((), dtype=torch.float64, device=condition.device)
    return torch.where(condition, tensor(yes, wide), tensor(no, wide))


def at_least(x: Column, least: float) -> Column:
    """The greater of a column and a number."""
    return x.clamp(min=least) if isinstance(x, Tensor) else max(x, least)


def tensor(x: Column, like: Tensor) -> Tensor:
    """A column, or a float as a tensor without dimensions, in the precision and on the device of
    the rows."""
    if isinstance(x, Tensor):
        return x.to(like.dtype)
    # a fill, not a copy from the host
    return torch.full((), x, dtype=like.dtype, device=like.device)


def add(x: Tensor, y: Tensor, factor: Column) -> Tensor:
    """x += factor * y, in place."""
    return x.addcmul_(y, cast(factor, x)) if isinstance(factor, Tensor) else x.add_(y, alpha=factor)


def add_product(x: Tensor, a: Tensor, b: Tensor, factor: Column) -> Tensor:
    """x += factor * a * b, in place."""
    if isinstance(factor, Tensor):
        return x.addcmul_(a * cast(factor, x), b)
    return x.addcmul_(a, b, value=factor)


def add_quotient(x: Tensor, a: Tensor, b: Tensor, factor: Column) -> Tensor:
    """x += factor * a / b, in place."""
    if isinstance(factor, Tensor):
        return x.addcdiv_(a * cast(factor, x), b)
    return x.addcdiv_(a, b, value=factor)


def average(mean: Tensor, x: Tensor, memory: Column) -> Tensor:
    """mean = memory * mean + (1 - memory) * x, in place."""
    return mean.lerp_(x, cast(1 - memory, mean))


def average_square(mean: Tensor, x: Tensor, memory: Column) -> Tensor:
    """mean = memory * mean + (1 - memory) * x^2, in place."""
    return add_product(mean.mul_(cast(memory, mean)), x, x, 1 - memory)


def row_number(slot: Tensor) -> Column:
    """The one number a row that a slot holds in all its columns, so that any tile finds it: a
    float64 column, or a float of a single row on a CPU."""
    if slot.shape[0] == 1 and slot.device.type == "cpu" and not torch.compiler.is_compiling():
        return slot[0, 0].item()
    return slot[:, :1].double()


def keep_row_number(slot: Tensor, x: Column) -> None:
    """Put one number a row into a slot, for ``row_number`` to find."""
    if isinstance(x, Tensor):
        slot.copy_(x)
    elif slot[0, 0].item() != x:  # a product of momenta soon stays as it is
        slot.fill_(x)


def with_decay(g: Tensor, w: Tensor, weight_decay: Column, layout: Layout) -> Tensor:
    """Coupled decay: g + weight_decay * w on the columns that decay; g itself is left as it is."""
    n = min(layout.weights, w.shape[1])
    if off(weight_decay) or n == 0:
        return g
    g = g.clone()
    add(g[:, :n], w[:, :n], weight_decay)
    return g


def shrink(w: Tensor, rate: Column, layout: Layout) -> None:
    """Decoupled decay: w *= 1 - rate on the columns that decay, in place."""
    if not off(rate) and layout.weights:
        w[:, : layout.weights].mul_(cast(1 - rate, w))


def divisor(s: Tensor, eps: Column, eps_in: str) -> Tensor:
    """What a step is divided by: sqrt(s) + eps, sqrt(s + eps), or s + eps."""
    eps = cast(eps, s)
    if eps_in == "outside":
        return s.sqrt().add_(eps)
    return s.add(eps).sqrt_() if eps_in == "inside" else s.add(eps)
