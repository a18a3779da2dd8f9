"""The answer of least expected cost under a network's probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ravine.errors import InputError

Costs = Sequence[Sequence[float]]


def least_cost(p: Tensor, costs: Costs) -> Tensor:
    """The answers argmin_a sum_y p_y C_ya for probabilities p [..., K]; costs C [K, K] have a row for
    each true class, a column for each answer.

    InputError where ``costs`` is not a square matrix of finite numbers with a row for each class.

    >>> least_cost(torch.tensor([[0.8, 0.2]]), [[0.0, 1.0], [5.0, 0.0]])
    tensor([1])
    """
    count = p.shape[-1]
    sizes = {len(costs), *map(len, costs)}
    if sizes != {count}:
        raise InputError(
            "costs",
            got=f"{len(costs)} rows of {sorted(map(len, costs))} numbers",
            expected=f"{count} rows of {count} numbers: the cost of each answer for each true class",
        )
    matrix = torch.as_tensor(costs, dtype=torch.float64, device=p.device)
    if not bool(matrix.isfinite().all()):
        raise InputError("costs", got="a number that is not finite", expected="finite costs")
    return (p.double() @ matrix).argmin(-1)
