"""Processes that share a study's directory, on one machine or on several: each claims units of work.

One of them conducts the study: it makes the stages, and with the others trains their units. Where
it dies another conducts, since a study that is entered again goes the same way. No process talks to
another; the directory is all that they share.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ravine.engine.loop.loop import Interrupted
from ravine.engine.loop.progress import Progress
from ravine.engine.run import Run
from ravine.errors import InputError
from ravine.storage.bounded import MOST_SETTINGS, parse_json, read_text
from ravine.storage.claims import Claim, holding
from ravine.storage.locks import Lock
from ravine.study.workers.executor import Report, Stage
from ravine.study.workers.order import Order
from ravine.terminal import visible

WAIT = 0.5  # seconds between two looks for work


class Joined:
    """Shares its stages with every process that has joined, and trains with them."""

    def train(self, stage: Stage) -> list[Run]:
        if not stage.finished:
            order = Order.of(stage)
            while not order.complete:
                if not work(order, stage.model, stage.data, stage.report or _silent):
                    time.sleep(WAIT)
            order.gather(stage.place)
        return stage.runs()

    def close(self) -> None:
        pass


def work(order: Order, model: Any, data: Any, report: Report) -> bool:
    """Train one unit of an order, if one is free; whether one was."""
    number = order.claim()
    if number is None:
        return False
    order.train(number, model=model, data=data, report=report)
    return True


def join(
    path: Path,
    conduct: Callable[[Claim], dict[str, Any]],
    *,
    model: Any = None,
    data: Any = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Work on a study until it is finished; its summary. ``conduct`` goes through the whole study,
    in the one process that holds the claim to it."""
    claim = Claim(path / "conductor")
    try:
        while True:
            if not (path / "study.json").is_file():
                with holding(claim):
                    return conduct(claim)
            if (path / "summary.json").is_file() and not claim.taken:
                if not quiet:
                    print(f"report: {path / 'report.html'}", file=sys.stderr, flush=True)
                return parse_json(read_text(path / "summary.json", MOST_SETTINGS), "summary.json")
            if claim.take():
                with holding(claim):
                    _check_shared(path)
                    return conduct(claim)
            if not _worked(path, model, data, quiet):
                time.sleep(WAIT)
    except Interrupted as error:
        text = f"{str(error).partition(';')[0]}; ravine resume {path} --join goes on"
        raise Interrupted(text) from None
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; ravine resume {path} --join goes on") from None


def _check_shared(path: Path) -> None:
    if Lock(path).taken:
        raise InputError(
            "--join",
            got=f"{path}, which a process trains alone",
            expected="a study that was begun with --workers join, or one that was interrupted",
            repair="interrupt that process (Ctrl-C, nothing is lost), then join as often as you like",
        )


def _worked(path: Path, model: Any, data: Any, quiet: bool) -> bool:
    """Train one unit of any stage that is shared now; whether there was one."""
    for place in sorted((path / "shared").glob("*/order.json")):
        try:
            order = Order(place.parent)
        except InputError:
            continue  # it was finished in this moment
        number = order.claim()
        if number is None:
            continue
        if not quiet:
            said = visible(f"{order.name}: {_members(order.groups[number])}")
            print(said, file=sys.stderr, flush=True)
        order.train(number, model=model, data=data)
        return True
    return False


def _members(members: list[int]) -> str:
    return f"{len(members)} recipe{'s' * (len(members) > 1)} from number {members[0]}"


def _silent(progress: Progress) -> None:
    pass
