"""A program's record in a run directory: rows in its database, snapshots in its folders."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ravine.engine import snapshot
from ravine.engine.loop.record import Kind
from ravine.engine.programs import Program
from ravine.errors import RavineError
from ravine.rundir import RunDir
from ravine.rundir.measurements import Late
from ravine.storage.bounded import amount
from ravine.storage.files import trouble


class DirectoryRecord:
    """What happens to the members of program ``number``, stored in a run directory."""

    lasts = True

    def __init__(self, rundir: RunDir, number: int):
        self.rundir, self.number = rundir, number
        self.events, self.truncate = rundir.events, rundir.truncate

    def add_epochs(self, rows: Sequence[dict[str, Any]]) -> None:
        """Store metrics at epochs' ends."""
        self._store(lambda: self.rundir.add_epochs(rows), rows)

    def add_event(
        self,
        step: int,
        member: int | None,
        kind: str,
        text: str,
        data: dict[str, Any] | None = None,
    ) -> None:
        """Store what happened."""
        self._store(lambda: self.rundir.add_event(step, member, kind, text, data))

    def set_result(self, member: int, result: dict[str, Any]) -> None:
        """Store how a member ended."""
        self._store(lambda: self.rundir.set_result(member, result))

    def sync(self) -> None:
        """Bring all rows to the disk itself."""
        self._store(self.rundir.sync)

    def epochs(self, member: int) -> list[dict[str, Any]]:
        """The metrics of a member so far, those that the disk has not taken yet included."""
        late = [row for one in self.rundir.late for row in one.epochs if row["member"] == member]
        return self.rundir.epochs(member) + late

    # --- a disk that is full or fails -------------------------------------------------------------

    def _store(self, store: Callable[[], None], epochs: Sequence[dict[str, Any]] = ()) -> None:
        """Store something behind all that waits; what the disk does not take waits, and is tried
        again each time."""
        self.rundir.late.append(Late(store, epochs))
        self._try_again()

    def _try_again(self) -> bool:
        """Store what waits, in order; whether nothing does any more."""
        late = self.rundir.late
        while late:
            try:
                late[0].store()
            except Exception as error:
                if (text := trouble(error)) is None:
                    late.pop(0)
                    raise
                _warn(text)
                return False
            late.pop(0)
        return True

    def settle(self) -> None:
        """Store what waits, at the end; RavineError where the disk still does not take it."""
        if not self._try_again():
            count = len(self.rundir.late)
            raise RavineError(
                f"{self.rundir.path}: the disk did not take the last {count} things to store; the last "
                f"snapshot is whole: make room, then ravine resume {self.rundir.path}"
            )

    def describe(
        self,
        tensors: Mapping[str, Tensor],
        facts: Mapping[str, Any],
        sentence: str,
        execution: dict[str, Any],
    ) -> None:
        """Store what predicting needs without the data, and how the program runs."""
        snapshot.write(self.rundir.data_path(self.number), tensors, facts)
        self.add_event(0, None, "execution", sentence, execution)

    def add_steps(
        self, first_step: int, members: Sequence[int], losses: np.ndarray, norms: np.ndarray
    ) -> None:
        """Store the losses; of gradient norms a run directory holds the epochs' means."""
        self.rundir.check_there()
        kept = losses.copy()
        self._store(lambda: self.rundir.add_steps(first_step, members, kept))

    def snapshot(
        self,
        kind: Kind,
        step: int,
        lead: int,
        arrays: Mapping[str, Tensor],
        facts: Mapping[str, Any],
    ) -> None:
        """Write a snapshot; of the latest ones two are kept, the others for good."""
        facts = {**facts, "recipe_sha256": [self.rundir.digests[m] for m in facts["members"]]}
        if kind == "latest":  # another one comes soon: it is not kept for later
            self._latest(step, lead, arrays, facts)
            return
        path = (
            self.rundir.trace_path(self.number, step)
            if kind == "trace"
            else self.rundir.final_path(self.number, step, lead)
        )
        kept = arrays
        if self.rundir.late:  # training goes on before it is stored
            kept = {name: array.detach().cpu().clone() for name, array in arrays.items()}
        try:
            if not self.rundir.late:
                snapshot.write(path, arrays, facts)
                return
        except Exception as error:
            if (text := trouble(error)) is None:
                raise
            _warn(text)
            kept = {name: array.detach().cpu().clone() for name, array in arrays.items()}
        self._store(lambda: snapshot.write(path, kept, facts))

    def _latest(
        self, step: int, lead: int, arrays: Mapping[str, Tensor], facts: Mapping[str, Any]
    ) -> None:
        """A snapshot to resume from promises that all before it is stored; where the disk does not
        take it the one before it stays."""
        if not self._try_again():
            return
        try:
            snapshot.write(self.rundir.snapshot_path(self.number, step, lead), arrays, facts)
        except Exception as error:
            if (text := trouble(error)) is None:
                raise
            _warn(text)
            return
        snapshot.prune(self.rundir.latest_snapshots(self.number, lead), keep=2)


def _warn(text: str) -> None:
    """Said once, however often it happens."""
    warnings.warn(
        f"{text}; training goes on, the last snapshot is kept, and storing is tried again",
        stacklevel=3,
    )


def check_space(rundir: RunDir, loops: Sequence[Any]) -> None:
    """Warn where the disk has less room than the run will need: snapshots of every member (the two
    latest, the one being written, the final one), and the losses of every step."""
    needed = 0
    for loop in loops:
        state = sum(tensor.nbytes for tensor in loop.members.changed_by_step())
        needed += 4 * state + 8 * sum(stop.total for stop in loop.stops)
    free = shutil.disk_usage(rundir.path).free
    if needed > free:
        warnings.warn(
            f"{rundir.path}: the run needs about {amount(needed)}, and {amount(free)} are free",
            stacklevel=2,
        )


def record_of(
    rundir: RunDir, before: Callable[[DirectoryRecord], DirectoryRecord] | None = None
) -> Callable[[Program], DirectoryRecord]:
    """What makes the record of a program in a run directory; ``before`` may look at what is
    stored."""
    before = before or (lambda record: record)
    return lambda program: before(DirectoryRecord(rundir, program.number))


def describe(program: Program, record: DirectoryRecord) -> None:
    """Store what predicting needs without the data: the fitted statistics."""
    tensors, facts = program.pipeline.state()
    facts = {**facts, "digest": program.pipeline.digest}
    record.describe(tensors, facts, program.execution.sentence(), program.execution.to_dict())
