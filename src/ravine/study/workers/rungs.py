"""Successive halving among programs that several processes train: who was judged at which age.

In one process the programs of a stage train one after the other, and a member is judged against all
that were at its age before: those of its own program and of the earlier ones. Here a program waits,
at each age at which members are judged, until the earlier programs are past it. They all train
meanwhile, and every decision is that of one process.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ravine.engine.directory_record import DirectoryRecord
from ravine.engine.execute import stop_asked
from ravine.engine.loop.loop import Interrupted
from ravine.errors import InputError, RavineError
from ravine.rundir import RunDir
from ravine.storage.bounded import MOST_SETTINGS, parse_json, read_text
from ravine.storage.files import write_text

WAIT = 0.2  # seconds between two looks at another's progress


class Yielded(RavineError):
    """An earlier program has nobody who trains it: it comes first."""


class Superseded(RavineError):
    """Another process has taken this one for dead and goes on with its program."""


def judged(rundir: RunDir, number: int) -> dict[str, Any]:
    """The judgements in a program so far; the ages that all its members are past; whether all have
    ended."""
    members = rundir.facts["programs"][number]["members"]
    events = [event for event in rundir.events("rung") if event["member"] in set(members)]
    there: dict[float, set[int]] = {}
    for event in events:
        there.setdefault(event["data"]["rung"], set()).add(event["member"])
    left = {member for member in members if rundir.result(member) is not None}
    past = [age for age, who in there.items() if who | left >= set(members)]
    return {"events": events, "past": sorted(past), "ended": left >= set(members)}


def read(place: Path) -> dict[str, Any]:
    """What another process has published of its program."""
    with suppress(InputError):
        return parse_json(read_text(place, MOST_SETTINGS), place.name)
    return {"events": [], "past": [], "ended": False}


class SharedRecord(DirectoryRecord):
    """A program's record that publishes its judgements at ``place`` and waits for those of earlier
    programs. ``claim_lost`` says whether another process goes on with this program, ``forsaken``
    whether nobody trains one of the earlier programs."""

    def __init__(
        self,
        record: DirectoryRecord,
        place: Path,
        earlier: Sequence[Path],
        claim_lost: Callable[[], bool],
        forsaken: Callable[[int], bool],
    ):
        super().__init__(record.rundir, record.number)
        self.place, self.earlier = place, earlier
        self.claim_lost, self.forsaken = claim_lost, forsaken
        self.events = self._events

    def add_steps(
        self, first_step: int, members: Sequence[int], losses: np.ndarray, norms: np.ndarray
    ) -> None:
        """Store the losses, while the program is still this process's."""
        if self.claim_lost():
            raise Superseded(f"another process goes on with program {self.number}")
        super().add_steps(first_step, members, losses, norms)

    def set_result(self, member: int, result: dict[str, Any]) -> None:
        """Store how a member ended, and publish it."""
        super().set_result(member, result)
        self._publish()

    def _events(self, kind: str | None = None, member: int | None = None) -> list[dict[str, Any]]:
        if kind != "rung":
            return self.rundir.events(kind, member)
        own = self._publish()
        oldest = max((event["data"]["rung"] for event in own), default=0)
        before = [self._wait(number, oldest) for number in range(len(self.earlier))]
        return [event for events in before for event in events] + own

    def _publish(self) -> list[dict[str, Any]]:
        found = judged(self.rundir, self.number)
        if found["events"] or found["ended"]:
            write_text(self.place, json.dumps(found))
        return found["events"]

    def _wait(self, number: int, age: float) -> list[dict[str, Any]]:
        """The judgements in an earlier program, once all its members are past this age."""
        while True:
            found = read(self.earlier[number])
            if found["ended"] or age in found["past"]:
                return found["events"]
            if stop_asked():
                raise Interrupted("interrupted while it waited for another process")
            if self.forsaken(number):
                raise Yielded(f"program {number} comes first")
            time.sleep(WAIT)
