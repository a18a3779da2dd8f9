"""Whether a person's function of outputs and targets compares each output with its own target."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

FEW = 64  # samples on which it is tried
ROLLS = (1, 2, 3)  # places by which targets are moved against the outputs


def wants_vector(
    function: Callable[[Any, Tensor], Any], output: Any, target: Tensor
) -> bool | None:
    """Whether numbers [B, 1], as Ravine holds them, must be given to a function as [B].

    ``output.squeeze(1) - target`` of [B] and [B, 1] is [B, B]: each output is compared with all targets,
    and the result is the same whichever target belongs to which output. So it must, where that is so
    (or the function fails) with [B, 1] and not with [B]. None: these samples do not tell.

    >>> output, target = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[0.5], [1.0], [2.0]])
    >>> wants_vector(lambda a, b: (a.squeeze(1) - b).abs().mean(), output, target)
    True
    >>> wants_vector(lambda a, b: (a - b).abs().mean(), output, target)
    False
    """
    if target.dim() != 2 or target.shape[1] != 1 or not target.is_floating_point():
        return False
    few = target[:FEW]
    # of several members (torch.func.vmap) no number is seen
    mapped = torch._C._functorch.is_functorch_wrapped_tensor(target)
    if mapped or len(few) < 2 or bool((few == few[0]).all()):
        return None
    rows = _different(output, len(target), len(few))
    if _pairs(function, rows, few):
        return False
    return True if _pairs(function, rows, few[:, 0]) else None


def _pairs(function: Callable[[Any, Tensor], Any], output: Any, target: Tensor) -> bool:
    """Whether the result depends on which target belongs to which output."""
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            found = _mean(function(output, target))
            moved = [_mean(function(output, target.roll(k, 0))) for k in ROLLS if k < len(target)]
    except Exception:  # a person's function may fail in any way
        return False
    alike = all(math.isclose(found, other, rel_tol=1e-4, abs_tol=1e-7) for other in moved)
    return math.isfinite(found) and not alike


def _mean(value: Any) -> float:
    return float(torch.as_tensor(value).double().mean())


def _different(output: Any, samples: int, few: int) -> Any:
    """The first rows of outputs, made unlike each other where an untrained network gives the same for
    all."""

    def rows(value: Any) -> Any:
        if not isinstance(value, Tensor) or value.dim() < 1 or len(value) != samples:
            return value
        found = value[:few].detach()
        if not found.is_floating_point() or not bool((found == found[0]).all()):
            return found
        step = torch.arange(few, device=found.device, dtype=found.dtype) / 100
        return found + step.view(-1, *(1,) * (found.dim() - 1))

    return tree_map(rows, output)
