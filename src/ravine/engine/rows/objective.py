"""Model and loss as one module, and what a batch's mean loss is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ravine.nn.loss.criterion import MultiTask
from ravine.nn.outputs import judged


class Objective(nn.Module):
    """Model and loss as one module: (x, y, sample weights) -> the batch's mean loss."""

    loss: Any  # a nn.loss.criterion.SampleLoss; anything where no loss is asked for
    hard_negatives: Tensor
    adversarial: Tensor
    sharded = False  # whether its parameters are divided among ranks

    def __init__(
        self,
        model: nn.Module,
        loss: nn.Module,
        hard_negatives: float = 1.0,
        adversarial: float = 0.0,
        own_step: Callable[..., Any] | None = None,
    ):
        super().__init__()
        self.model, self.loss = model, loss
        self.own_step = own_step  # takes the place of the loss of the model's output
        self.form: Any = None  # of samples, for it (engine.rows.own_step.SampleForm)
        self.recorded: dict[str, list[float]] = {}  # by it, since the last epoch's end
        # buffers, not attributes: members of a population may differ in them
        for name, value in (("hard_negatives", hard_negatives), ("adversarial", adversarial)):
            number = torch.tensor(value, dtype=torch.float64)
            self.register_buffer(name, number, persistent=False)
        self.mines, self.attacks = hard_negatives < 1.0, adversarial > 0.0

    def forward(self, x: Tensor, y: Tensor, weight: Tensor | None = None) -> Tensor:
        return self.mean(self.model(x), y, weight)

    def mean(self, output: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
        """The batch's mean loss of the model's output; weight [B] or None."""
        losses = self._losses(self.judged(output), y)  # [B]
        kept = self._hardest(losses.detach()) if self.mines else None
        return self.loss.batch_mean(losses, y, weight, kept)

    def judged(self, output: Any) -> Any:
        """What the loss is given of the model's outputs."""
        return judged(self.loss, output)

    @property
    def heads(self) -> bool:
        """Whether several outputs are heads with a loss each."""
        return isinstance(self.loss, MultiTask)

    def _losses(self, output: Tensor, y: Tensor) -> Tensor:
        """Each sample's loss [B]: of a network of several members, which gives [B, M, ...] while it
        trains, the mean of theirs."""
        members = getattr(self.model, "members", 1) if self.training else 1
        if members == 1:
            return self.loss(output, y)
        each = self.loss(output.flatten(0, 1), y.repeat_interleave(members, 0))
        return each.view(-1, members).mean(1)

    def _hardest(self, losses: Tensor) -> Tensor:
        """Which samples are among the hardest [B]."""
        rank = losses.argsort(descending=True).argsort()
        return rank < (self.hard_negatives * losses.shape[0]).ceil()


def attacked(x: Tensor, slope: Tensor, epsilon: Tensor) -> Tensor:
    """The batch moved uphill by the fast gradient sign method: x + epsilon sign(dL/dx) (Goodfellow
    et al., 2015)."""
    return (x + epsilon.to(x.dtype) * slope.sign()).detach()
