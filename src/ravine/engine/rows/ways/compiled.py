"""One network through ``torch.compile``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._triton import has_triton

from ravine.engine.rows.objective import Objective
from ravine.engine.rows.theta import ParameterMatrix
from ravine.engine.rows.ways.one_by_one import OneByOne
from ravine.engine.rows.ways.way import Arithmetic, differs
from ravine.engine.rows.ways.workload import Workload

STEPS = 4000  # of a plan from which compiling, up to a minute, should pay; not measured on any GPU


class Compiled(OneByOne):
    """The forward pass of a single network as kernels made for it, which join elementwise operations
    with what comes before them. Used on a GPU where a plan is long enough to repay compiling; tried
    against direct calls first."""

    name = "compiled"
    phrase = "network compiled"

    @classmethod
    def rule(cls, work: Workload) -> str | None:
        alone = work.device == "cuda" and work.members == 1 and not work.foreign
        long = alone and work.steps >= STEPS and has_triton()
        return f"the plan has {STEPS} steps or more" if long else None

    @classmethod
    def why_not(
        cls, population: ParameterMatrix, arithmetic: Arithmetic, x: Tensor, y: Tensor
    ) -> str | None:
        plain = OneByOne(population, arithmetic)
        return differs(cls(population, arithmetic), plain, "torch.compile", x, y)

    def bind(self) -> None:
        super().bind()
        models = [objective.model for objective in self.population.objectives]
        self._compiled = {model: compile_network(model) for model in models}

    def _network(self, objective: Objective) -> Callable[[Tensor], Any]:
        return self._compiled[objective.model]


def compile_network(network: nn.Module) -> Callable[[Tensor], Any]:
    """A network as kernels of its own, made at the first call for each shape of batch."""
    return torch.compile(lambda x: network(x), dynamic=False)
