"""Dense networks of P members as batched matrix products, with hand-written backward passes: no
autograd, no vmap.

Activations are feature-major, [P, H, B]: each sample is a column, so every pass over them, the
softmax among them, runs along contiguous samples, and a layer is ``W a + b`` for W as it stands in
theta. The inputs, which all members share, are [I, B]: the first layer of all members is then one
product. A single member has no axis P at all: its shapes lack it. In bfloat16 the weights of all but small
layers are cast once a step; theta and the loss stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ravine.engine.rows.theta import ParameterMatrix
from ravine.engine.rows.ways import passes
from ravine.engine.rows.ways.mapped import Mapped
from ravine.engine.rows.ways.one_by_one import OneByOne
from ravine.engine.rows.ways.way import PLAIN, Way
from ravine.engine.rows.ways.workload import Workload
from ravine.layout import Layout
from ravine.nn.loss.criterion import above_zero
from ravine.nn.loss.losses import Auto, CrossEntropy
from ravine.nn.loss.own_loss import OwnLoss
from ravine.nn.randomized import Dropout
from ravine.nn.stack import Stack


class Dense(Way):
    """Used wherever every layer of a program is one of those in `passes`: a step of a small network is
    launching kernels, and this way launches the fewest. It evaluates as `Mapped` does."""

    name = "dense"
    phrase = "dense layers by hand-written passes"
    together = True

    @classmethod
    def rule(cls, work: Workload) -> str | None:
        refused = DenseNetwork.refuses(work.population.objectives, work.population.layout)
        return None if refused else "every layer is dense, or needs no gradient of its own"

    def bind(self) -> None:
        rows = self.population
        self.network: DenseNetwork | None = None
        if DenseNetwork.refuses(rows.objectives, rows.layout) is None:
            precision = self.arithmetic.products or rows.theta.dtype
            self.network = DenseNetwork(rows, precision, self.arithmetic.lowered_from)
        # rows that came may have other losses: then all run as others do
        self._otherwise = None if self.network else OneByOne(rows, self.arithmetic)
        self._evaluating: Way | None = None

    @property
    def input_dtype(self) -> torch.dtype | None:
        return None if self.network is None else self.network.input_dtype

    def gradients(
        self, x: Tensor, y: Tensor, weight: Tensor | None, step: int, accumulate: float = 0.0
    ) -> Tensor:
        if self.network is None:
            assert self._otherwise is not None
            return self._otherwise.gradients(x, y, weight, step, accumulate)
        return self.network.gradients(x, y, weight, accumulate)

    def losses(self, x: Tensor, y: Tensor) -> Tensor:
        return self._mapped().losses(x, y)

    def outputs(self, x: Tensor) -> Tensor:
        return self._mapped().outputs(x)

    def _mapped(self) -> Way:
        self._evaluating = self._evaluating or Mapped(self.population, self.arithmetic)
        return self._evaluating


class DenseNetwork:
    """The layers of P members, bound to their rows of theta [P, D] and grad [P, D]."""

    def __init__(
        self,
        population: ParameterMatrix,
        precision: torch.dtype,
        lowered_from: int = PLAIN.lowered_from,
    ):
        objectives, buffers = population.objectives, population.buffers
        theta, grad, layout = population.theta, population.grad, population.layout
        self.loss, self.precision = objectives[0].loss, precision
        self.apart = population.apart
        self._rows = rows = passes.RowViews(theta, grad, layout)
        self._low = low = passes.Lowered(rows, precision)
        self._forward: list[passes.Pass] = []
        self._backward: list[passes.Pass] = []  # the last first; none below the first dense layer
        self.input_dtype: torch.dtype | None = None  # that the inputs are rounded to first
        dtype, weighted, fresh = theta.dtype, False, False
        wide = rows.single or self.apart  # what comes in is not shared by several members
        for name, layer in leaves("model", objectives[0].model):
            if isinstance(layer, nn.Linear):
                large = layer.weight.numel() >= lowered_from
                held = low if precision != theta.dtype and large else rows
                if held.dtype != dtype:
                    self.input_dtype = self.input_dtype if self._forward else held.dtype
                    self._add(passes.cast(dtype, held.dtype), weighted)
                    dtype = held.dtype
                self._add(
                    passes.affine(held, name, layer, first=not weighted, shared=not wide), True
                )
                weighted = wide = fresh = True
            elif isinstance(layer, Dropout) and not layer.idle:
                self._add(
                    passes.dropout(layer, buffers[f"{name}.key"], buffers[f"{name}.rate"]), weighted
                )
                wide = fresh = True
            elif not isinstance(layer, (Dropout, *passes.UNCHANGED)):
                self._add(passes.activation(layer, fresh), weighted)
                fresh = False
        if dtype != theta.dtype:
            self._add(passes.cast(dtype, theta.dtype), weighted)
        low.close()
        self._plain = plain_cross_entropy(self.loss)
        self._minus_one = theta.new_full((1, 1), -1.0)

    def _add(self, pair: tuple[passes.Pass, passes.Pass], backwards: bool) -> None:
        self._forward.append(pair[0])
        if backwards:
            self._backward.insert(0, pair[1])

    @staticmethod
    def refuses(objectives: Sequence[Any], layout: Layout) -> str | None:
        """Why a program cannot run here; None where it can."""
        first = objectives[0]
        if first.mines or first.attacks:
            return "hard negatives and adversarial examples need autograd"
        found = dict(leaves("model", first.model))
        named = {
            f"{name}.{leaf}"
            for name, layer in found.items()
            for leaf, _ in layer.named_parameters()
        }
        if {entry.name for entry in layout.entries} != named or len(
            set(map(id, found.values()))
        ) != len(found):
            return "parameters are frozen or shared"
        for layer in found.values():
            if type(layer) not in passes.LAYERS or _hooked(layer):
                return f"{type(layer).__name__} is not among the dense layers"
        if isinstance(first.loss, OwnLoss):
            return "a loss of one's own may look at several samples together"
        if not any(isinstance(layer, nn.Linear) for layer in found.values()):
            return "no dense layer"
        losses = [dict(objective.loss.named_buffers()) for objective in objectives]
        if any(not torch.equal(held[name], losses[0][name]) for held in losses for name in held):
            return "the members' losses differ"
        return None

    def gradients(self, x: Tensor, y: Tensor, weight: Tensor | None, accumulate: float) -> Tensor:
        """Fill grad with the gradient of the mean loss; the losses [P]. x [B, ...], y [B, ...],
        weight [P, B] or None; where rows have samples of their own x [P, B, ...], y [P, B, ...].

        ``accumulate`` other than 0 adds that multiple of the gradient to what grad holds.
        """
        if self.apart and self._rows.single:
            x, y = x[0], y[0]
        several = self.apart and not self._rows.single
        before = self._rows.grad.clone() if accumulate else None
        for low, value in self._low.values:
            low.copy_(value)
        first = 1 + several
        a = (x if x.dim() == first + 1 else x.flatten(first)).mT  # [I, B] or [P, I, B]
        for forward in self._forward:
            a = forward(a)
        losses, g = self._loss(a, y)  # [P, 1, B], [P, K, B]
        whole = self._counted(y, a, several)
        if weight is None:
            g.div_(whole)
        else:
            weight = weight.view_as(losses)
            g.mul_(weight / whole)
            losses = losses * weight
        for backward in self._backward:
            g = backward(g)
        for slope, low in self._low.slopes:
            slope.copy_(low)
        if before is not None:
            self._rows.grad.mul_(accumulate).add_(before)
        return losses.sum(-1, keepdim=True).div_(whole).view(-1)

    def _counted(self, y: Tensor, like: Tensor, several: bool) -> Any:
        """What sums over a batch are divided by, as in the loss's own mean: the samples, or the sum
        of their class weights; [P, 1, 1] of ``several`` members with samples of their own."""
        rows = y.flatten(0, 1) if several else y
        counts = self.loss.counts(rows)
        if counts is None:
            return like.shape[-1]
        counts = counts.to(like.dtype)
        if several:
            return above_zero(counts.view(len(y), 1, -1).sum(-1, keepdim=True))
        return above_zero(counts.sum())

    def _loss(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Losses [P, 1, B] and their gradients [P, K, B] at outputs z [P, K, B]."""
        several = self.apart and not self._rows.single
        classes = y.dim() == 1 + several and not y.is_floating_point()
        if self._plain and z.shape[-2] > 1 and classes:
            log_p = z.log_softmax(-2)
            target = y[:, None] if several else y.expand(*z.shape[:-2], 1, -1)
            losses = log_p.gather(-2, target).neg_()
            return losses, log_p.exp_().scatter_add_(
                -2, target, self._minus_one.expand(target.shape)
            )
        z = z.detach().requires_grad_()
        with torch.enable_grad():
            members = z.shape[0] if z.dim() == 3 else 1
            rows = z.mT.reshape(-1, z.shape[-2])  # [P B, K]
            of_all = y.flatten(0, 1) if several else y.repeat(members, *(1 for _ in y.shape[1:]))
            losses = self.loss(rows, of_all).view(*z.shape[:-2], 1, -1)
            total = losses.sum()
        # a sum's gradient is one number, expanded
        return losses.detach(), torch.autograd.grad(total, z)[0].contiguous()


def leaves(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The layers of a sequence, one inside another included, and their names."""
    if type(module) in (nn.Sequential, Stack) and not _hooked(module):
        for child, layer in module.named_children():
            yield from leaves(f"{name}.{child}", layer)
    else:
        yield name, module


def _hooked(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def plain_cross_entropy(loss: nn.Module) -> bool:
    """Whether a loss is softmax cross-entropy of scores, each sample and class counting the same."""
    if type(loss) is Auto:
        loss = loss.classes
    return (
        type(loss) is CrossEntropy
        and loss.input == "logits"
        and loss.class_weights is None
        and not float(loss.label_smoothing)
    )
