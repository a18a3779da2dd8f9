"""All members together: one ``torch.func.vmap`` over stacked views of theta."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from ravine.engine.rows.objective import Objective, attacked
from ravine.engine.rows.theta import ParameterMatrix, view
from ravine.engine.rows.ways.one_by_one import OneByOne
from ravine.engine.rows.ways.way import Arithmetic, Way, differs, store
from ravine.engine.rows.ways.workload import Workload

FEW = 16  # samples on which mapping is tried


class Mapped(Way):
    """Every operation once for all members: P small kernels become one. Used for several members
    where their kernels are short (not for convolutions and recurrence on a CPU, which vmap makes
    slower), if a trial gives what direct calls give."""

    name = "mapped"
    phrase = "members together by vmap"
    together = True

    @classmethod
    def rule(cls, work: Workload) -> str | None:
        if work.members == 1 or work.recurrent or (work.device == "cpu" and work.convolutional):
            return None
        return "members share each kernel"

    @classmethod
    def why_not(
        cls, population: ParameterMatrix, arithmetic: Arithmetic, x: Tensor, y: Tensor
    ) -> str | None:
        # in theta's own precision, so that agreement can be held to tight tolerances
        return differs(cls(population), OneByOne(population), "vmap", x[:FEW], y[:FEW])

    def bind(self) -> None:
        rows = self.population
        self._template = _apart(rows.objectives[0])
        self._leaves = {e.name: view(rows.theta, e).requires_grad_() for e in rows.layout.entries}
        self._into = [view(rows.grad, entry) for entry in rows.layout.entries]

    def gradients(
        self, x: Tensor, y: Tensor, weight: Tensor | None, step: int, accumulate: float = 0.0
    ) -> Tensor:
        with torch.enable_grad():
            losses = self._losses(x, y, weight)  # [P]
            leaves = list(self._leaves.values())
            found = torch.autograd.grad(losses.sum(), leaves, materialize_grads=True)
        store(self._into, found, accumulate)
        return losses.detach()

    def losses(self, x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            return self._losses(x, y, None)

    def _losses(self, x: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
        template = self._template
        self._follow_mode(template, self.population.objectives[0])

        def loss(
            leaves: dict[str, Tensor],
            buffers: dict[str, Tensor],
            weight: Tensor | None,
            x: Tensor,
            y: Tensor,
        ) -> Tensor:
            def at(x: Tensor) -> Tensor:
                held = (leaves, buffers)
                with self.casting():
                    return functional_call(template, held, (x, y, weight), tie_weights=True)

            if not template.attacks:
                return at(x)
            slope = torch.func.grad(at)(x)
            return (at(x) + at(attacked(x, slope, buffers["adversarial"]))) / 2

        samples = 0 if self.population.apart else None
        mapped = vmap(loss, in_dims=(0, 0, None if weight is None else 0, samples, samples))
        return mapped(self._leaves, self.population.buffers, weight, x, y)  # [P]

    def outputs(self, x: Tensor) -> Tensor:
        model = self._template.model
        self._follow_mode(model, self.population.objectives[0].model)
        leaves, buffers = _inside(self._leaves), _inside(self.population.buffers)

        def output(leaves: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
            with self.casting():
                held = (leaves, buffers)
                return functional_call(model, held, (self.laid_out(x),), tie_weights=True)

        with torch.no_grad():
            return vmap(output)(leaves, buffers).to(self.population.theta.dtype)

    def _follow_mode(self, module: nn.Module, like: nn.Module) -> None:
        """Training or evaluation mode as the members' own: the template may be a copy."""
        if module.training != like.training:
            module.train(like.training)


def _inside(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those of the model, by their names in it."""
    named = ((name, tensor) for name, tensor in tensors.items() if name.startswith("model."))
    return {name.removeprefix("model."): tensor for name, tensor in named}


def _apart(objective: Objective) -> Objective:
    """What ``functional_call`` may run: a copy where a parameter has two names, which it
    would not put back."""
    names = [name for name, _ in objective.named_parameters(remove_duplicate=False)]
    tied = len(names) != len(list(objective.parameters()))
    return copy.deepcopy(objective) if tied else objective
