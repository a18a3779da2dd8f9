"""A recipe that is still to be made: what was asked for, so that a study that goes on keeps the plan
it was begun with."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ravine.recipe import Recipe
from ravine.starters.start import is_planned
from ravine.storage.bounded import exists
from ravine.study.directory import read_request


@dataclass(frozen=True)
class Asked:
    """The recipe that ``make`` gives for a subject, edits of it by path, and minutes.

    A plan for data follows from measured times, and no two are equal.
    """

    subject: Recipe | str | Path | None
    edits: Mapping[str, Any]
    minutes: float | None
    make: Callable[[], Recipe]

    @property
    def words(self) -> dict[str, Any] | None:
        """What ``study.json`` keeps of it; None where the recipe does not depend on the clock."""
        if isinstance(self.subject, Recipe) or not is_planned(self.subject, self.edits):
            return None
        subject = None if self.subject is None else str(self.subject)
        found = {"subject": subject, "edits": dict(self.edits), "minutes": self.minutes}
        return dict(json.loads(json.dumps(found, default=str)))

    def recipe(self, kind: str, out: str | Path | None) -> Recipe:
        """The recipe of the study in ``out``, where that was asked for the same; else a new one."""
        if self.words is not None and out is not None and exists(Path(out) / "study.json"):
            found = read_request(Path(out))
            same = found["kind"] == kind and found.get("asked") == self.words
            if same and found["made_here"]:
                return Recipe(**found["recipe"])
        return self.make()
