"""What a run measures, sent to an experiment tracker: while it trains, or afterwards.

The contract. A tracker is a frozen dataclass whose fields are its settings; ``begin(rundir, member)``
gives a writer with three methods: ``numbers(values, step)``, ``text(name, text, step)`` and
``close(result)``. `Follower` reads the run directory, which holds all that was measured, and sends what
is new; so a tracker sees what the report shows, and training waits for nothing but the client.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ravine.recipe import Recipe
from ravine.rundir import RunDir

LOSSES = 2000  # single steps at most that are sent at a time, evenly spaced
SECONDS = 2.0  # between two looks while a run trains
_NOT_NUMBERS = ("member", "epoch", "step")


class Writer(Protocol):
    """Where one member's measurements go."""

    def numbers(self, values: Mapping[str, float], step: int) -> None: ...

    def text(self, name: str, text: str, step: int) -> None: ...

    def close(self, result: Mapping[str, Any] | None) -> None: ...


@dataclass(frozen=True)
class Tracker:
    """A tracker, with its settings; ``train(track=[…])`` takes it."""

    def begin(self, rundir: RunDir, member: int) -> Writer:
        """A writer for one member; of a run that goes on, one that goes on."""
        raise NotImplementedError

    def follow(self, rundir: RunDir) -> Follower:
        """What sends a run directory's measurements to this tracker."""
        return Follower(self, rundir)


@dataclass
class _Place:
    """How far one member's measurements have been sent."""

    writer: Writer
    losses: int = 0
    epochs: int = 0
    events: int = 0


@dataclass
class Follower:
    """Sends what a run directory holds and has not been sent yet. What fails is said once, and ends the
    sending; it never ends the training."""

    tracker: Tracker
    rundir: RunDir
    values: int = 0  # sent
    places: list[_Place] = field(default_factory=list)
    failed: str = ""  # what went wrong, if anything has
    _last: float = 0.0

    def update(self, *, now: bool = False) -> None:
        """Send what is new, if the last look is long enough ago."""
        if self.failed or (not now and time.monotonic() - self._last < SECONDS):
            return
        try:
            self._send()
        except Exception as error:  # a tracker may fail in any way: its server, its disk
            self.failed = f"{type(error).__name__}: {error}"
            name = type(self.tracker).__name__
            warnings.warn(f"{name} is not sent to any more: {self.failed}", stacklevel=2)
        self._last = time.monotonic()

    def close(self) -> None:
        """Send the rest, and say how members ended."""
        self.update(now=True)
        for member, place in enumerate(self.places):
            try:
                place.writer.close(self.rundir.result(member))
            except Exception as error:  # as above
                self.failed = self.failed or f"{type(error).__name__}: {error}"
                warnings.warn(f"{type(self.tracker).__name__}: {error}", stacklevel=2)

    def _send(self) -> None:
        if not self.places:
            members = range(len(self.rundir.recipes))
            self.places = [_Place(self.tracker.begin(self.rundir, member)) for member in members]
        for member, place in enumerate(self.places):
            self._send_member(member, place)

    def _send_member(self, member: int, place: _Place) -> None:
        losses, epochs = self.rundir.steps(member), self.rundir.epochs(member)
        by_step: dict[int, dict[str, float]] = {}
        count = len(losses) - place.losses
        for step in np.unique(np.linspace(0, count - 1, min(count, LOSSES)).astype(int)):
            at = int(step) + place.losses
            by_step.setdefault(at + 1, {})["loss/step"] = float(losses[at])
        for row in epochs[place.epochs :]:
            numbers = {name: v for name, v in row.items() if name not in _NOT_NUMBERS}
            for name, value in numbers.items():
                if isinstance(value, int | float) and math.isfinite(value):
                    by_step.setdefault(row["step"], {})[tag(name)] = float(value)
        for step in sorted(by_step):
            kept = {name: v for name, v in by_step[step].items() if math.isfinite(v)}
            if kept:
                place.writer.numbers(kept, step)
            self.values += len(kept)
        events = self.rundir.events(member=member)
        for event in events[place.events :]:
            place.writer.text(f"event/{event['kind']}", event["text"], event["step"])
        place.losses, place.epochs, place.events = len(losses), len(epochs), len(events)


def tag(name: str) -> str:
    """The chart and the line of a metric.

    >>> tag("val_accuracy"), tag("lr")
    ('accuracy/val', 'training/lr')
    """
    split, _, what = name.partition("_")
    return f"{what}/{split}" if split in ("train", "val", "test") and what else f"training/{name}"


def fields_of(recipe: Recipe) -> dict[str, Any]:
    """A recipe's fields by path.

    >>> fields_of(Recipe())["optimizer.lr"]
    0.001
    """
    found: dict[str, Any] = {}

    def walk(value: Any, path: str) -> None:
        if isinstance(value, Mapping):
            for name, inner in value.items():
                walk(inner, f"{path}.{name}" if path else str(name))
        elif isinstance(value, Sequence) and not isinstance(value, str):
            found[path] = str(list(value))
        else:
            found[path] = value

    walk(recipe.to_dict(), "")
    return found


def final_numbers(result: Mapping[str, Any] | None) -> dict[str, float]:
    """The metrics with which a member ended."""
    return {
        f"final/{name}": float(value)
        for name, value in (result or {}).items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
