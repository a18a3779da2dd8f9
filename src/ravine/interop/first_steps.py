"""How a watched loop makes its first steps: whether its gradients begin from zero, and its weights change."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ravine.doctor.measure.course import Stepping

FEWEST = 8  # backward passes, or steps, that say something
LOOKED = 64  # steps after which the passes are no longer looked at
SAME = 1e-4  # of a gradient, by which what was added may differ from what is there


class FirstSteps:
    """Looks at a parameter's gradient through hooks that are there for the first steps, and at the weights
    when it is told to. Keeps numbers alone."""

    def __init__(self, model: nn.Module, optimizer: Any):
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        trained = [p for p in model.parameters() if p.requires_grad and id(p) in held and p.is_leaf]
        self._passes = self._kept = self._first = self._last = 0
        self._added = torch.zeros(
            2, dtype=torch.float64
        )  # of the newest pass: its sum and its size
        self._versions: list[tuple[int, float]] = []
        self._moved_at, self._without = 0, False
        self._watched = min(trained, key=lambda p: p.numel(), default=None)
        self._hooked: Tensor | None = None
        self._handles: list[Any] = []

    @torch.no_grad()
    def look(self, step: int, model: nn.Module) -> None:
        """Look at the weights at a step, until they have changed: where gradients are accumulated that may
        be late."""
        if step >= LOOKED:
            self.end()
        if self._moved_at:
            return
        if self._watched is not None:
            self._handles = [
                self._watched.register_hook(self._add),
                self._watched.register_post_accumulate_grad_hook(self._compare),
            ]
            self._hooked, self._watched = self._watched, None
        now = [(p._version, float(p.detach().norm())) for p in model.parameters()]
        if self._versions and now != self._versions:
            self._moved_at = step
        self._without = not any(p.grad is not None for p in model.parameters())
        self._first, self._last, self._versions = self._first or step, step, now

    def end(self) -> None:
        """Take the hooks away, and the empty dictionaries that PyTorch would go through in every pass to come."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        for kept in ("_backward_hooks", "_post_accumulate_grad_hooks"):
            if self._hooked is not None and not getattr(self._hooked, kept):
                setattr(self._hooked, kept, None)
        self._hooked = None

    def seen(self) -> Stepping:
        """What was seen."""
        steps = self._last - self._first
        still = 0 if self._moved_at or steps < FEWEST else steps
        never = self._kept == self._passes >= FEWEST
        kept = self._kept if never and 0 < self._moved_at < LOOKED else 0
        return Stepping(kept, still, self._without)

    @staticmethod
    @torch.no_grad()
    def _sums(gradient: Tensor) -> Tensor:
        dense = gradient.to_dense() if gradient.is_sparse else gradient
        wide = dense.detach().double()
        return torch.stack([wide.sum(), wide.abs().sum()]).cpu()

    def _add(self, gradient: Tensor) -> None:
        self._added = self._sums(gradient)

    def _compare(self, parameter: Tensor) -> None:
        if parameter.grad is None:
            return
        there = self._sums(parameter.grad)
        self._passes += 1
        size = float(torch.maximum(there[1], self._added[1]))
        if self._passes == 1 or float((there - self._added).abs().max()) > SAME * size:
            self._kept += 1
