"""P members of one program: theta [P, D] and the way in which their gradients are taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ravine.engine.rows.objective import Objective
from ravine.engine.rows.theta import ParameterMatrix, view
from ravine.engine.rows.ways import OneByOne, Way

__all__ = ["Objective", "Population", "view"]


class Population(ParameterMatrix):
    """A parameter matrix that runs: whatever is asked of the rows goes to ``way``."""

    def __init__(
        self,
        objectives: Sequence[Objective],
        seeds: Sequence[int],
        *,
        device: torch.device,
        dtype: torch.dtype,
    ):
        super().__init__(objectives, seeds, device=device, dtype=dtype)
        self.way: Way = OneByOne(self)

    def _bind(self) -> None:
        super()._bind()
        if hasattr(self, "way"):  # not yet when the rows are first bound
            self.way.bind()

    def gradients(
        self, x: Tensor, y: Tensor, weight: Tensor | None, step: int, *, accumulate: float = 0.0
    ) -> Tensor:
        """Fill ``grad`` [P, D] with the gradient of the data loss; the losses [P]. weight: [P, B] or
        None. ``accumulate`` other than 0 adds that multiple of the new gradient to ``grad``."""
        return self.way.gradients(x, y, weight, step, accumulate)

    def losses(self, x: Tensor, y: Tensor) -> Tensor:
        """The losses [P] of the batch, without gradients."""
        return self.way.losses(x, y)

    def outputs(self, x: Tensor) -> Tensor:
        """Every row's outputs for the same inputs [P, B, ...], without gradients."""
        return self.way.outputs(x)

    def call(self, model: nn.Module, x: Tensor) -> Tensor:
        """A model's outputs as one tensor, in the way's arithmetic; float32 at least."""
        return self.way.call(model, x)

    def outputs_of(self, model: nn.Module, x: Tensor) -> Any:
        """A model's outputs as it gives them, in the way's arithmetic."""
        return self.way.outputs_of(model, x)
