"""The schedules of a population: each row's multipliers of lr with warm-up and floor, and what was
observed."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from ravine.catalogue import Part, durations, make
from ravine.errors import InputError, first_line
from ravine.measures import better_is
from ravine.optim.cycle import one_cycle_momentum


@dataclass
class _Plateau:
    """What a row's plateau schedule has seen."""

    scale: float = 1.0
    best: float | None = None
    bad: int = 0  # steps without improvement
    resting: int = 0  # steps of the cooldown that are left


class Schedules:
    """One schedule for each row; ``totals`` are the rows' lengths in steps, ``epoch_steps`` the
    steps of an epoch.

    A warm-up of W steps multiplies lr by warmup_start + (1 - warmup_start) i / W at its step i
    (``linear``), or by warmup_start (``constant``). The schedule itself starts after it, at its own
    step 0, and has the remaining steps. Percentages of the warm-up are of the whole run. No
    multiplier falls below ``floor``.

    >>> part = make("schedule", {"kind": "cosine", "warmup": "2it"})
    >>> Schedules([part], epoch_steps=5, totals=[6]).factors(0, 6)[:, 0].round(3).tolist()
    [0.0, 0.5, 1.0, 0.854, 0.5, 0.146]
    """

    def __init__(self, parts: Sequence[Part], *, epoch_steps: int, totals: Sequence[int]):
        self.parts: list[Any] = list(parts)
        self.epoch_steps, self.totals = epoch_steps, list(totals)
        self.starts = [0] * len(self.parts)  # the step at which each row began
        self.plateaus = [_Plateau() if part.kind == "on_plateau" else None for part in self.parts]
        for part, total in zip(self.parts, self.totals, strict=True):
            _check(part, epoch_steps, total)

    def factors(self, first: int, last: int) -> np.ndarray:
        """Multipliers of lr of the steps ``first`` to ``last - 1`` (counted from 0), [last - first,
        P] float64."""
        factors = np.empty((last - first, len(self.parts)))
        for (part, total, start), rows in self._alike().items():
            curve = self._curve(part, total, np.arange(first, last) - start)
            for row in rows:
                plateau = self.plateaus[row]
                factors[:, row] = np.maximum(
                    curve * (plateau.scale if plateau else 1.0), part.floor
                )
        return factors

    def momentum(self, first: int, last: int) -> np.ndarray | None:
        """The momentum (or beta1) of these steps, [last - first, P]; NaN: the row's own number holds,
        None: all rows' do.

        ``momentum_points`` joins its points (place in the run, momentum) by straight lines and
        stays at the last.
        """
        momentum = np.full((last - first, len(self.parts)), np.nan)
        for (part, total, start), rows in self._alike().items():
            momentum[:, rows] = self._momentum(part, total, np.arange(first, last) - start)[:, None]
        return None if np.isnan(momentum).all() else momentum

    def observe(self, metrics: Mapping[str, np.ndarray]) -> None:
        """After an epoch: the metrics of all rows, each [P]."""
        for row, (part, plateau) in enumerate(zip(self.parts, self.plateaus, strict=True)):
            if plateau is not None:
                monitor = _monitor(part.monitor, metrics)
                self._see(part, plateau, monitor, float(metrics[monitor][row]), self.totals[row])

    def state(self) -> dict[str, Any]:
        """What was observed so far, as JSON."""
        return {"plateaus": [plateau and asdict(plateau) for plateau in self.plateaus]}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state`` of the same rows gave."""
        self.plateaus = [plateau and _Plateau(**plateau) for plateau in state["plateaus"]]

    def keep(self, rows: Sequence[int]) -> None:
        """These rows stay, in this order."""
        self.parts = [self.parts[row] for row in rows]
        self.totals = [self.totals[row] for row in rows]
        self.starts = [self.starts[row] for row in rows]
        self.plateaus = [self.plateaus[row] for row in rows]

    def grow(self, parts: Sequence[Part], totals: Sequence[int], start: int) -> None:
        """More rows, whose own step 0 is step ``start``."""
        more = Schedules(parts, epoch_steps=self.epoch_steps, totals=totals)
        self.parts, self.totals = [*self.parts, *more.parts], [*self.totals, *more.totals]
        self.starts, self.plateaus = (
            [*self.starts, *[start] * len(parts)],
            [*self.plateaus, *more.plateaus],
        )

    def _alike(self) -> dict[tuple[Any, int, int], list[int]]:
        """The rows of each schedule, length and start: many rows share these, and it is computed
        once."""
        rows: dict[tuple[Any, int, int], list[int]] = {}
        for row, alike in enumerate(zip(self.parts, self.totals, self.starts, strict=True)):
            rows.setdefault(alike, []).append(row)
        return rows

    def _curve(self, part: Any, total: int, t: np.ndarray) -> np.ndarray:
        warmup = durations.steps(part.warmup, self.epoch_steps, total)
        function = part.technique.function()
        own, rest = np.maximum(t - warmup, 0), max(1, total - warmup)
        curve = np.asarray(function(own, rest, self.epoch_steps, **part.arguments), float)
        curve = np.broadcast_to(curve, t.shape)
        if warmup == 0:
            return curve
        rise = t / warmup if part.warmup_kind == "linear" else 0.0
        return np.where(t < warmup, part.warmup_start + (1 - part.warmup_start) * rise, curve)

    def _momentum(self, part: Any, total: int, t: np.ndarray) -> np.ndarray:
        if part.momentum_points:
            places, values = zip(*part.momentum_points, strict=True)
            steps = [durations.steps(place, self.epoch_steps, total) for place in places]
            return np.interp(t, steps, values)
        if part.kind == "one_cycle" and part.cycle_momentum:
            warmup = durations.steps(part.warmup, self.epoch_steps, total)
            shape = (
                part.rise,
                part.three_phase,
                part.anneal,
                part.base_momentum,
                part.max_momentum,
            )
            return one_cycle_momentum(np.maximum(t - warmup, 0), max(1, total - warmup), *shape)
        return np.full(len(t), np.nan)

    def _see(self, part: Any, plateau: _Plateau, monitor: str, value: float, total: int) -> None:
        mode = better_is(monitor) if part.mode == "auto" else part.mode
        minimised = mode == "min"
        if _improved(value, plateau.best, minimised, part.threshold):
            plateau.best, plateau.bad = value, 0
        else:
            plateau.bad += self.epoch_steps
        if plateau.resting > 0:
            plateau.resting, plateau.bad = plateau.resting - self.epoch_steps, 0
        if plateau.bad > durations.steps(part.patience, self.epoch_steps, total):
            plateau.scale *= part.factor
            plateau.resting, plateau.bad = (
                durations.steps(part.cooldown, self.epoch_steps, total),
                0,
            )


def tabulate(function: Callable[[int, float], float], epochs: int, lr: float) -> Part:
    """A user's function of (epoch, lr) as a schedule, so that the recipe says it all.

    As in Keras, the function receives the epoch from 0 and the present rate, and gives the
    epoch's rate: ``lr`` in epoch 0, then whatever it gave last.

    >>> tabulate(lambda epoch, lr: lr if epoch < 2 else lr / 2, epochs=4, lr=0.1).values
    (1.0, 1.0, 0.5, 0.25)
    """
    values, rate = [], lr
    for epoch in range(epochs):
        given = function(epoch, rate)
        try:
            rate = float(given)
        except (TypeError, ValueError):
            rate = math.nan
        if not math.isfinite(rate) or rate < 0:
            place = f"schedule: the rate of epoch {epoch}"
            repair = "return the rate of the epoch: lambda epoch, lr: 0.9 * lr"
            raise InputError(place, got=given, expected="a number >= 0", repair=repair)
        values.append(rate / lr)
    return make("schedule", {"kind": "table", "values": tuple(values)})


def tabulate_torch(make_scheduler: Callable[[Any], Any], amount: int, unit: str, lr: float) -> Part:
    """A scheduler of PyTorch's as a schedule: run once on an optimiser of one number, and written
    down. It steps once an epoch, in a run of steps once a step; one of transformers always once a step.

    >>> import functools
    >>> step_lr = functools.partial(torch.optim.lr_scheduler.StepLR, step_size=2)
    >>> [round(v, 6) for v in tabulate_torch(step_lr, 4, "ep", 0.1).values]
    [1.0, 1.0, 0.1, 0.1]

    Errors: a scheduler that waits for a metric, and one that cannot be made.
    """
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr, momentum=0.9)
    each_step = (torch.optim.lr_scheduler.OneCycleLR, torch.optim.lr_scheduler.CyclicLR)
    try:
        scheduler = make_scheduler(optimizer)
    except (TypeError, ValueError) as error:
        repair = "for example schedule=lambda optimizer: StepLR(optimizer, step_size=10)"
        got = f"a scheduler that cannot be made: {first_line(error)}"
        expected = "a function of an optimiser that gives a scheduler"
        raise InputError("schedule", got=got, expected=expected, repair=repair) from None
    name = type(scheduler).__name__
    if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        repair = 'schedule={"kind": "on_plateau", "factor": 0.1, "patience": "10ep"} does the same'
        raise InputError("schedule", got=name, expected="rates known beforehand", repair=repair)
    if isinstance(scheduler, each_step) and unit == "ep":
        repair = 'set steps instead of epochs, or use schedule="one_cycle" or "triangular"'
        raise InputError(
            "schedule", got=f"{name}, which steps with every batch", expected="", repair=repair
        )
    own_steps = _steps_of(scheduler)
    if own_steps is not None:
        amount, unit = own_steps, "it"
    if getattr(scheduler, "cycle_momentum", False):
        warnings.warn(
            f"of {name} the rates alone are taken, not the momentum that it moves too; "
            "schedule='one_cycle' moves both, cycle_momentum=False says that it stays",
            stacklevel=2,
        )
    rates = []
    with warnings.catch_warnings():  # the optimiser does not step
        warnings.simplefilter("ignore")
        for place in range(amount):
            rates.append(float(optimizer.param_groups[0]["lr"]))
            try:
                scheduler.step()
            except (ValueError, TypeError, IndexError) as error:
                raise InputError(
                    "schedule",
                    got=f"{name}, whose step {place + 1} fails ({first_line(error)})",
                    expected=f"a scheduler for all {amount} {'epochs' if unit == 'ep' else 'steps'}",
                    repair="give it the length of the run",
                ) from None
    values = tuple(rate / lr for rate in rates)
    every = "1ep" if unit == "ep" else "1it"
    return make("schedule", {"kind": "table", "values": values, "every": every})


def _steps_of(scheduler: Any) -> int | None:
    """How many steps a scheduler of transformers or diffusers plans: those step with every batch, and
    say how long by their arguments. None for any other."""
    for each in getattr(scheduler, "lr_lambdas", ()):
        function = getattr(each, "func", each)
        if getattr(function, "__module__", "").split(".")[0] not in ("transformers", "diffusers"):
            continue
        given = {n: v for n, v in getattr(each, "keywords", {}).items() if isinstance(v, int)}
        planned = given.get("num_training_steps") or sum(
            v for n, v in given.items() if n.startswith("num_") and n.endswith("_steps")
        )
        return planned + 1  # the last rate holds
    return None


def _check(part: Any, epoch_steps: int, total: int) -> None:
    places = [durations.steps(place, epoch_steps, total) for place, _ in part.momentum_points]
    if places != sorted(places):
        expected = "places in the order of the run"
        raise InputError("schedule.momentum_points", got=part.momentum_points, expected=expected)
    if (
        part.warmup_kind == "constant"
        and part.warmup_start == 0
        and durations.parse(part.warmup)[0] > 0
    ):
        expected = "a multiplier > 0 for a constant warm-up: at 0 nothing would move"
        raise InputError(
            "schedule.warmup_start", got=part.warmup_start, expected=expected, repair="try 0.1"
        )


def _monitor(monitor: str, metrics: Mapping[str, np.ndarray]) -> str:
    """The metric to watch; a run without accuracy is watched by its loss."""
    if monitor == "val_accuracy" and monitor not in metrics and "val_loss" in metrics:
        return "val_loss"
    if monitor not in metrics:
        known = ", ".join(sorted(metrics))
        raise InputError("schedule.monitor", got=monitor, expected=f"a metric of this run: {known}")
    return monitor


def _improved(value: float, best: float | None, minimised: bool, threshold: float) -> bool:
    if not math.isfinite(value):
        return False
    if best is None:
        return True
    return value < best * (1 - threshold) if minimised else value > best * (1 + threshold)
