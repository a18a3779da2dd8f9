"""How one member went: the losses of its batches, and what was measured of it at some steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import numpy as np
from torch import nn

from ravine.doctor.measure.baseline import Baseline
from ravine.recipe import Recipe


@dataclass
class Curve:
    """One member as it went: batch losses, gradient norms, and what was measured on probe samples
    at some steps."""

    recipe: Recipe
    total: int  # steps of the whole plan
    losses: np.ndarray = field(default_factory=lambda: np.zeros(0))  # of every batch [steps]
    norms: np.ndarray = field(default_factory=lambda: np.zeros(0))
    at: list[int] = field(default_factory=list)  # steps at which it was measured
    loss: list[float] = field(default_factory=list)  # on the probe samples
    metric: list[float] = field(default_factory=list)
    val_loss: list[float] = field(default_factory=list)
    val_metric: list[float] = field(default_factory=list)
    val_samples: int = 0
    base: Baseline = field(default_factory=lambda: Baseline(1.0, 0.0, 1.0))
    failed: str | None = None
    # the member as it is now, for a check that asks it
    network: Callable[[], AbstractContextManager[nn.Module]] | None = None
    shift: float = 0.0  # what must be added to losses that may be negative: they are counted from 0

    @property
    def seen(self) -> int:
        return len(self.losses)

    @property
    def finite(self) -> bool:
        return (
            self.failed is None
            and bool(np.isfinite(self.losses).all())
            and bool(np.isfinite(self.norms).all())
        )

    def skills(self) -> list[float]:
        return [self.base.skill(value) for value in self.loss]

    @property
    def skill(self) -> float:
        """At the end, of the loss; minus infinity for a member that was lost."""
        return self.skills()[-1] if self.loss and self.finite else -math.inf

    @property
    def metric_skill(self) -> float:
        return self.base.metric_skill(self.metric[-1]) if self.metric and self.finite else -math.inf
