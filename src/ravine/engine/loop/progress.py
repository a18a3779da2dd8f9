"""How far a training loop has come, for a progress bar or a live table."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class Progress:
    """What a progress bar shows."""

    step: int
    total: int
    epoch_steps: int
    live: int
    rate: float  # steps per second
    metrics: dict[str, float] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)  # the last evaluation of each member


def shown_means(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The members' mean of what a progress bar shows, of the rows of an epoch's end."""
    return {
        name: float(np.nanmean([row.get(name, math.nan) for row in rows]))
        for name in rows[0]
        if (name == "train_loss" or name.startswith("val_"))
        and any(math.isfinite(row.get(name, math.nan)) for row in rows)
    }
