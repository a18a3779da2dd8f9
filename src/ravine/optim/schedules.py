"""Schedules: multipliers of lr, and of nothing else, for many steps at once.

``t`` is an array of step numbers from 0, counted after the warm-up; ``total`` the steps after the warm-up; ``epoch`` the steps of
an epoch. Durations in per cent are of ``total``. Warm-up and the floor are the same for all schedules and stand in ``plan``.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from ravine import durations
from ravine.catalogue import Decay, Duration, NonNegative, Positive, Probability, Text

Array = np.ndarray


def constant(t: Array, total: int, epoch: int) -> Array:
    """The same rate throughout: 1.

    >>> constant(np.arange(3), 3, 1).tolist()
    [1.0, 1.0, 1.0]
    """
    return np.ones(len(t))


def step(t: Array, total: int, epoch: int, *, every: Duration = "10ep", factor: Positive = 0.1) -> Array:
    """Fall by a factor at regular distances: factor^floor(t / every).

    >>> step(np.arange(4), 4, 1, every="2it").tolist()
    [1.0, 1.0, 0.1, 0.1]

    The same as ``torch.optim.lr_scheduler.StepLR`` stepped once an epoch.
    """
    return factor ** np.floor(t / _steps(every, epoch, total))


def cosine(t: Array, total: int, epoch: int, *, end: NonNegative = 0.0) -> Array:
    """Half a cosine from 1 to ``end``: end + (1 - end) (1 + cos(pi t / total)) / 2.

    >>> cosine(np.array([0, 5, 10]), 10, 1).round(3).tolist()
    [1.0, 0.5, 0.0]

    Source: Loshchilov and Hutter 2017, without restarts.
    """
    return end + (1 - end) * _half_cosine(_part(t, total))


def on_plateau(
    t: Array, total: int, epoch: int, *,
    monitor: Text = "val_accuracy", mode: Literal["auto", "min", "max"] = "auto", factor: Probability = 0.1,
    patience: Duration = "10ep", cooldown: Duration = "0ep", threshold: NonNegative = 1e-4,
) -> Array:
    """Fall by a factor once a metric has not improved for longer than ``patience``; then rest for ``cooldown``.

    Seen at the end of every epoch. An improvement is a value better than best * (1 + threshold) for a metric to be maximised, than
    best * (1 - threshold) for one to be minimised; a value that is not a number is none. During the cooldown bad epochs do not count.
    ``mode = "auto"`` minimises losses and errors and maximises all else. The multiplier between two observations is constant, so this
    function is 1; ``plan.Schedules`` holds what was observed.

    The same as ``torch.optim.lr_scheduler.ReduceLROnPlateau`` with its relative threshold, but on validation accuracy.
    """
    return np.ones(len(t))


def _steps(text: str, epoch: int, total: int) -> int:
    return max(1, durations.steps(text, epoch, total))


def _part(t: Array, whole: int) -> Array:
    """t / whole, held at 1 from there on."""
    return np.minimum(t / max(1, whole), 1.0)


def _half_cosine(part: Array) -> Array:
    """From 1 at part 0 to 0 at part 1, both exact."""
    return 0.5 * (1 + np.cos(np.pi * part))
