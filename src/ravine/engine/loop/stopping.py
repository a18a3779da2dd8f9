"""When a member ends, and which of its weights were the best so far. Judged at the end of epochs;
the time, after each block of steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ravine.catalogue import durations
from ravine.engine.loop.calendar import Calendar
from ravine.errors import InputError
from ravine.measures import better_is
from ravine.recipe import Recipe

_STATE = ("best", "best_step", "mark", "mark_step", "reason")


class Stopping:
    """The stop criteria of one member. A metric that is not a number is never best.

    The best is the best value seen, by however little; patience counts from the last change by more
    than ``min_delta``. As in Keras, a patience of 0 ends the member at the first check without an
    improvement.
    """

    def __init__(self, recipe: Recipe, calendar: Calendar):
        self.stop = recipe.stop
        self.total = max(1, calendar.steps(self.stop.after))
        self.patience = (
            None
            if self.stop.patience is None
            else durations.steps(self.stop.patience, calendar.epoch_steps)
        )
        mode = better_is(self.stop.monitor) if self.stop.mode == "auto" else self.stop.mode
        self.sign = 1.0 if mode == "min" else -1.0
        self.keeps_best = keeps_best(recipe)
        self.best: float | None = None
        self.best_step = 0
        self.mark: float | None = None  # the last value that was better by more than min_delta
        self.mark_step = 0
        self.reason: str | None = None
        self.cut = False  # by the time limit, within an epoch

    def is_late(self, seconds: float) -> bool:
        return self.stop.minutes is not None and seconds >= 60 * self.stop.minutes

    def observe(self, step: int, metrics: Mapping[str, float], seconds: float) -> bool:
        """Judge one evaluation after ``step`` steps: set ``reason`` if the member ends, and return
        whether it is the best so far."""
        improved = self._improved(step, self._monitored(metrics))
        self.reason = self._reason(step, metrics, seconds)
        return improved

    def _monitored(self, metrics: Mapping[str, float]) -> float:
        name = self.stop.monitor
        if name == "val_loss" and name not in metrics:
            name = "train_loss"  # no validation part: the training loss is all there is
        if name not in metrics:
            known = sorted(key for key in metrics if isinstance(metrics[key], float))
            raise InputError(
                "stop.monitor", got=name, expected=f"one of the run's metrics: {', '.join(known)}"
            )
        return metrics[name]

    def _improved(self, step: int, value: float) -> bool:
        if not math.isfinite(value):
            return False
        if self.mark is None or self.sign * value < self.sign * self.mark - self.stop.min_delta:
            self.mark, self.mark_step = value, step
        if self.best is not None and self.sign * (self.best - value) <= 0:
            return False
        self.best, self.best_step = value, step
        return True

    def _reason(self, step: int, metrics: Mapping[str, float], seconds: float) -> str | None:
        target = self.stop.target
        if target is not None and self.best is not None and self.sign * (self.best - target) <= 0:
            return f"target reached: {self.stop.monitor} {self.best:.6g}"
        if step >= self.total and not self.cut:
            return "finished"
        waited = step - self.mark_step  # 0 at a check that brought an improvement
        if self.patience is not None and waited and waited >= self.patience:
            return f"no better {self.stop.monitor} for {self.stop.patience}"
        if metrics.get("grad_norm", math.inf) < self.stop.gradient_norm:
            return f"gradient norm below {self.stop.gradient_norm:g}"
        if self.cut or self.is_late(seconds):
            return f"time limit of {self.stop.minutes:g} min reached"
        return None

    def extend(self, step: int) -> None:
        """Continue after an end: patience that ran out starts again."""
        if self.patience is not None and step - self.mark_step >= self.patience:
            self.mark_step = step
        self.reason = None

    def state(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _STATE}

    def restored(self, state: Mapping[str, Any]) -> Stopping:
        """Itself, with a stored state."""
        for name in _STATE:
            setattr(self, name, state[name])
        return self


def cut_late(stops: Sequence[Stopping], step: int, starts: Sequence[int], seconds: float) -> None:
    """Members whose time is over end at this step of the population, though their epoch is not over:
    an epoch may be most of a run."""
    for stop, start in zip(stops, starts, strict=True):
        if step - start < stop.total and stop.is_late(seconds):
            stop.total, stop.cut = step - start, True


def keeps_best(recipe: Recipe) -> bool:
    """Whether a member ends with its best weights: if the recipe asks for it, or has a patience."""
    return recipe.stop.patience is not None if recipe.stop.best is None else recipe.stop.best


def depends_on_validation(recipe: Recipe) -> bool:
    """Whether what is measured on the validation part at epochs' ends changes the run."""
    stop, schedule = recipe.stop, recipe.schedule
    watched = [schedule.monitor] if schedule.kind == "on_plateau" else []
    if keeps_best(recipe) or stop.patience is not None or stop.target is not None:
        watched.append(stop.monitor)
    return any(name.startswith("val_") for name in [*watched, *_named(recipe)])


def _named(recipe: Recipe) -> list[str]:
    """The metric that the recipe's stop watches, unless it is the default: it has to be measured."""
    return [] if recipe.stop.monitor == "val_loss" else [recipe.stop.monitor]
