"""Whole steps as CUDA graphs: a small network's step is hundreds of kernels, each shorter than its
launch.

A step is captured once for each shape of batch, with buffers that stay where they are, and is held
against the same step without the graph before it is used. Where capturing fails, or the numbers
differ, steps go on as they were, and say why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ravine.data.pipeline import Batch
from ravine.engine.rows.step import Stepper
from ravine.errors import first_line

Step = Callable[[], tuple[Tensor, Tensor]]
WARM = 3  # steps before capturing: libraries choose and allocate in the first ones
# relative difference of the weights after one step that atomics and other algorithms may make
CLOSE = 1e-4


def cuda_graph(step: Step) -> Step:
    """Capture a step on the device; what is given back replays it and gives the same two tensors,
    filled anew."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(WARM):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = step()

    def replay() -> tuple[Tensor, Tensor]:
        graph.replay()
        return found

    return replay


@dataclass
class _Held:
    """A captured step and the tensors that it reads."""

    batch: Batch
    rate: Tensor
    momentum: Tensor | None
    t: Tensor
    seed: Tensor  # the step's number, as random layers take it
    replay: Step | None = None

    def fill(
        self, batch: Batch, step: int, rate: Tensor, momentum: Tensor | None, t: Tensor
    ) -> None:
        pairs = [
            *zip(_parts(self.batch), _parts(batch), strict=True),
            (self.rate, rate),
            (self.t, t),
        ]
        pairs += (
            [(self.momentum, momentum)]
            if self.momentum is not None and momentum is not None
            else []
        )
        for here, there in pairs:
            here.copy_(there)
        self.seed.fill_(step)


class GraphedSteps:
    """The steps of a stepper, each replayed from the graph of its shape. ``capture`` turns a step
    into its replay."""

    def __init__(self, stepper: Stepper, capture: Callable[[Step], Step] = cuda_graph):
        self.stepper, self.capture = stepper, capture
        self.held: dict[Any, _Held | None] = {}
        self.why: str | None = None  # why steps go without a graph
        # what was captured reads tensors that are no more when members have left or joined
        stepper.members.when_changed(self.held.clear)

    def one(
        self, micro: Sequence[Batch], step: int, rate: Tensor, momentum: Tensor | None, t: Tensor
    ) -> tuple[Tensor, Tensor]:
        """A step of every row, as ``Stepper`` takes it: the losses and gradient norms [P]."""
        (batch,) = micro
        key = (batch.x.shape, batch.x.dtype, momentum is None, self.stepper.thawed(step))
        if key not in self.held:
            self.held[key] = self._captured(batch, step, rate, momentum, t)
        held = self.held[key]
        if held is None or held.replay is None:
            return self.stepper.one(micro, step, rate, momentum, t)
        held.fill(batch, step, rate, momentum, t)
        losses, norms = held.replay()
        return losses.clone(), norms.clone()

    def _captured(
        self, batch: Batch, step: int, rate: Tensor, momentum: Tensor | None, t: Tensor
    ) -> _Held | None:
        seed = torch.zeros((), dtype=torch.int64, device=rate.device)
        own = Batch(*(part.clone() for part in _parts(batch)))
        held = _Held(
            own, rate.clone(), None if momentum is None else momentum.clone(), t.clone(), seed
        )
        before = [tensor.clone() for tensor in self.stepper.members.changed_by_step()]

        def whole() -> tuple[Tensor, Tensor]:
            return self.stepper.one([held.batch], step, held.rate, held.momentum, held.t, held.seed)

        try:
            held.fill(batch, step, rate, momentum, t)
            held.replay = self.capture(whole)
            self._restore(before)
            held.replay()
            replayed = [tensor.clone() for tensor in self.stepper.members.changed_by_step()]
            self._restore(before)
            self.stepper.one([batch], step, rate, momentum, t)
            if not all(map(_close, replayed, self.stepper.members.changed_by_step())):
                self.why = "a captured step gives other numbers"
        except RuntimeError as error:  # code that cannot be captured raises one of these
            self.why = f"steps cannot be captured: {first_line(error)}"
        self._restore(before)
        return held if self.why is None else None

    @torch.no_grad()
    def _restore(self, before: Sequence[Tensor]) -> None:
        for tensor, kept in zip(self.stepper.members.changed_by_step(), before, strict=True):
            tensor.copy_(kept)


def _parts(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    return batch.x, batch.y, batch.index


def _close(one: Tensor, other: Tensor) -> bool:
    if not one.is_floating_point():
        return bool(torch.equal(one, other))
    difference, size = (one - other).double().norm(), other.double().norm()
    return bool(difference <= CLOSE * size.clamp_min(1e-12)) or not bool(size.isfinite())
