"""What happens to a member that diverges: it rests (``stop``), skips the step (``report``), or goes
back (``rollback``).

Going back is decided at the end of epochs: what the clock decides (where blocks end) must not
change a number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ravine.engine.rows.population import Population
from ravine.engine.rows.step import Stepper
from ravine.recipe import Recipe

FACTOR = 0.2  # of the learning rate, at every return
# times the last good epoch's mean loss, and TWICE the first step's: diverged, though finite
BLOWN = 10.0
TWICE = 2.0
FACTS = ("step", "loss", "factor", "returns", "first")


@dataclass
class Good:
    """Where a member goes back to: its whole state at the end of its last good epoch."""

    step: int
    loss: float | None = None  # the epoch's mean; none at the beginning
    factor: float = 1.0  # of the recipe's learning rate, from now on
    returns: int = 0
    first: float | None = None  # the loss of the very first step
    arrays: dict[str, Tensor] = field(default_factory=dict)


class Rollback:
    """The good states of the members whose recipes say ``on_trouble = "rollback"``."""

    def __init__(self, population: Population, stepper: Stepper):
        self.population, self.stepper = population, stepper
        self.good: dict[int, Good] = {}

    def begin(self, members: Sequence[int], recipes: Sequence[Recipe], rows: Sequence[int]) -> None:
        """Remember where these members begin."""
        for member, recipe, row in zip(members, recipes, rows, strict=True):
            if recipe.stop.on_trouble == "rollback":
                self.good[member] = Good(0, arrays=self._take(row))

    def factors(self, members: Sequence[int]) -> np.ndarray:
        """What the members' learning rates are multiplied by [P]."""
        return np.array(
            [self.good[member].factor if member in self.good else 1.0 for member in members]
        )

    def judge(
        self, member: int, recipe: Recipe, row: int, step: int, losses: np.ndarray
    ) -> str | None:
        """After an epoch with these losses: keep a good state, or go back to it; says so where the
        member went back."""
        good = self.good.get(member)
        if good is None:
            return None
        if good.first is None:
            good.first = float(losses[0])
        mean, alive = float(losses.mean()), bool(self.stepper.alive[row])
        if alive and not self._blown(good, mean):
            good.step, good.loss, good.arrays = step, mean, self._take(row)
            return None
        if good.returns >= recipe.stop.rollbacks:
            return None
        good.returns += 1
        good.factor *= FACTOR
        self._put(row, good.arrays)
        self.stepper.alive[row] = True
        seen = (
            f"its mean loss rose to {mean:.4g}" if alive else "its loss or gradient was not finite"
        )
        return (
            f"return {good.returns} of at most {recipe.stop.rollbacks}: {seen}; from step {step} it goes on with the "
            f"weights of step {good.step} and lr {recipe.optimizer.lr * good.factor:.3g}"
        )

    def _blown(self, good: Good, mean: float) -> bool:
        first = good.first or 0.0
        before = first if good.loss is None else good.loss
        return not math.isfinite(mean) or (
            first > 0 and mean > BLOWN * before and mean > TWICE * first
        )

    def _rows(self, row: int) -> dict[str, Tensor]:
        """Every array of a row, live."""
        found = {"theta": self.population.theta[row]} | self.stepper.optimizer.row(row)
        found |= {
            f"buffer/{name}": stacked[row]
            for name, stacked in self.population.saved_buffers().items()
        }
        return (
            found
            if self.stepper.average is None
            else found | {"average": self.stepper.average[row]}
        )

    def _take(self, row: int) -> dict[str, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self._rows(row).items()}

    @torch.no_grad()
    def _put(self, row: int, arrays: Mapping[str, Tensor]) -> None:
        for name, tensor in self._rows(row).items():
            tensor.copy_(arrays[name])

    def state(self, members: Sequence[int]) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Arrays and facts of these members, for a snapshot."""
        held = {member: self.good[member] for member in members if member in self.good}
        arrays = {
            f"good/{member}/{name}": tensor
            for member, good in held.items()
            for name, tensor in good.arrays.items()
        }
        facts = {
            str(member): {name: getattr(good, name) for name in FACTS}
            for member, good in held.items()
        }
        return arrays, facts

    def load_state(self, arrays: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Take over what ``state`` gave."""
        device = self.population.theta.device
        for member, values in facts.items():
            prefix = f"good/{member}/"
            own = {
                name.removeprefix(prefix): array.to(device)
                for name, array in arrays.items()
                if name.startswith(prefix)
            }
            self.good[int(member)] = Good(**values, arrays=own)


def skipped(losses: np.ndarray, norms: np.ndarray) -> str | None:
    """What to report of a member that goes on over steps whose loss or gradient is not finite."""
    bad = ~(np.isfinite(losses) & np.isfinite(norms))
    return (
        f"{bad.sum()} of {len(losses)} steps had no finite loss or gradient and were skipped"
        if bad.any()
        else None
    )
