"""A program's record in a run directory: rows in its database, snapshots in its folders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ravine.engine import snapshot
from ravine.engine.loop.record import Kind
from ravine.engine.programs import Program
from ravine.rundir import RunDir


class DirectoryRecord:
    """What happens to the members of program ``number``, stored in a run directory."""

    lasts = True

    def __init__(self, rundir: RunDir, number: int):
        self.rundir, self.number = rundir, number
        self.add_epochs, self.add_event = rundir.add_epochs, rundir.add_event
        self.set_result, self.sync = rundir.set_result, rundir.sync
        self.epochs, self.events = rundir.epochs, rundir.events
        self.truncate = rundir.truncate

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
        self.rundir.add_steps(first_step, members, losses)

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
        if kind == "trace":
            snapshot.write(self.rundir.trace_path(self.number, step), arrays, facts)
        elif kind == "final":
            snapshot.write(self.rundir.final_path(self.number, step, lead), arrays, facts)
        else:
            snapshot.write(self.rundir.snapshot_path(self.number, step, lead), arrays, facts)
            snapshot.prune(self.rundir.latest_snapshots(self.number, lead), keep=2)


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
