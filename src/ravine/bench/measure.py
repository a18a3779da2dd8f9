"""Every competitor of a work in turn, round after round; medians of the epochs' step times, and
their ratios to Ravine's."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from typing import Any

from ravine.bench.peers import PEERS
from ravine.bench.population_peers import POPULATION_PEERS
from ravine.bench.works import POPULATIONS, WORKS
from ravine.errors import RavineError


@dataclass
class Timing:
    """Milliseconds per step (and member) of one competitor at one work."""

    peer: str
    work: str
    bf16: bool
    ms: list[float] = field(default_factory=list)  # of each epoch, the first round left out
    peak_mb: float = 0.0
    failed: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.ms) if self.ms else float("nan")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"median": self.median, "min": min(self.ms, default=float("nan"))}


class Worker:
    """A competitor's process."""

    def __init__(self, timing: Timing, threads: int):
        self.timing = timing
        own = "bf16" if timing.bf16 else "own"
        command = [
            sys.executable,
            "-m",
            "ravine.bench.worker",
            timing.peer,
            timing.work,
            own,
            str(threads),
        ]
        env = os.environ | {
            "KERAS_HOME": os.environ.get("KERAS_HOME", "/tmp/keras"),
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        self.stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115 (open as long as the process is)
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.stderr,
            text=True,
            env=env,
        )
        self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            self.stderr.seek(0)
            lines = self.stderr.read().strip().splitlines()
            raise RavineError(lines[-1] if lines else "it ended without a word")
        return json.loads(line)

    def take(self, epochs: int, steps: int, counts: bool) -> None:
        """Train for some epochs of so many steps; the first round warms up and does not count."""
        assert self.process.stdin
        if self.timing.failed:
            return
        try:
            print(epochs, file=self.process.stdin, flush=True)
            answer = self._answer()
        except (RavineError, BrokenPipeError) as error:
            self.timing.failed = str(error)
            return
        self.timing.peak_mb = answer["peak_mb"]
        if counts:
            self.timing.ms += [1e3 * seconds / steps for seconds in answer["seconds"]]

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.stderr.close()


def installed(peer: str) -> bool:
    return all(find_spec(name) for name in PEERS[peer][2])


def measure(
    works: Iterable[str],
    peers: Iterable[str],
    *,
    rounds: int = 5,
    threads: int = 2,
    bf16: bool = False,
    report: Callable[[str], None] = lambda text: None,
) -> list[Timing]:
    """Time the competitors that are installed; the first round of each warms up and is not
    counted."""
    found: list[Timing] = []
    for work in works:
        takes = [p for p in peers if installed(p) and _takes(p, work)]
        timings = [Timing(p, work, bf16 and p != "ravine") for p in takes]
        workers = _started(timings, threads)
        base = WORKS[POPULATIONS[work][0] if work in POPULATIONS else work]
        # convolutions under vmap take seconds a step
        epochs = 1 if work in POPULATIONS and len(base.shape) == 3 else base.epochs
        try:
            for number in range(rounds + 1):
                for worker in workers:
                    worker.take(epochs, base.steps, counts=number > 0)
        finally:
            for worker in workers:
                worker.close()
        for timing in timings:
            report(
                f"{work:16} {PEERS[timing.peer][0]:30} {timing.median:9.4f} ms {timing.peak_mb:7.0f} MB {timing.failed}"
            )
        found += timings
    return found


def _takes(peer: str, work: str) -> bool:
    """Populations are for those that train several at once; a member alone for all but them."""
    if work in POPULATIONS:
        return peer == "ravine" or peer in POPULATION_PEERS
    return peer not in POPULATION_PEERS or peer == "torch_compiled"


def _started(timings: list[Timing], threads: int) -> list[Worker]:
    workers = []
    for timing in timings:
        try:
            workers.append(Worker(timing, threads))
        except RavineError as error:
            timing.failed = str(error)
    return workers
