"""Mean and variance of a batch, which several processes may take together."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary


def batch_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Variance (by n - 1) and mean of each channel. Where a batch is divided among processes, these
    may be taken over all parts (as ``torch.nn.functional.batch_norm`` by a torch function mode)."""
    if has_torch_function_unary(x):
        return handle_torch_function(batch_statistics, (x,), x)
    return torch.var_mean(x, [axis for axis in range(x.dim()) if axis != 1], correction=1)
