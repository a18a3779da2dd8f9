"""Findings about the order in which samples come."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from ravine.doctor.declaration import Declaration, Evidence
from ravine.doctor.edits import Case, Remedies
from ravine.doctor.measure.untrained import Untrained

SURE = 0.95


class NotShuffled(Declaration):
    code = "not_shuffled"
    shown_by = "step_loss"
    rank = 200
    certain = True
    title = "The samples come in the order of their targets."
    cause = "Every batch holds one class, so that each step pulls the network towards that class."
    leads_to = "Each step undoes the last."
    consequences = ("oscillating", "stuck", "underfitting")
    seen_by = (
        "how often a sample has the class of the one before it, against chance; for numbers, their "
        "correlation."
    )
    what_to_do = "Shuffle the stream."

    ALIKE = 0.5  # correlation of successive targets, 0 where the order is random
    FEWEST = 100  # samples
    ONE_CLASS = 0.98  # share of repeats by chance from which nothing can be said

    @classmethod
    def before(cls, program: Untrained) -> Iterator[Evidence]:
        y = program.probe.y  # drawn as training draws them, one after the other
        if program.task == "sequence" or len(y) < cls.FEWEST:
            return
        if y.is_floating_point():
            # mixed labels (mixup) are shares of classes; those of the training part are numbers of classes
            every = program.targets if program.targets.is_floating_point() else y
            alike = _successive(y.double().reshape(len(y), -1), every.double())
            text = f"in the order in which they come, successive targets correlate by {alike:.2f}"
        else:
            share = program.pipeline.class_counts().double().to(y.device)
            share = share / share.sum().clamp_min(1)
            chance = float(share.square().sum()) if len(share) else 1.0
            same = float((y[1:] == y[:-1]).double().mean())
            alike = (same - chance) / max(1 - chance, 1e-6) if chance < cls.ONE_CLASS else 0.0
            text = f"{same:.0%} of the samples have the class of the one before them; chance gives {chance:.0%}"
        if alike > cls.ALIKE:
            yield Evidence("data.order", text, SURE)

    @classmethod
    def remedies(cls, case: Case, factor: float | None = None) -> Remedies:
        yield {"data.order": "shuffle"}, "a new order every epoch"


def _successive(y: Tensor, everything: Tensor) -> float:
    """The correlation of each row of y [n, t] with the next, over all columns that vary.

    The variance is that of all targets: the first of sorted samples may all be alike.
    """
    variance = everything.reshape(len(everything), -1).var(0, correction=0)
    if not bool((variance > 0).any()):
        return 0.0
    apart = (y[1:] - y[:-1]).square().mean(0)
    return float((1 - apart / (2 * variance))[variance > 0].mean())
