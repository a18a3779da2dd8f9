"""What is changed from outside while a run trains. A change is a recorded event with the step from
which it counts, and the learning rates are a function of events and step: so a resumed run repeats
every change to the bit, from whichever snapshot it goes on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ravine.rundir.requests import FIELDS

KIND = "set"  # the kind of these events


@dataclass(frozen=True)
class Change:
    """From step ``step`` of their population on, these members have another ``value``."""

    step: int
    members: frozenset[int]
    value: float


class Changes:
    """The changes of one program's learning rates."""

    def __init__(self, program: int, events: Iterable[Mapping[str, Any]] = ()):
        self.program = program
        found = [event for event in events if event["data"]["program"] == program]
        self.all = [
            Change(e["step"], frozenset(e["data"]["members"]), e["data"]["value"]) for e in found
        ]

    def rates(self, first: int, last: int, members: Sequence[int], own: np.ndarray) -> np.ndarray:
        """The base rates of steps first, …, last - 1 [n, P]: those of the recipes, ``own`` [P], and
        from a change on its value."""
        rates = np.repeat(own[None], last - first, 0)
        for change in self.all:
            begin = max(change.step - first, 0)
            for row, member in enumerate(members):
                if member in change.members and begin < len(rates):
                    rates[begin:, row] = change.value
        return rates

    def add(self, step: int, members: Sequence[int], value: float) -> tuple[str, dict[str, Any]]:
        """A change from here on; gives the text and the data of its event."""
        self.all.append(Change(step, frozenset(members), value))
        data: dict[str, Any] = {"program": self.program, "field": FIELDS[0], "value": value}
        text = (
            f"{FIELDS[0]} is {value:g} from step {step:,} on, times what the schedule makes of it"
        )
        return text, data | {"members": list(members)}


def wanted_rate(request: Mapping[str, Any]) -> float | None:
    """The learning rate that a request asks for; None where it asks for nothing of the kind."""
    value = request.get("value")
    if request.get("kind") != KIND or request.get("field") not in FIELDS:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and value >= 0 else None


def answer(loop: Any, request: Mapping[str, Any]) -> bool:
    """Do what was asked of a training loop from outside; gives whether it is to stop."""
    if (value := wanted_rate(request)) is not None:
        numbers = [*loop.members.numbers, *(number for number, _ in loop.waiting)]
        text, data = loop.changes.add(loop.step, numbers, value)
        loop.record.add_event(loop.step, None, KIND, text, data)
    elif request.get("kind") == "snapshot":
        loop.save()
        loop.record.add_event(loop.step, None, "snapshot", "a snapshot was asked for")
    return request.get("kind") == "stop"
