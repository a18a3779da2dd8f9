"""Trackers that follow a run while it trains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from ravine.engine.execute import Report
from ravine.engine.loop.progress import Progress
from ravine.rundir import RunDir


class Follower(Protocol):
    """What sends a run's measurements elsewhere."""

    def update(self) -> None: ...

    def close(self) -> None: ...


class Follows(Protocol):
    """A tracker, such as those of ``ravine.interop``."""

    def follow(self, rundir: RunDir) -> Follower: ...


@contextmanager
def followed(rundir: RunDir, track: Sequence[Follows], report: Report) -> Iterator[Report]:
    """A report that lets trackers look too; they are told the end, however it comes."""
    followers = [tracker.follow(rundir) for tracker in track]

    def every(progress: Progress) -> None:
        report(progress)
        for follower in followers:
            follower.update()

    try:
        yield every if followers else report
    finally:
        for follower in followers:
            follower.close()
