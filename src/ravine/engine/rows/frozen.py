"""Which columns of theta move, and how far: frozen parameters, and learning rates by depth."""

from __future__ import annotations

from fnmatch import fnmatchcase

import torch
from torch import Tensor

from ravine.errors import InputError
from ravine.layout import Layout
from ravine.recipe import Start


def frozen(layout: Layout, start: Start) -> Tensor | None:
    """Which columns do not move [D]; None when all do."""
    if not start.freeze:
        return None
    still = torch.zeros(layout.size, dtype=torch.bool)
    for pattern in start.freeze:
        matched = [e for e in layout.entries if fnmatchcase(e.name.removeprefix("model."), pattern)]
        if not matched:
            names = ", ".join(e.name.removeprefix("model.") for e in layout.entries[:8])
            raise InputError(
                "start.freeze",
                got=pattern,
                expected=f"a pattern that matches a parameter: {names}, …",
            )
        for entry in matched:
            still[entry.start : entry.stop] = True
    return still


def depth_factors(layout: Layout, decay: float) -> Tensor:
    """The learning rate's factor of every column [D]: 1 for the last layer, ``decay`` less for each
    one before it."""
    last = max(entry.layer for entry in layout.entries)
    factors = torch.ones(layout.size, dtype=torch.float64)
    for entry in layout.entries:
        factors[entry.start : entry.stop] = decay ** (last - entry.layer)
    return factors
