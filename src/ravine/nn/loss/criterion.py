"""What losses share: the loss of each sample, class weights, soft targets, and how targets meet
outputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ravine.errors import InputError


class SampleLoss(nn.Module):
    """(output, target) -> the loss of each sample [B], times the weight of its class.

    The mean over a batch, or over a split, is the sum of these divided by the sum of ``counts``:
    by the number of samples, or with class weights by the sum of the samples' weights, as PyTorch
    has it (``divides_by_weights`` False: by the number of samples there too).
    """

    class_weights: Tensor | None  # [K]
    divides_by_weights = True
    weighable = True  # whether class weights mean something here
    takes_classes = False  # whether a target of whole numbers is one column: the class
    takes_several = False  # whether it is given all outputs of a network that has several
    # What outputs are to the loss: scores (logits, margins), probabilities, log_probabilities,
    # targets (values fitted to the targets), or the loss itself.
    reads = "scores"

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("class_weights", None, persistent=False)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        raise NotImplementedError

    def counts(self, target: Tensor) -> Tensor | None:
        """How much each sample counts in a mean [B]; None: one each.

        With class weights it is the weight of the sample's class. Soft targets, and samples with
        several labels, count one each, as in PyTorch.
        """
        weights = self.class_weights
        if weights is None or not self.divides_by_weights:
            return None
        return self._weights_of(target, weights)

    def _weights_of(self, target: Tensor, weights: Tensor) -> Tensor | None:
        single = target.dim() == 1 or target.shape[1:] == (1,)
        if single and len(weights) == 2:  # one output for two classes: 0 (or -1) and 1
            share = target.reshape(-1).clamp_min(0).to(weights.dtype)
            return weights[0] + share * (weights[1] - weights[0])
        if single and not target.is_floating_point():
            return weights[target.reshape(-1).clamp_min(0)]
        return None

    def total(self, target: Tensor) -> float:
        """The sum of ``counts``: what the mean over these samples divides by."""
        counts = self.counts(target)
        return float(len(target)) if counts is None else float(counts.sum())

    def batch_mean(
        self,
        losses: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        kept: Tensor | None = None,
    ) -> Tensor:
        """The mean of a batch's losses [B], each times ``weight`` [B]; 0 where nothing counts.

        ``kept`` [B]: only these samples are in it.
        """
        weighted = losses if weight is None else losses * weight
        counts = self.counts(target)
        if counts is None and kept is None:
            return weighted.mean()
        counts = torch.ones_like(losses) if counts is None else counts.to(losses.dtype)
        if kept is not None:
            weighted, counts = weighted * kept, counts * kept
        return weighted.sum() / above_zero(counts.sum())


class ClassLoss(SampleLoss):
    """A loss over the K classes of a row; sequences [B, T, K] are averaged over the steps that
    count.

    A subclass gives ``rows``: (output [N, K], target [N]) -> [N]. For soft targets q the
    expectation sum_k q_k rows(output, k) is taken, unless ``soft`` says that ``rows`` takes targets
    [N, K] and minds the class weights itself.
    """

    takes_classes = True
    soft = False

    def __init__(self, ignore: int = -100):
        super().__init__()
        self.ignore = ignore

    def rows(self, output: Tensor, target: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        output = exact(output)
        target = classes(output, target)
        rows = self._rows(output.flatten(0, -2), target.flatten(0, output.dim() - 2))  # [B T]
        if output.dim() == 2:
            return rows
        rows = rows.view(output.shape[0], -1)
        if target.is_floating_point():
            return rows.mean(1)
        counts = (target != self.ignore).flatten(1).to(rows.dtype)
        return (rows * counts).sum(1) / counts.sum(1).clamp_min(1)

    def _weights_of(self, target: Tensor, weights: Tensor) -> Tensor | None:
        if target.is_floating_point():
            return None
        steps = target.flatten(1) if target.dim() > 1 else target[:, None]  # [B, T]
        counted = (steps != self.ignore).to(weights.dtype)
        return (weights[steps.clamp_min(0)] * counted).sum(1) / counted.sum(1).clamp_min(1)

    def _rows(self, output: Tensor, target: Tensor) -> Tensor:
        if self.soft:
            return self.rows(output, target)
        weights = None if self.class_weights is None else self.class_weights.to(output.dtype)
        if not target.is_floating_point():
            rows = self.rows(output, target.clamp_min(0))
            return rows if weights is None else rows * weights[target.clamp_min(0)]
        count = output.shape[-1]
        # 0 ... K-1 for each row
        every = torch.arange(count, device=output.device).repeat(len(output))
        rows = self.rows(output.repeat_interleave(count, 0), every).view(-1, count)
        return (rows * (target if weights is None else target * weights)).sum(-1)


class EntryLoss(SampleLoss):
    """A loss for each output alone, then their mean or sum over a sample (for sequences, the mean
    over the steps)."""

    def __init__(self, reduction: str = "mean"):
        super().__init__()
        self.reduction = reduction

    def entry(self, output: Tensor, target: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        outputs, targets = entries(output, target)
        each = self.entry(outputs, targets)
        if self.class_weights is not None:
            each = each * self._entry_weights(each, target, targets)
        each = each.sum(-1) if self.reduction == "sum" else each.mean(-1)
        return each.flatten(1).mean(1) if each.dim() > 1 else each

    def _entry_weights(self, each: Tensor, given: Tensor, targets: Tensor) -> Tensor:
        """By the sample's class for class numbers, by label for several labels."""
        assert self.class_weights is not None
        weights = self.class_weights.to(each.dtype)
        if each.shape[-1] == 1 and len(weights) == 2:
            return weights[0] + targets.clamp_min(0) * (weights[1] - weights[0])  # -1: class 0
        by_class = given.shape != targets.shape and not given.is_floating_point()
        return weights[given][..., None] if by_class else weights


class MultiTask(SampleLoss):
    """The weighted sum of the losses of several heads."""

    weights: Tensor
    weighable = False
    takes_several = True

    def __init__(
        self, losses: Sequence[SampleLoss], sizes: Sequence[int], weights: Sequence[float] | None
    ):
        super().__init__()
        lengths = {len(losses), len(sizes), len(weights or losses)}
        if len(lengths) != 1:
            raise InputError(
                "loss",
                got=f"{len(losses)} losses and {len(sizes)} sizes",
                expected="one of each for every head",
            )
        self.losses, self.sizes = nn.ModuleList(losses), tuple(sizes)
        self.register_buffer("weights", number(weights or [1.0] * len(losses)), persistent=False)

    def forward(
        self, output: Tensor | Sequence[Tensor], target: Tensor | Sequence[Tensor]
    ) -> Tensor:
        found = [
            loss(*head) for loss, head in zip(self.losses, self.heads(output, target), strict=True)
        ]
        return sum(self.weights[h].to(each.dtype) * each for h, each in enumerate(found))

    def heads(
        self, output: Tensor | Sequence[Tensor], target: Tensor | Sequence[Tensor]
    ) -> list[tuple[Tensor, Tensor]]:
        """The output and the target of each head."""
        if isinstance(output, Tensor) and output.shape[-1] != sum(self.sizes):
            raise InputError(
                "loss",
                got=f"{output.shape[-1]} outputs",
                expected=f"{sum(self.sizes)}: {self.sizes} by head",
            )
        outputs = output.split(self.sizes, -1) if isinstance(output, Tensor) else output
        targets = self._targets(target) if isinstance(target, Tensor) else target
        return list(zip(outputs, targets, strict=True))

    def _targets(self, target: Tensor) -> list[Tensor]:
        takes = [bool(loss.takes_classes) for loss in self.losses]
        widths = [1 if classes else size for classes, size in zip(takes, self.sizes, strict=True)]
        if target.shape[-1] != sum(widths):
            raise InputError(
                "loss",
                got=f"targets of {target.shape[-1]} columns",
                expected=f"{sum(widths)}: {widths} by head",
            )
        parts = target.split(widths, -1)
        return [
            part[..., 0].long() if classes else part
            for part, classes in zip(parts, takes, strict=True)
        ]


def entries(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Output and target of one shape: [B] and [B, 1] meet, class numbers become one-hot rows."""
    output = exact(output)
    if output.dim() == 1:
        output = output[:, None]
    if target.shape == output.shape:
        return output, target.to(output.dtype)
    if target.shape == output.shape[:-1] and output.shape[-1] == 1:
        return output, target[..., None].to(output.dtype)
    if target.shape == output.shape[:-1] and not target.is_floating_point():
        return output, one_hot(target, output)
    raise InputError(
        "loss",
        got=f"outputs {tuple(output.shape)} and targets {tuple(target.shape)}",
        expected="one target for each output",
        repair=f"give the model {target.shape[-1] if target.dim() > 1 else 1} outputs"
        + ("" if target.shape[1:] != (1,) else ", or where targets are classes y.long()"),
    )


def classes(output: Tensor, target: Tensor) -> Tensor:
    """Class numbers [..] or class probabilities [.., K] for outputs [.., K]."""
    if output.dim() < 2:
        raise InputError(
            "loss", got=f"outputs {tuple(output.shape)}", expected="[B, K], a score for each class"
        )
    if target.shape == output.shape and target.is_floating_point():
        return target.to(output.dtype)
    if target.shape == (*output.shape[:-1], 1):
        target = target[..., 0]
    if target.shape != output.shape[:-1]:
        raise InputError(
            "loss",
            got=f"outputs {tuple(output.shape)} and targets {tuple(target.shape)}",
            expected="a class number for each row of outputs, or a probability for each output",
            repair="an LSTM with output = all predicts every step, with output = last one value",
        )
    if output.shape[-1] == 1:
        return target[..., None].to(output.dtype)  # the one class's probability
    return target.long()


def above_zero(total: Tensor) -> Tensor:
    """A sum of weights to divide by; where it is 0 what it divides is 0 too, and so is the mean."""
    return total.clamp_min(torch.finfo(total.dtype).tiny)


def exact(output: Tensor) -> Tensor:
    """Losses are computed in float32 at least: half precision is for what is before them."""
    return output.float() if output.dtype in (torch.bfloat16, torch.float16) else output


def one_hot(target: Tensor, output: Tensor) -> Tensor:
    """Rows of 0 and 1 in the output's type; a soft target is handed through."""
    if target.shape == output.shape:
        return target.to(output.dtype)
    return (target[..., None] == torch.arange(output.shape[-1], device=output.device)).to(
        output.dtype
    )


def number(value: object) -> Tensor:
    """A number of a recipe as a buffer."""
    return torch.tensor(value, dtype=torch.float64)
