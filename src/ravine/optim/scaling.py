"""Batch size and learning rate go together: the linear-scaling rule, and growing the batch instead
of shrinking lr."""

from __future__ import annotations

from collections.abc import Sequence

from ravine.catalogue import durations
from ravine.errors import InputError


def scaled_lr(lr: float, batch: int, base_batch: int = 256) -> float:
    """The linear-scaling rule: a rate that was good for ``base_batch`` becomes lr * batch /
    base_batch for ``batch``.

    >>> scaled_lr(0.1, batch=1024)
    0.4

    Use it with a warm-up of about five epochs. Source: Goyal et al. 2017.
    """
    if lr <= 0 or batch < 1 or base_batch < 1:
        raise InputError(
            "scaled_lr", got=(lr, batch, base_batch), expected="a rate > 0 and batch sizes >= 1"
        )
    return lr * batch / base_batch


def batch_sizes(
    batch: int,
    milestones: Sequence[str],
    epochs: int,
    *,
    factor: float = 2.0,
    limit: int | None = None,
) -> list[int]:
    """The batch size of each epoch, multiplied by ``factor`` at each milestone, up to ``limit``.

    Where a schedule would divide lr by 5 the batch is multiplied by 5: the noise of the gradient
    falls alike, and there are fewer steps. Milestones are in epochs or per cent of the run, since
    the steps of an epoch change.

    >>> batch_sizes(128, ["50%", "75%"], epochs=4, factor=5)
    [128, 128, 640, 3200]

    Source: Smith, Kindermans, Ying and Le 2018.
    """
    if factor < 1:
        raise InputError("batch_sizes.factor", got=factor, expected="a number >= 1")
    places = [_epoch(milestone, epochs) for milestone in milestones]
    sizes = [batch * factor ** sum(place <= epoch for place in places) for epoch in range(epochs)]
    return [int(min(size, limit or size) + 0.5) for size in sizes]


def _epoch(milestone: str, epochs: int) -> int:
    if durations.parse(milestone)[1] == "it":
        expected = "epochs (ep) or a part of the run (%): the steps of an epoch change"
        raise InputError("batch_sizes.milestones", got=milestone, expected=expected)
    return durations.steps(milestone, 1, epochs)
