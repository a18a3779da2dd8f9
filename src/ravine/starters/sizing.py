"""How long a run is, and how large its network: what fits into the time there is."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ravine.errors import InputError
from ravine.starters.rules import Draft

MINUTES = 3.0  # where none are given: as long as a coffee takes
SHARE = 0.97  # of the time is for planning and training, less CLOSING
CLOSING = 3.0  # seconds for what comes before and after: libraries, the doctor, the report
LEAST_SHARE = 0.25  # of the time trains, however long reading and planning took
FEW_EPOCHS = 10  # under which a whole epoch more or less is much of the time


@dataclass(frozen=True)
class Plan:
    """The network and the end of the run, with the reasons."""

    model: dict[str, Any]
    after: str
    why_model: str
    why_after: str


@dataclass(frozen=True)
class Minutes:
    """The time that a person gives, and what of it one run may take."""

    given: float | None  # none: MINUTES, and no more than the data has use for
    runs: int = 1  # that must fit: more than one are a study's
    began: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        if self.given is not None and not self.given > 0:
            raise InputError("minutes", got=self.given, expected="more than 0")

    @property
    def left(self) -> float:
        """Seconds for the training of one run, from now on; a study itself accounts for what comes
        before and after."""
        whole = 60 * (self.given or MINUTES)
        if self.runs > 1:
            return min(whole / self.runs, 60 * MINUTES)
        spent = time.perf_counter() - self.began
        return max(whole - min(CLOSING, 0.1 * whole) - spent, LEAST_SHARE * whole)

    @property
    def to_fill(self) -> bool:
        """Whether one run is to use all of the time."""
        return self.given is not None and self.runs == 1

    def __str__(self) -> str:
        text = f"{self.given or MINUTES:g} minutes"
        return text if self.runs == 1 else f"a search of {text}, with {self.runs} such runs,"


def plan(made: Draft, costs: Sequence[float], epoch_steps: int, minutes: Minutes) -> Plan:
    """The largest network of the draft that gets its ``wider_steps`` within the time, and as many
    epochs as fit (where few fit, steps), but no more than the data has use for. A run that is to
    fill its time has no such bound; a study's runs have the draft's least steps, whatever the time.

    ``costs``: seconds of an epoch of each of the draft's networks, a look at the validation part
    included.

    >>> made = Draft(models=[{"kind": "small"}, {"kind": "large"}], most_steps=4000)
    >>> found = plan(made, [0.3, 1.25], epoch_steps=20, minutes=Minutes(None))
    >>> found.model["kind"], found.after
    ('large', '137ep')
    """
    seconds = SHARE * minutes.left
    wanted = made.wider_steps / epoch_steps
    chosen = max((i for i, one in enumerate(costs) if seconds / one >= wanted), default=0)
    fit = seconds / costs[chosen]
    if minutes.runs > 1:
        fit = max(fit, made.least_steps / epoch_steps)
    most = fit if minutes.to_fill else max(1, math.ceil(made.most_steps / epoch_steps))
    epochs = min(fit, most)
    steps = max(1, int(epochs * epoch_steps))
    why_after = (
        f"what fits into {minutes} at {1e3 * costs[chosen] / epoch_steps:.3g} ms a step"
        if fit <= most
        else f"{steps:,} steps: data of this size has no use for more"
    )
    if steps < made.least_steps:
        why_after += f"; under {made.least_steps:,} steps is short, more minutes will help"
    larger = len(costs) > 1
    why_model = f"the largest of {len(costs)} sizes that trains well in {minutes}" if larger else ""
    after = f"{steps}it" if epochs < FEW_EPOCHS else f"{int(epochs)}ep"
    return Plan(made.models[chosen], after, why_model.rstrip(","), why_after)
