"""Programs run to their ends, one after the other; Ctrl-C and SIGTERM are noted, and answered
between blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ravine.engine.execution.denormals import denormals_flushed
from ravine.engine.execution.device import kernel_threads
from ravine.engine.loop.loop import Interrupted, TrainingLoop
from ravine.engine.loop.progress import Progress
from ravine.engine.ranks.ranks import ALONE, Ranks
from ravine.stop_signals import noted

Report = Callable[[Progress], None]
_ASKED: list[int] = []  # the signals noted while loops run
Requests = Callable[[], Sequence[Mapping[str, Any]]]


def execute(
    loops: Sequence[TrainingLoop],
    report: Report = lambda progress: None,
    requests: Requests = tuple,
    ranks: Ranks = ALONE,
) -> None:
    """Run loops to their ends; what is asked to stop, on any rank, writes a snapshot and raises
    ``Interrupted``. ``requests`` gives what else is asked for from outside."""
    stopped: Interrupted | None = None
    with _deferred_signals() as asked:
        requests = ranks.requests(requests)
        try:
            for loop in loops:
                with running(loop):
                    loop.run(report, lambda: ranks.meet(bool(asked)), requests)
        except Interrupted as interrupted:
            stopped = interrupted
        if ranks.finish() and stopped is None:
            stopped = Interrupted("interrupted on another rank")
    if stopped is not None:
        raise stopped


@contextmanager
def running(loop: TrainingLoop) -> Iterator[None]:
    """The threads and the treatment of denormal numbers with which a loop's steps are taken."""
    try:
        with kernel_threads(loop.program.execution.threads), denormals_flushed():
            yield
    finally:
        loop.program.pipeline.stop_reading()
        loop.calendar.stop_reading()


def stop_asked() -> bool:
    """Whether Ctrl-C or SIGTERM was noted while loops run: what waits within a block asks."""
    return bool(_ASKED)


@contextmanager
def _deferred_signals() -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM are noted, so that the block ends, a snapshot is written and nothing is
    lost."""
    _ASKED.clear()
    try:
        with noted(_ASKED):
            yield _ASKED
    finally:
        _ASKED.clear()
