"""``ravine.watch`` in a loop with Accelerate (extra: interop)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ravine.interop.watch import Watch, watch


class AcceleratedWatch:
    """A watch whose ``backward`` stands in place of ``accelerator.backward``."""

    def __init__(self, accelerator: Any, eye: Watch):
        self.accelerator, self.eye = accelerator, eye
        self._losses: list[Tensor] = []  # of the batches whose gradients are added up to one step
        self.validation, self.diagnose = eye.validation, eye.diagnose

    def backward(self, loss: Tensor, **options: Any) -> None:
        """Take the gradient as Accelerate does, and note the loss where a step follows."""
        self.accelerator.backward(loss, **options)
        self._losses.append(loss.detach())
        if self.accelerator.sync_gradients:
            self.eye.step(sum(self._losses[1:], self._losses[0]) / len(self._losses))
            self._losses = []


def accelerated(
    accelerator: Any, model: nn.Module, optimizer: Any, **options: Any
) -> AcceleratedWatch:
    """Watch a loop with Accelerate: give what ``accelerator.prepare`` gave, and call
    ``eye.backward(loss)`` where the loop calls ``accelerator.backward(loss)``.

    ``options`` are those of ``ravine.watch``.
    """
    return AcceleratedWatch(
        accelerator, watch(accelerator.unwrap_model(model), optimizer, **options)
    )
