"""Times a few steps of each way to run a program, and remembers the fastest in the user's cache, by
program and machine."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_path

from ravine.machine import machine
from ravine.storage.bounded import MIB, parse_json, read_text
from ravine.storage.files import write_text

ROUNDS = 4  # timed runs of each candidate, in turn, after one that warms up
SHARE = 0.05  # of a run's steps that trying may take at most
BUSY = 1.5  # processes a core, over the last minute
SECONDS = 4.0  # limit of all trials; the round that has begun is finished


def worth_it(candidates: Sequence[Any], steps: int) -> bool:
    """Whether a run of so many steps is long enough to try the candidates first.

    >>> worth_it(["a", "b"], steps=100), worth_it(["a", "b"], steps=1000)
    (False, True)
    """
    return len(candidates) > 1 and len(candidates) * (ROUNDS + 1) <= SHARE * steps


def fastest(
    candidates: Sequence[Any],
    apply: Callable[[Any], None],
    step: Callable[[], Any],
    units: Callable[[Any], float] = lambda candidate: 1.0,
) -> tuple[int, list[float]]:
    """The place of the fastest candidate, and the least seconds of each for a unit of work, of which
    a step of a candidate does ``units``; all take turns, so that a busy moment hits all.

    The first, which the rules chose, stays unless another is a tenth faster in every single round:
    a machine that is busy with other work must not decide what is then remembered.
    """
    rounds: list[list[float]] = []
    began = time.perf_counter()
    while len(rounds) <= ROUNDS and (len(rounds) < 2 or time.perf_counter() - began < SECONDS):
        seconds = []
        for candidate in candidates:
            apply(candidate)
            at = time.perf_counter()
            step()
            seconds.append((time.perf_counter() - at) / units(candidate))
        rounds.append(seconds)
    counted = rounds[1:]  # the first warms up
    best = [min(seconds) for seconds in zip(*counted, strict=True)]
    sure = [
        all(seconds[place] < 0.9 * seconds[0] for seconds in counted)
        for place in range(len(candidates))
    ]
    return min(
        (place for place in range(len(candidates)) if sure[place] or place == 0),
        key=best.__getitem__,
    ), best


def quiet() -> bool:
    """Whether the machine is not much busier than this process makes it: what is timed on a busy
    one is not worth remembering."""
    busy = getattr(os, "getloadavg", lambda: (0.0,))()[0]
    return busy <= BUSY * (os.cpu_count() or 1)


def remembered(*parts: Any) -> dict[str, Any] | None:
    """The choice that was fastest for this program on this machine; None where none is stored."""
    try:
        found = parse_json(read_text(_path(parts), MIB), "")
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def remember(choice: dict[str, Any], *parts: Any) -> None:
    """Keep the choice for the next run; a cache that cannot be written is ignored."""
    with contextlib.suppress(OSError):
        write_text(_path(parts), json.dumps(choice))


def _path(parts: Sequence[Any]) -> Path:
    known = (platform.node(), machine(), torch.get_num_threads(), torch.__version__, *parts)
    digest = hashlib.sha256("\x1f".join(map(str, known)).encode()).hexdigest()
    return user_cache_path("ravine") / "executions" / f"{digest[:32]}.json"
