"""The constraints of a population: each row of theta [P, D] projected by its own technique and
numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ravine.layout import Layout
from ravine.optim.rows.groups import Rows, selection


class RowConstraints:
    """Constraint parts, one for each row, or None where a row has none.

    >>> from ravine.catalogue import make
    >>> layout = Layout.of([("w", (1, 2), "weight", 0)])
    >>> constraints = RowConstraints([make("constraint", "unit_norm"), None], layout, device="cpu")
    >>> theta = torch.tensor([[3.0, 4.0], [3.0, 4.0]])
    >>> constraints.apply(theta, torch.tensor([True, True]))
    >>> theta.tolist()
    [[0.6000000238418579, 0.800000011920929], [3.0, 4.0]]
    """

    def __init__(self, parts: Sequence[Any], layout: Layout, *, device: torch.device | str):
        self.parts, self.layout, self.device = list(parts), layout, torch.device(device)
        members: dict[tuple[Any, ...], list[int]] = {}
        for row, part in enumerate(parts):
            if part is not None:
                members.setdefault((part.kind, *_flags(part).items()), []).append(row)
        self._groups = [
            _ConstraintGroup(rows, [parts[r] for r in rows], self.device)
            for rows in members.values()
        ]

    def apply(self, theta: Tensor, alive: Tensor) -> None:
        """Project theta [P, D] in place; rows not ``alive`` [P] do not change."""
        for group in self._groups:
            group.apply(theta, alive, self.layout)

    def keep(self, rows: Sequence[int]) -> None:
        """These rows stay, in this order."""
        self.__init__([self.parts[row] for row in rows], self.layout, device=self.device)  # type: ignore[misc]


class _ConstraintGroup:
    """The rows of one constraint with the same flags."""

    def __init__(self, rows: list[int], parts: Sequence[Any], device: torch.device):
        self.rows: Rows = selection(rows, device)
        self.project = parts[0].technique.function()
        self.arguments = _flags(parts[0])
        for name, value in parts[0].arguments.items():
            if isinstance(value, float):
                numbers = [[getattr(part, name)] for part in parts]
                self.arguments[name] = torch.tensor(numbers, dtype=torch.float64, device=device)

    def apply(self, theta: Tensor, alive: Tensor, layout: Layout) -> None:
        before = theta[self.rows]
        projected = before.clone()
        self.project(projected, layout, **self.arguments)
        theta[self.rows] = torch.where(alive[self.rows].unsqueeze(1), projected, before)


def _flags(part: Any) -> dict[str, Any]:
    return {name: value for name, value in part.arguments.items() if not isinstance(value, float)}
