"""The contract of what trains the recipes of a study, and the executor that does it in this process.

The contract, in three lines. An executor is handed a stage: recipes, how they train, and the run
directory that they belong in. It gives back their runs; the run directory then holds them all,
whoever trained them. What was trained before, in an earlier call that was interrupted, goes on.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ravine.engine.execution.pilot import by_rules_alone
from ravine.engine.loop.progress import Progress
from ravine.engine.run import Run
from ravine.engine.weights.stored import Opened, open_with
from ravine.errors import RavineError
from ravine.recipe import Recipe
from ravine.rundir import RunDir
from ravine.training.train import resume, train_many

Report = Callable[[Progress], None]


@dataclass
class Stage:
    """What an executor trains."""

    name: str
    place: Path  # the run directory of all of it
    shared: Path  # where processes that share the work keep their parts until it is whole
    recipes: Sequence[Recipe]
    how: dict[str, Any] = field(default_factory=dict)  # as for ``train_many``
    model: Any = None  # what was given in Python, as for ``train_many``
    data: Any = None
    quiet: bool = False
    report: Report | None = None

    @property
    def begun(self) -> bool:
        """Whether the run directory can be resumed; one that was killed before its first snapshot
        begins anew."""
        try:
            with RunDir.open(self.place) as found:
                return any(found.begun(program) for program in range(len(found.facts["programs"])))
        except RavineError:
            return False

    @property
    def finished(self) -> bool:
        """Whether the run directory holds how every recipe ended."""
        try:
            with RunDir.open(self.place) as found:
                return found.state == "finished"
        except RavineError:
            return False

    def runs(self) -> list[Run]:
        """The runs of a finished stage."""
        opened = Opened(open_with(self.place))
        return [Run(opened, member, module=self.model) for member in range(len(self.recipes))]


class Executor(Protocol):
    """What trains stages."""

    def train(self, stage: Stage) -> list[Run]:
        """The runs of the stage's recipes, trained now or gone on with."""

    def close(self) -> None:
        """The study has ended, or was interrupted."""


class Here:
    """Trains in this process, all programs one after the other."""

    def train(self, stage: Stage) -> list[Run]:
        given: dict[str, Any] = {"model": stage.model, "data": stage.data, "quiet": stage.quiet}
        if stage.begun:
            return resume(stage.place, report=stage.report, trust=True, **given)
        shutil.rmtree(stage.place, ignore_errors=True)
        given |= {"out": stage.place, "report": stage.report}
        with by_rules_alone():
            return train_many(stage.recipes, **given, **stage.how)

    def close(self) -> None:
        pass
