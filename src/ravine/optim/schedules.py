"""Schedules: multipliers of lr, and of nothing else, for many steps at once.

``t`` is an array of step numbers from 0, counted after the warm-up; ``total`` the steps after the
warm-up; ``epoch`` the steps of an epoch. Durations in per cent are of ``total``. Warm-up, floor and
momentum are the same for all schedules and are in ``planned_rates``.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from ravine.catalogue import (
    Decay,
    Duration,
    Flag,
    NonNegative,
    Positive,
    Probability,
    Text,
    durations,
)
from ravine.optim.cycle import between, one_cycle_edges

Array = np.ndarray


def constant(t: Array, total: int, epoch: int) -> Array:
    """The same rate throughout: 1.

    >>> constant(np.arange(3), 3, 1).tolist()
    [1.0, 1.0, 1.0]
    """
    return np.ones(len(t))


def step(
    t: Array, total: int, epoch: int, *, every: Duration = "10ep", factor: Positive = 0.1
) -> Array:
    """Fall by a factor at regular distances: factor^floor(t / every).

    >>> step(np.arange(4), 4, 1, every="2it").tolist()
    [1.0, 1.0, 0.1, 0.1]

    As ``torch.optim.lr_scheduler.StepLR``.
    """
    return factor ** np.floor(t / _steps(every, epoch, total))


def multistep(
    t: Array,
    total: int,
    epoch: int,
    *,
    milestones: tuple[Duration, ...] = ("50%", "75%"),
    factor: Positive = 0.1,
) -> Array:
    """Fall by a factor at each milestone: factor^(number of milestones reached).

    >>> multistep(np.arange(4), 4, 1, milestones=("1it", "3it")).round(3).tolist()
    [1.0, 0.1, 0.1, 0.01]

    As ``torch.optim.lr_scheduler.MultiStepLR``. Source: He et al. 2016 (at 50 % and 75 % of the
    run).
    """
    places = np.sort([durations.steps(milestone, epoch, total) for milestone in milestones])
    return factor ** np.searchsorted(places, t, side="right").astype(float)


def exponential(
    t: Array,
    total: int,
    epoch: int,
    *,
    gamma: Positive = 0.95,
    every: Duration = "1ep",
    smooth: Flag = False,
) -> Array:
    """Fall by a factor gamma in every ``every``: gamma^floor(t / every), or gamma^(t / every) with
    ``smooth``.

    The lectures' e^(-k t) is ``smooth`` with gamma = e^-k.

    >>> exponential(np.arange(4), 4, 2, gamma=0.5).tolist()
    [1.0, 1.0, 0.5, 0.5]

    As ``torch.optim.lr_scheduler.ExponentialLR`` stepped once an epoch.
    """
    part = t / _steps(every, epoch, total)
    return gamma ** (part if smooth else np.floor(part))


def inverse_time(t: Array, total: int, epoch: int, *, k: NonNegative = 1e-3) -> Array:
    """1/t decay: 1 / (1 + k t), t counting updates.

    >>> inverse_time(np.array([0, 1, 3]), 4, 1, k=1.0).tolist()
    [1.0, 0.5, 0.25]

    Source: Robbins and Monro 1951, whose conditions it meets.
    """
    return 1 / (1 + k * t)


def linear(
    t: Array, total: int, epoch: int, *, tau: Duration = "100%", end: NonNegative = 0.01
) -> Array:
    """A straight line to ``end`` at step tau, then ``end``: (1 - t / tau) + t / tau *
    end.

    >>> linear(np.arange(4), 4, 1, tau="2it", end=0.2).tolist()
    [1.0, 0.6, 0.2, 0.2]

    Source: Goodfellow, Bengio and Courville 2016, equation 8.14 (end about 1 %).
    """
    part = _part(t, _steps(tau, epoch, total))
    return (1 - part) + part * end


def polynomial(
    t: Array,
    total: int,
    epoch: int,
    *,
    power: Positive = 1.0,
    over: Duration = "100%",
    end: NonNegative = 0.0,
) -> Array:
    """end + (1 - end) (1 - t / over)^power, and ``end`` from there on.

    >>> polynomial(np.array([0, 1, 2, 3]), 4, 1, power=2.0, over="2it").tolist()
    [1.0, 0.25, 0.0, 0.0]

    As ``torch.optim.lr_scheduler.PolynomialLR``.
    """
    return end + (1 - end) * (1 - _part(t, _steps(over, epoch, total))) ** power


def cosine(t: Array, total: int, epoch: int, *, end: NonNegative = 0.0) -> Array:
    """Half a cosine from 1 to ``end``: end + (1 - end) (1 + cos(pi t / total)) / 2.

    >>> cosine(np.array([0, 5, 10]), 10, 1).round(3).tolist()
    [1.0, 0.5, 0.0]

    As ``torch.optim.lr_scheduler.CosineAnnealingLR``. Source: Loshchilov and Hutter 2017, without
    restarts.
    """
    return between(1.0, end, _part(t, total), "cos")


def warm_restarts(
    t: Array,
    total: int,
    epoch: int,
    *,
    period: Duration = "10ep",
    growth: Annotated[float, Field(strict=True, ge=1)] = 1.0,
    end: NonNegative = 0.0,
) -> Array:
    """Half a cosine from 1 to ``end`` again and again, each period ``growth`` times as long as the
    one before (SGDR).

    >>> warm_restarts(np.arange(6), 6, 1, period="2it", growth=2.0).round(2).tolist()
    [1.0, 0.5, 1.0, 0.85, 0.5, 0.15]

    As ``torch.optim.lr_scheduler.CosineAnnealingWarmRestarts``. Source: Loshchilov and Hutter 2017.
    """
    length = float(_steps(period, epoch, total))
    if growth == 1:
        return between(1.0, end, (t % length) / length, "cos")
    starts = [0.0]
    while starts[-1] <= t.max(initial=0):
        starts.append(starts[-1] + length * growth ** (len(starts) - 1))
    edges = np.array(starts)
    cycle = np.searchsorted(edges, t, side="right") - 1
    return between(1.0, end, (t - edges[cycle]) / (edges[cycle + 1] - edges[cycle]), "cos")


def triangular(
    t: Array,
    total: int,
    epoch: int,
    *,
    low: NonNegative = 0.1,
    half: Duration = "4ep",
    shape: Literal["same", "halving", "exponential"] = "same",
    gamma: Probability = 1.0,
) -> Array:
    """Cyclical rates: up from ``low`` to 1 in ``half`` a cycle, down again in the other half.

    lr itself is the top. ``shape``: every cycle the ``same`` height, ``halving`` it each cycle
    (triangular2), or ``exponential``: the height above ``low`` times gamma^t.

    >>> triangular(np.arange(5), 8, 1, low=0.5, half="2it").tolist()
    [0.5, 0.75, 1.0, 0.75, 0.5]

    As ``torch.optim.lr_scheduler.CyclicLR``. Source: Smith 2017.
    """
    part = t / (2 * _steps(half, epoch, total))  # in cycles
    cycle = np.floor(part)
    height = 1 - np.abs(2 * (part - cycle) - 1)
    scales: dict[str, Array] = {
        "same": np.ones(len(t)),
        "halving": 0.5**cycle,
        "exponential": gamma**t,
    }
    return low + (1 - low) * height * scales[shape]


def one_cycle(
    t: Array,
    total: int,
    epoch: int,
    *,
    rise: Probability = 0.3,
    divide: Positive = 25.0,
    divide_end: Positive = 1e4,
    anneal: Literal["cos", "linear"] = "cos",
    three_phase: Flag = False,
    cycle_momentum: Flag = True,
    base_momentum: Decay = 0.85,
    max_momentum: Decay = 0.95,
) -> Array:
    """One cycle: up from 1 / divide to 1 in the first part ``rise`` of the run, then down to 1 /
    (divide * divide_end).

    lr itself is the peak. ``three_phase``: down to 1 / divide as fast as up, and to the end in the
    rest. Momentum (or beta1), where the optimiser has one, runs the other way, from
    ``max_momentum`` to ``base_momentum`` and back, unless ``cycle_momentum`` is false.

    ``anneal`` cos or linear is the form of each part.

    >>> one_cycle(np.array([0, 2, 9]), 10, 1).round(3).tolist()
    [0.04, 1.0, 0.0]

    As ``torch.optim.lr_scheduler.OneCycleLR``. Source: Smith and Topin 2018.
    """
    start, last = 1 / divide, 1 / divide / divide_end
    levels = (start, 1.0, start, last) if three_phase else (start, 1.0, last)
    edges = one_cycle_edges(total, rise, three_phase)
    values = np.full(len(t), levels[-1])
    for i in reversed(range(len(edges) - 1)):
        part = (t - edges[i]) / (edges[i + 1] - edges[i])
        values = np.where(
            t <= edges[i + 1], between(levels[i], levels[i + 1], part, anneal), values
        )
    return values


def on_plateau(
    t: Array,
    total: int,
    epoch: int,
    *,
    monitor: Text = "val_accuracy",
    mode: Literal["auto", "min", "max"] = "auto",
    factor: Probability = 0.1,
    patience: Duration = "10ep",
    cooldown: Duration = "0ep",
    threshold: NonNegative = 1e-4,
) -> Array:
    """Fall by a factor once a metric has not improved for longer than ``patience``; then rest for
    ``cooldown``.

    Looked at after every epoch. An improvement is a value better than best * (1 + threshold) for a
    metric to be maximised, than best * (1 - threshold) for one to be minimised; a value that is not
    finite is none. During the cooldown epochs without improvement do not count. ``mode = "auto"``
    is the way in which the metric improves. Where a run has no accuracy (regression),
    ``val_accuracy`` stands for ``val_loss``. What was observed is kept by ``planned_rates.Schedules``; this
    function, without it, is 1.

    ``monitor`` names the metric; ``factor`` is what the multiplier falls by.

    Errors: ``monitor`` is not a metric of the run.

    >>> on_plateau(np.arange(2), 2, 1).tolist()
    [1.0, 1.0]

    As ``torch.optim.lr_scheduler.ReduceLROnPlateau`` with its relative threshold, but of validation
    accuracy.
    """
    return np.ones(len(t))


def table(
    t: Array,
    total: int,
    epoch: int,
    *,
    values: Annotated[tuple[NonNegative, ...], Field(min_length=1)],
    every: Duration = "1ep",
) -> Array:
    """A multiplier for each epoch (or each ``every``), the last one from there on.

    ``train(schedule=function)`` makes one of a Python function of (epoch, lr), which gives each
    epoch's rate from the epoch, counted from 0, and the present rate.

    >>> table(np.arange(5), 5, 2, values=(1.0, 0.5)).tolist()
    [1.0, 1.0, 0.5, 0.5, 0.5]
    """
    place = (t // _steps(every, epoch, total)).astype(int)
    return np.asarray(values)[np.minimum(place, len(values) - 1)]


def _steps(text: str, epoch: int, total: int) -> int:
    return max(1, durations.steps(text, epoch, total))


def _part(t: Array, whole: int) -> Array:
    """t / whole, held at 1 from there on."""
    return np.minimum(t / max(1, whole), 1.0)
