"""Who trains the recipes of a study, by what ``--workers`` says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ravine.errors import unknown
from ravine.study.workers.executor import Executor, Here
from ravine.study.workers.joined import Joined
from ravine.study.workers.on_ray import OnRay

CHOICES = ("here", "join", "ray", "ray:ADDRESS")


def executor_of(workers: str | None, given: Sequence[str], path: Path) -> Executor:
    """The executor that ``workers`` names; ``given`` is what was given in Python."""
    kind, _, address = (workers or "here").partition(":")
    if kind == "ray":
        # of ray://HOST:PORT all is the address
        return OnRay(workers if address.startswith("//") else address or None, given)
    if workers == "join":
        return Joined()
    if workers in (None, "here"):
        # of a study that was shared before, what is done counts
        return Joined() if (path / "shared").is_dir() else Here()
    raise unknown("--workers", workers, CHOICES)
