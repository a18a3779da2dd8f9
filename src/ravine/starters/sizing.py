"""How long a run is, and how large its network: what fits into the time there is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
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


def plan(
    made: Draft,
    costs: Sequence[float],
    epoch_steps: int,
    minutes: float | None,
    spent: float = 0.0,
) -> Plan:
    """The largest network of the draft that has its least steps twice over within the time, and as many
    epochs as fit (where few fit, steps), but no more than the data has use for.

    ``costs``: seconds of an epoch of each of the draft's networks, a look at the validation part
    included. ``spent``: seconds that are gone already. With ``minutes`` given all the time is used;
    without, MINUTES.

    >>> made = Draft(models=[{"kind": "small"}, {"kind": "large"}], most_steps=4000)
    >>> found = plan(made, [0.3, 1.25], epoch_steps=20, minutes=None)
    >>> found.model["kind"], found.after
    ('large', '137ep')
    """
    if minutes is not None and not minutes > 0:
        raise InputError("minutes", got=minutes, expected="more than 0")
    whole = 60 * SHARE * (minutes or MINUTES)
    seconds = max(whole - min(CLOSING, 0.1 * whole) - spent, LEAST_SHARE * whole)
    wanted = 2 * made.least_steps / epoch_steps
    chosen = max((i for i, one in enumerate(costs) if seconds / one >= wanted), default=0)
    fit = seconds / costs[chosen]
    most = fit if minutes else max(1, math.ceil(made.most_steps / epoch_steps))
    epochs = min(fit, most)
    steps = max(1, int(epochs * epoch_steps))
    given = f"{minutes or MINUTES:g} minutes"
    why_after = (
        f"what fits into {given} at {1e3 * costs[chosen] / epoch_steps:.3g} ms a step"
        if fit <= most
        else f"{steps:,} steps: data of this size has no use for more"
    )
    if steps < made.least_steps:
        why_after += f"; under {made.least_steps:,} steps is short, more minutes will help"
    larger = len(costs) > 1
    why_model = f"the largest of {len(costs)} sizes that trains well in {given}" if larger else ""
    after = f"{steps}it" if epochs < FEW_EPOCHS else f"{int(epochs)}ep"
    return Plan(made.models[chosen], after, why_model, why_after)
