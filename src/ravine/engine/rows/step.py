"""One step of every member: gradient, penalties, clipping, optimiser, constraints and masks,
averages.

Nothing here waits for the device: losses and gradient norms are kept there and read once per block.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._triton import has_triton

from ravine.data.pipeline import Batch
from ravine.engine import finetune
from ravine.engine.rows.graphed import GraphedSteps
from ravine.engine.rows.population import Objective, Population
from ravine.optim.clipping import clip
from ravine.optim.groups import on_host
from ravine.optim.penalties import add_penalty_gradients, soft_threshold
from ravine.optim.projection import RowConstraints
from ravine.optim.rows import RowOptimizer
from ravine.randomness import key, normal
from ravine.recipe import Recipe

COMPILED = (
    2**22
)  # numbers in theta from which, on a GPU, an optimiser's formula is compiled to one pass


@dataclass
class Measured:
    """What a block of n steps gives: losses and gradient norms [n, P], NaN where a row was
    frozen."""

    losses: Tensor
    norms: Tensor


class Stepper:
    """The numeric core: it knows rows and columns, not epochs, files or members' names."""

    def __init__(
        self,
        population: Population,
        recipes: Sequence[Recipe],
        *,
        sample_weights: Tensor | None = None,
    ):
        self.population = population
        self.optimizer = RowOptimizer(
            [r.optimizer for r in recipes],
            population.layout,
            device=population.theta.device,
            dtype=population.theta.dtype,
            compiled=population.theta.is_cuda
            and population.theta.numel() >= COMPILED
            and has_triton(),
        )
        self.accumulate: int = recipes[0].optimizer.accumulate
        self.alive = torch.ones(
            len(recipes), dtype=torch.bool, device=population.theta.device
        )  # [P]
        self.average: Tensor | None = None  # [P, D], the running average of the weights
        self.sample_weights = (
            sample_weights  # [P, N], how often each member's bootstrap drew each sample
        )
        self.mask: Tensor | None = None  # [P, D], pruned weights are False
        self.starts = torch.zeros(
            len(recipes), dtype=torch.float64, device=population.theta.device
        )  # [P], each row's step 0
        self.unfreeze: int | None = None  # the step from which frozen parameters move
        self.graphed: GraphedSteps | None = None  # whole steps as CUDA graphs
        self._still = finetune.frozen(population.layout, recipes[0].start)  # [D]
        self._take(recipes)

    def _take(self, recipes: Sequence[Recipe]) -> None:
        """Read the members' numbers into columns."""
        self.recipes = list(recipes)
        device = self.population.theta.device

        def column(values: Iterable[float]) -> Tensor:
            return torch.tensor(list(values), dtype=torch.float64, device=device)  # [P]

        proximal = [r.loss.l1 if r.loss.l1_step == "proximal" else 0.0 for r in recipes]
        by_gradient = [r.loss.l1 - own for r, own in zip(recipes, proximal, strict=True)]
        self._proximal = column(proximal) if any(proximal) else None  # [P]
        self._penalties = [
            column(by_gradient),
            *(column(getattr(r.loss, name) for r in recipes) for name in ("l2", "lp", "p")),
        ]
        self._penalised = any(by_gradient) or any(r.loss.l2 or r.loss.lp for r in recipes)
        self._clips = [
            column(getattr(r.clip, name) for r in recipes)
            for name in ("norm", "tensor_norm", "value")
        ]
        self._clipped = any(r.clip.norm or r.clip.tensor_norm or r.clip.value for r in recipes)
        self._ema = column(r.average.ema for r in recipes)
        self._averages = any(r.average.ema for r in recipes)
        self._noise = column(r.regularize.weight_noise for r in recipes)
        self._noisy = any(r.regularize.weight_noise for r in recipes)
        self._constrained = any(r.constraint is not None for r in recipes)
        self._constraints = RowConstraints(
            [r.constraint for r in recipes], self.population.layout, device=device
        )
        goes_on = [r.stop.on_trouble == "report" for r in recipes]
        self._goes_on = torch.tensor(goes_on, device=device) if any(goes_on) else None  # [P]
        self._scales = self._column_scales()
        if self.average is None and any(r.average.ema or r.average.swa for r in recipes):
            self.average = self.population.theta.detach().clone()

    def run(
        self,
        batches: Iterable[Sequence[Batch]],
        first: int,
        lr: np.ndarray,
        momentum: np.ndarray | None,
    ) -> Measured:
        """Steps first, first + 1, …, one for each item of ``batches`` (its micro-batches). lr: [n,
        P] multipliers."""
        population = self.population
        device = population.theta.device
        rates = torch.from_numpy(lr).to(device).unbind()  # n of [P]
        momenta = (
            [None] * len(lr) if momentum is None else torch.from_numpy(momentum).to(device).unbind()
        )
        counts = torch.arange(
            first + 1.0, first + 1.0 + len(lr), dtype=torch.float64, device=device
        )
        own = (counts[:, None] - self.starts).unbind()  # n of [P], each row's steps from 1
        take = self.one if self.graphed is None else self.graphed.one
        measured: list[Any] = []
        host = on_host(device)
        with torch.no_grad():
            for i, (micro, rate, momentum_now, t) in enumerate(
                zip(batches, rates, momenta, own, strict=True)
            ):
                found = take(micro, first + i, rate, momentum_now, t)
                measured += (
                    [one.tolist() for one in found] if host else found
                )  # small tensors that stay would scatter the heap
        numbers = (
            torch.tensor(measured, dtype=torch.float64) if host else torch.stack(measured).double()
        )
        held = numbers.view(-1, 2, len(population))  # [n, 2, P]
        return Measured(held[:, 0], held[:, 1])

    def thawed(self, step: int) -> bool:
        """Whether parameters that were frozen move in this step."""
        return self.unfreeze is not None and step >= self.unfreeze

    def tensors(self) -> list[Tensor]:
        """Everything that a step changes, live."""
        averages = [] if self.average is None else [self.average]
        return [
            self.population.theta,
            *self.population.buffers.values(),
            *self.optimizer.state().values(),
            self.alive,
            *averages,
        ]

    def one(
        self,
        micro: Sequence[Batch],
        step: int,
        rate: Tensor,
        momentum: Tensor | None,
        t: Tensor,
        seed: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """A step of every row from its micro-batches: the losses and gradient norms [P]. ``seed``:
        the step on the device."""
        population = self.population
        theta = population.theta
        scale = self._scales[self.thawed(step)]
        before = None if scale is None else theta.clone()
        self.optimizer.point(theta, momentum)
        point = theta.clone() if self._noisy else None
        if point is not None:
            self._add_noise(step)
        losses = self._gradients(micro, step, seed)  # [P]
        if point is not None:
            theta.copy_(point)
        if self._penalised:
            add_penalty_gradients(population.grad, theta, population.layout, *self._penalties)
        if self.mask is not None:
            population.grad.mul_(self.mask)
        if scale is not None:
            population.grad.mul_(scale != 0)
        norms = clip(
            population.grad,
            population.layout,
            *(self._clips if self._clipped else (None, None, None)),
        )
        moves = self._moves(losses, norms)
        self.optimizer.step(theta, population.grad, rate, moves, t, momentum)
        if scale is not None and before is not None:
            torch.lerp(before, theta, scale, out=theta)
        if self._proximal is not None:  # frozen columns and rows stay: their threshold is 0
            soft_threshold(theta, population.layout, rate * self._proximal * moves, scale)
        if self._constrained:
            self._constraints.apply(theta, moves)
        if self._averages and self.average is not None:
            self.average.lerp_(theta, (1 - self._ema)[:, None].to(theta.dtype))
        return losses, norms

    def _moves(self, losses: Tensor, norms: Tensor) -> Tensor:
        """The rows that take this step [P]; those whose numbers are not finite are frozen, or skip
        it alone."""
        if on_host(losses.device) and all(map(math.isfinite, losses.tolist() + norms.tolist())):
            return self.alive
        finite = (losses + norms) * 0 == 0
        if self._goes_on is None:
            self.alive &= finite
            return self.alive
        self.alive &= finite | self._goes_on
        return self.alive & finite

    def _column_scales(self) -> tuple[Tensor | None, Tensor | None]:
        """The part of each step that a column takes [P, D], while parameters are frozen and once
        they move."""
        theta, layout = self.population.theta, self.population.layout
        decays = [r.start.depth_decay for r in self.recipes]
        thawed = None
        if any(decay != 1.0 for decay in decays):
            thawed = torch.stack([finetune.depth_factors(layout, decay) for decay in decays]).to(
                theta
            )
        if self._still is None:
            return thawed, thawed
        frozen = torch.ones_like(theta) if thawed is None else thawed.clone()
        frozen[:, self._still.to(theta.device)] = 0.0
        return frozen, thawed

    def _gradients(self, micro: Sequence[Batch], step: int, seed: Tensor | None = None) -> Tensor:
        """The gradient of the mean loss over the samples of all micro-batches; the losses [P]."""
        population = self.population
        total = torch.zeros_like(population.theta[:, 0])  # [P]
        for j, (batch, share) in enumerate(zip(micro, self._shares(micro), strict=True)):
            micro_step = step * self.accumulate + j
            population.seed_step(micro_step if seed is None else seed)
            weight = None if self.sample_weights is None else self.sample_weights[:, batch.index]
            # a share of 0 has no gradient, and as a factor would mean that grad is filled anew
            factor = 0.0 if j == 0 else share or 1.0
            losses = population.gradients(batch.x, batch.y, weight, micro_step, accumulate=factor)
            if j == 0 and share != 1.0:
                population.grad.mul_(share)
            total = total + losses * share
        if len(micro) > 1:
            population.grad.div_(len(micro))
        return total / len(micro)

    def _shares(self, micro: Sequence[Batch]) -> list[float]:
        """What each micro-batch counts, by its samples or their class weights; 1 is the mean."""
        if len(micro) == 1:
            return [1.0]
        loss = self.population.objectives[0].loss
        totals = [loss.total(batch.y) for batch in micro]
        whole = sum(totals)
        return [len(micro) * total / whole if whole else 1.0 for total in totals]

    def _add_noise(self, step: int) -> None:
        """Gaussian noise on the weights at which the gradient is taken (Graves, 2011)."""
        theta = self.population.theta
        keys = [
            torch.tensor(key(r.seed, "weight_noise", step), device=theta.device)
            for r in self.recipes
        ]
        noise = torch.stack([normal(k, theta.shape[1:]) for k in keys]).to(theta.dtype)  # [P, D]
        noise *= self._noise[:, None].to(theta.dtype)
        noise[:, self.population.layout.weights :] = 0
        theta.add_(noise)

    def keep(self, rows: Sequence[int]) -> None:
        """Compaction: only these rows stay, in this order."""
        index = torch.tensor(rows, dtype=torch.int64, device=self.population.theta.device)
        self.optimizer.keep(list(rows))
        self.population.keep(rows)
        self.alive, self.starts = self.alive[index], self.starts[index]
        for name in ("average", "sample_weights", "mask"):
            held = getattr(self, name)
            if held is not None:
                setattr(self, name, held.index_select(0, index))
        self._take([self.recipes[row] for row in rows])
        if self.graphed is not None:
            self.graphed.clear()

    def grow(
        self,
        objectives: Sequence[Objective],
        recipes: Sequence[Recipe],
        start: int,
        sample_weights: Tensor | None,
    ) -> None:
        """More rows, behind those that are there, whose own step 0 is step ``start``."""
        old = len(self.population)
        self.optimizer.grow([r.optimizer for r in recipes])
        self.population.grow(objectives, [r.seed for r in recipes])
        fresh = self.population.theta[old:].detach()
        self.alive = torch.cat([self.alive, torch.ones_like(fresh[:, 0], dtype=torch.bool)])
        self.starts = torch.cat(
            [self.starts, torch.full_like(fresh[:, 0], start, dtype=torch.float64)]
        )
        if self.sample_weights is not None and sample_weights is not None:
            self.sample_weights = torch.cat([self.sample_weights, sample_weights])
        if self.average is not None:
            self.average = torch.cat([self.average, fresh])
        if self.mask is not None:
            self.mask = torch.cat([self.mask, torch.ones_like(fresh, dtype=torch.bool)])
        self._take([*self.recipes, *recipes])
        if self.graphed is not None:
            self.graphed.clear()
