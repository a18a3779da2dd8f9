"""Who trains the recipes of a study, by what ``--workers`` says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ravine.errors import unknown
from ravine.study.workers.executor import Executor, Here
from ravine.study.workers.joined import Joined

CHOICES = ("here", "join")


def executor_of(workers: str | None, given: Sequence[str], path: Path) -> Executor:
    """The executor that ``workers`` names; ``given`` is what was given in Python."""
    if workers in (None, "here"):
        # of a study that was shared before, what is done counts
        return Joined() if (path / "shared").is_dir() else Here()
    if workers == "join":
        return Joined()
    raise unknown("--workers", workers, CHOICES)
