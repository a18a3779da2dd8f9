"""Members one by one through a step of a person's own."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor

from ravine.data.objects.stream import seeded
from ravine.data.source import Batch
from ravine.engine.rows.objective import Objective
from ravine.engine.rows.own_step import is_in_parts, losses_of, parts_of, record
from ravine.engine.rows.ways.one_by_one import OneByOne
from ravine.engine.rows.ways.way import store
from ravine.engine.rows.ways.workload import Workload
from ravine.randomness import key


class Stepped(OneByOne):
    """Used wherever the recipe names a step of one's own: what happens in it is not known, so that
    members neither share kernels nor run by hand-written passes."""

    name = "own step"
    phrase = "members one by one by a step of one's own"

    @classmethod
    def rule(cls, work: Workload) -> str | None:
        own = work.population.objectives[0].own_step is not None
        return "what a step of one's own does is not known, so rows share nothing" if own else None

    def _row(
        self, i: int, x: Tensor, y: Tensor, weight: Tensor | None, step: int, accumulate: float
    ) -> Tensor:
        rows = self.population
        objective = rows.objectives[i]
        if objective.own_step is None:
            return super()._row(i, x, y, weight, step, accumulate)
        batch = Batch(x, y, torch.arange(len(y), device=y.device))
        seeds = rows.global_seeds
        draws = contextlib.nullcontext() if seeds is None else seeded(key(seeds[i], "module", step))
        with draws, self.casting():
            if is_in_parts(objective.own_step):
                return self._parts(i, objective, batch)
            losses, numbers = losses_of(objective.own_step, objective.model, batch, objective.form)
        loss = losses.mean() if weight is None else (losses * weight).mean()
        found = torch.autograd.grad(loss, rows.parameters[i], materialize_grads=True)
        store(rows.gradients_of[i], found, accumulate)
        record(objective, numbers, len(y))
        return loss.detach()

    def _parts(self, i: int, objective: Objective, batch: Batch) -> Tensor:
        """Each part's gradient, and its optimiser's step, before the step goes on."""
        rows = self.population
        places = {id(parameter): k for k, parameter in enumerate(rows.parameters[i])}
        assert objective.own_step is not None
        losses: dict[str, float] = {}
        turns = parts_of(objective.own_step, objective.model, batch, objective.form)
        for name, part, loss in turns:
            own = [p for p in part.parameters() if id(p) in places]
            found = torch.autograd.grad(loss, own, materialize_grads=True)
            store([rows.gradients_of[i][places[id(p)]] for p in own], found, 0.0)
            if rows.step_part is not None:
                rows.step_part(i, name, own, found)
            losses[f"{name}_loss"] = float(loss.detach())
        record(objective, losses, len(batch.y))
        return torch.tensor(sum(losses.values()), device=rows.theta.device)
