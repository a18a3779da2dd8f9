"""One step of every member: gradient, penalties, clipping, optimiser, constraints and masks,
averages.

Nothing here waits for a GPU: losses and gradient norms stay on the device and are read once a block.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._triton import has_triton

from ravine.data.pipeline import Batch
from ravine.engine.ranks.ranks import ALONE, Ranks
from ravine.engine.rows.frozen import depth_factors, frozen
from ravine.engine.rows.members import Members, Slots, Tensors
from ravine.engine.rows.own_step import Recorded, is_in_parts
from ravine.engine.rows.population import Population
from ravine.engine.rows.torch_rows import TorchRows
from ravine.engine.rows.ways import OneByOne, Stepped
from ravine.optim.clipping import clip
from ravine.optim.penalties import add_penalty_gradients, penalty, soft_threshold
from ravine.optim.rows.groups import LARGEST, on_host
from ravine.optim.rows.optimizer import RowOptimizer
from ravine.optim.rows.projections import RowConstraints
from ravine.randomness import key, normal

# numbers in theta from which, on a GPU, an optimiser's formula is compiled to one pass; not measured
FORMULA_COMPILED = 2**22


StepFunction = Callable[..., tuple[Tensor, Tensor]]


@dataclass
class Measured:
    """The measurements of a block of n steps: losses and gradient norms [n, P], NaN where a row was
    frozen, and the number of samples in each step [n]."""

    losses: Tensor
    norms: Tensor
    samples: np.ndarray


class Stepper:
    """The numeric core: it knows rows and columns, not epochs, files or members' names.

    It registers everything that its rows own in the table ``members``.
    """

    def __init__(
        self,
        population: Population,
        members: Members,
        *,
        sample_weights: Tensor | None = None,
        mask: Tensor | None = None,
        ranks: Ranks = ALONE,
    ):
        self.population, self.members, self.ranks = population, members, ranks
        theta = population.theta
        recipes = members.recipes
        self.optimizer = RowOptimizer(
            [r.optimizer for r in recipes],
            population.layout,
            device=theta.device,
            dtype=theta.dtype,
            compiled=theta.is_cuda and theta.numel() >= FORMULA_COMPILED and has_triton(),
        )
        self.torch_rows = TorchRows(population, recipes)
        if is_in_parts(population.objectives[0].own_step):
            population.step_part = self.torch_rows.step_part
        self.accumulate: int = recipes[0].optimizer.accumulate
        self.alive = torch.ones(len(recipes), dtype=torch.bool, device=theta.device)  # [P]
        # the running average of the weights [P, D]
        self.average: Tensor | None = None
        # how often each member's bootstrap drew each sample [P, N]
        self.sample_weights = sample_weights
        # pruned weights are False [P, D]
        self.mask = None if mask is None else mask.to(theta.device, torch.bool)
        self.unfreeze: int | None = None  # the step from which frozen parameters move
        self._still = frozen(population.layout, recipes[0].start)  # [D]
        self._read_recipes()
        self._register(members)

    def _register(self, members: Members) -> None:
        self.population.register(members)
        members.add(Slots(self.optimizer))
        members.add(self.torch_rows)
        # once: asking every step costs more than an empty step of members that have left
        self._torch_step = self.torch_rows.step if self.torch_rows else None
        members.add(Recorded(self.population))
        alive = Tensors(
            "alive", self, "alive", lambda new: torch.ones(len(new), dtype=torch.bool), stepped=True
        )
        average = Tensors(
            "average", self, "average", lambda new: new.theta, returns=True, stepped=True
        )
        mask = Tensors("mask", self, "mask", lambda new: torch.ones_like(new.theta).bool())
        weights = Tensors(
            "sample_weights", self, "sample_weights", lambda new: new.sample_weights, saved=False
        )
        for column in (alive, average, mask, weights):
            members.add(column)
        members.when_changed(self._read_recipes)

    def _read_recipes(self) -> None:
        """Read the members' recipes into columns [P], one number a row, and note which parts of a
        step no member has: these are skipped. Called again when members leave or join."""
        recipes = self.members.recipes
        device = self.population.theta.device

        def column(values: Iterable[float]) -> Tensor:
            return torch.tensor(list(values), dtype=torch.float64, device=device)  # [P]

        # L1 acts through the gradient, or after the optimiser's step (proximal): never through both
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
        # average += towards * (theta - average); 0 for members without an EMA, whose average may
        # belong to SWA
        self._towards = column(1 - r.average.ema if r.average.ema else 0.0 for r in recipes)
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
        self._closures = self.ranks.size == 1 and self.torch_rows.takes_closures
        self._alone: OneByOne | None = None  # takes the gradient of one row
        if self.average is None and any(r.average.ema or r.average.swa for r in recipes):
            self.average = self.population.theta.detach().clone()

    def run(
        self,
        batches: Iterable[Sequence[Batch]],
        first: int,
        lr: np.ndarray,
        momentum: np.ndarray | None,
        starts: Sequence[int] | None = None,
        take: StepFunction | None = None,
    ) -> Measured:
        """Take steps first, first + 1, …, one for each item of ``batches`` (its micro-batches).

        ``lr``: learning rates [n, P]. ``starts``: the step at which each row began [P]. ``take``
        takes a step in place of ``one``.
        """
        population, take = self.population, take or self.one
        device = population.theta.device
        # all numbers of the block go to the device in one copy, not one copy a step
        rates = torch.from_numpy(np.minimum(lr, LARGEST)).to(device).unbind()  # n of [P]
        momenta = (
            [None] * len(lr) if momentum is None else torch.from_numpy(momentum).to(device).unbind()
        )
        # optimisers count a row's own steps from 1, so that a row that joined late has its bias
        # corrections like one that was there from the beginning
        counts = torch.arange(first + 1.0, first + 1.0 + len(lr), dtype=torch.float64)
        began = torch.tensor(starts or [0] * len(population), dtype=torch.float64)
        own = (counts[:, None] - began).to(device).unbind()  # n of [P]
        measured: list[Any] = []
        samples: list[int] = []
        host = on_host(device)
        with torch.no_grad():
            for i, (micro, rate, momentum_now, t) in enumerate(
                zip(batches, rates, momenta, own, strict=True)
            ):
                found = take(micro, first + i, rate, momentum_now, t)
                # on a CPU plain numbers are kept: small tensors that stay would scatter the heap;
                # on a GPU tensors are, since reading a number would wait for the device
                measured += [one.tolist() for one in found] if host else found
                samples.append(sum([batch.size for batch in micro]))
        numbers = (
            torch.tensor(measured, dtype=torch.float64) if host else torch.stack(measured).double()
        )
        held = numbers.view(-1, 2, len(population))  # [n, 2, P]
        return Measured(held[:, 0], held[:, 1], np.array(samples))

    def thawed(self, step: int) -> bool:
        """Whether parameters that were frozen move in this step."""
        return self.unfreeze is not None and step >= self.unfreeze

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
        theta = population.theta  # [P, D]
        # a factor for each column's step [P, D]: 0 for frozen parameters, less for lower layers
        scale = self._scales[self.thawed(step)]
        before = None if scale is None else theta.clone()
        # Nesterov's momentum takes the gradient at a point ahead of the weights
        self.optimizer.point(theta, momentum)
        # weight noise: the gradient is taken at noisy weights, the step starts at the clean ones
        point = theta.clone() if self._noisy else None
        if point is not None:
            self._add_noise(step)
        if self.population.step_part is not None:
            self.torch_rows.begin(rate, momentum, self.alive)
        losses = self._gradients(micro, step, seed)  # [P]
        if point is not None:
            theta.copy_(point)
        # penalties belong to the gradient, before it is clipped, but not to the reported loss
        if self._penalised:
            add_penalty_gradients(population.grad, theta, population.layout, *self._penalties)
        # pruned and frozen columns have no gradient, so that they do not count in the clipped norm
        if self.mask is not None:
            population.grad.mul_(self.mask)
        if scale is not None:
            population.grad.masked_fill_(scale == 0, 0.0)
        # [P], before clipping
        limits = self._clips if self._clipped else [None] * 3
        norms = clip(population.grad, population.layout, *limits, norms_of=self.ranks.norms)
        # a row with a loss or norm that is not finite does not move; the other rows are unaffected
        moves = self._moves(losses, norms)
        others = self._torch_step
        if self._closures:
            again = (micro, step, seed, losses, self.thawed(step))
            self.torch_rows.again = partial(self._again, *again)
        self.optimizer.step(theta, population.grad, rate, moves, t, momentum, others)
        # weight decay and momentum move weights even without a gradient, so the whole step is scaled
        if scale is not None and before is not None:
            torch.lerp(before, theta, scale, out=theta)
        if self._proximal is not None:  # frozen columns and rows stay: their threshold is 0
            soft_threshold(theta, population.layout, rate * self._proximal * moves, scale)
        if self._constrained:
            self._constraints.apply(theta, moves)
        if self._averages and self.average is not None:
            towards = self._towards * self.alive  # the average of a frozen member stays
            self.average.lerp_(theta, towards[:, None].to(theta.dtype))
        return losses, norms

    def _again(
        self,
        micro: Sequence[Batch],
        step: int,
        seed: Tensor | None,
        losses: Tensor,
        thawed: bool,
        row: int,
        moved: bool,
    ) -> Tensor:
        """The loss of one row with its penalties, and where its weights have ``moved`` since the step
        began its gradient anew: the same samples, the same draws."""
        population, rows = self.population, slice(row, row + 1)
        theta, grad, layout = population.theta[rows], population.grad[rows], population.layout
        strengths = [each if each is None else each[rows] for each in self._penalties]
        loss = losses[row]
        if moved:
            point = population.theta.clone() if self._noisy else None
            if point is not None:
                self._add_noise(step)
            loss = self._row_gradient(micro, step, seed, row)
            if point is not None:
                population.theta.copy_(point)
            if self._penalised:
                add_penalty_gradients(grad, theta, layout, *strengths)
            scale = self._scales[thawed]
            if self.mask is not None:
                grad.mul_(self.mask[rows])
            if scale is not None:
                grad.masked_fill_(scale[rows] == 0, 0.0)
            limits = [each[rows] for each in self._clips] if self._clipped else [None] * 3
            clip(grad, layout, *limits)
        return loss + penalty(theta, layout, *strengths)[0] if self._penalised else loss

    def _row_gradient(
        self, micro: Sequence[Batch], step: int, seed: Tensor | None, row: int
    ) -> Tensor:
        """The gradient of one row by its own module, over all micro-batches; its loss."""
        population = self.population
        if self._alone is None:
            own_step = population.objectives[row].own_step is not None
            kind = Stepped if own_step else OneByOne
            self._alone = kind(population, population.way.arithmetic)
        objective, total = population.objectives[row], torch.zeros_like(population.theta[row, 0])
        recorded = copy.deepcopy(objective.recorded)
        for j, (batch, share) in enumerate(zip(micro, self._shares(micro), strict=True)):
            micro_step = step * self.accumulate + j
            population.seed_step(micro_step if seed is None else seed)
            given = (batch.x, batch.y, self._weights_of(batch), micro_step)
            factor = 0.0 if j == 0 else share or 1.0
            total += self._alone.row_gradient(row, *given, factor) * share
            if j == 0 and share != 1.0:
                population.grad[row].mul_(share)
        objective.recorded = recorded
        population.grad[row].div_(len(micro))
        return total / len(micro)

    def _moves(self, losses: Tensor, norms: Tensor) -> Tensor:
        """The rows that take this step [P]. Rows whose numbers are not finite are frozen, or with
        ``on_trouble = "report"`` skip this step alone."""
        if on_host(losses.device) and all(map(math.isfinite, losses.tolist() + norms.tolist())):
            return self.alive
        finite = losses.isfinite() & norms.isfinite()
        if self._goes_on is None:
            self.alive &= finite
            return self.alive
        self.alive &= finite | self._goes_on
        return self.alive & finite

    def _column_scales(self) -> tuple[Tensor | None, Tensor | None]:
        """The factors of each column's step [P, D]: while parameters are frozen, and afterwards."""
        theta, layout = self.population.theta, self.population.layout
        decays = [r.start.depth_decay for r in self.members.recipes]
        thawed = None
        if any(decay != 1.0 for decay in decays):
            thawed = torch.stack([depth_factors(layout, decay) for decay in decays]).to(theta)
        if self._still is None:
            return thawed, thawed
        frozen = torch.ones_like(theta) if thawed is None else thawed.clone()
        frozen[:, self._still.to(theta.device)] = 0.0
        return frozen, thawed

    def _gradients(self, micro: Sequence[Batch], step: int, seed: Tensor | None = None) -> Tensor:
        """The gradient of the mean loss over the samples of all micro-batches; the losses [P]."""
        population, found = self.population, []
        # parts of a batch are one sum, after the last of them
        buckets = population.buckets if len(micro) == 1 else None
        for j, (batch, share) in enumerate(zip(micro, self._shares(micro), strict=True)):
            micro_step = step * self.accumulate + j
            population.seed_step(micro_step if seed is None else seed)
            weight = self._weights_of(batch)
            # factor 0 means: fill grad anew. So a later micro-batch of share 0, whose gradient is zero,
            # is added with factor 1
            factor = 0.0 if j == 0 else share or 1.0
            with nullcontext() if buckets is None else buckets.overlapped():
                losses = self._gradient(batch, weight, micro_step, factor)
            # the usual step: no operation more than it needs
            if len(micro) == 1 and self.ranks.size == 1:
                return losses
            if j == 0 and share != 1.0:
                population.grad.mul_(share)
            found.append(losses * share)
        if len(micro) > 1:
            population.grad.div_(len(micro))
        losses = torch.stack(found).sum(0) / len(micro)
        self.ranks.add(population.grad, losses, summed=buckets is not None)
        return losses

    def _weights_of(self, batch: Batch) -> Tensor | None:
        """How much each sample counts in each member's mean [P, B]; None: one each."""
        if self.sample_weights is None:
            return batch.weight
        if batch.index.dim() == 1:
            return self.sample_weights[:, batch.index]
        drawn = self.sample_weights.gather(1, batch.index)
        return drawn if batch.weight is None else drawn * batch.weight

    def _gradient(
        self, batch: Batch, weight: Tensor | None, step: int, accumulate: float
    ) -> Tensor:
        """The gradient and the losses [P] of a batch, or of this rank's part of it."""
        population, ranks = self.population, self.ranks
        if ranks.size == 1:
            return population.gradients(batch.x, batch.y, weight, step, accumulate=accumulate)
        before = [copy.deepcopy(objective.recorded) for objective in population.objectives]
        total = population.objectives[0].loss.total
        with ranks.divided(batch, weight, total, population.theta) as (part, weight):
            found = population.gradients(part.x, part.y, weight, step, accumulate=accumulate)
        ranks.add_recorded(population.objectives, before)
        if ranks.averages:  # buffers that each rank has changed by its own part
            population.gather_buffers()
            ranks.average(population.saved_buffers())
        return found

    def _shares(self, micro: Sequence[Batch]) -> list[float]:
        """The weight of each micro-batch, by its samples or their class weights; the mean is 1."""
        if len(micro) == 1:
            return [1.0]
        loss = self.population.objectives[0].loss
        totals = [self.ranks.total(batch, loss.total) for batch in micro]
        whole = sum(totals)
        return [len(micro) * total / whole if whole else 1.0 for total in totals]

    def _add_noise(self, step: int) -> None:
        """Gaussian noise on the weights at which the gradient is taken (Graves, 2011)."""
        theta = self.population.theta
        keys = [
            torch.tensor(key(r.seed, "weight_noise", step), device=theta.device)
            for r in self.members.recipes
        ]
        noise = torch.stack([normal(k, theta.shape[1:]) for k in keys]).to(theta.dtype)  # [P, D]
        noise *= self._noise[:, None].to(theta.dtype)
        noise[:, self.population.layout.weights :] = 0
        theta.add_(noise)
