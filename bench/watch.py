"""What watching costs: a hand-written loop with and without ``ravine.watch``, and ``ravine.train``
with and without the doctor.

    python bench/watch.py            # three networks, processor time, both sides in turn
    python bench/watch.py --json

Processor seconds of the process on one thread; the ratio is of watched to unwatched.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

import ravine
from ravine.bench.works import WORKS, arrays

STEPS = {"small_mlp": 10_000, "mnist_mlp": 2000, "lenet": 100}
BLOCKS = 100  # of a loop, in which both sides take turns


def loop(name: str, watched: bool) -> Callable[[int], float]:
    """A loop written by hand; it takes so many steps and answers their processor seconds."""
    work = WORKS[name]
    x, y = map(torch.from_numpy, arrays(work))
    torch.manual_seed(0)
    model = work.torch()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    watch = ravine.watch(model, optimizer) if watched else None
    taken = 0

    def run(steps: int) -> float:
        nonlocal taken
        began = time.process_time()
        for step in range(taken, taken + steps):
            rows = torch.arange(work.batch) + (step % work.steps) * work.batch
            loss = cross_entropy(model(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if watch is not None:
                watch.step(loss)
        taken += steps
        return time.process_time() - began

    return run


def training(name: str, watched: bool) -> Callable[[], float]:
    """Processor seconds of a whole ``ravine.train``."""
    work = WORKS[name]
    data = arrays(work)
    epochs = max(1, STEPS[name] // work.steps)
    place = Path(tempfile.mkdtemp())

    def run() -> float:
        began = time.process_time()
        said: dict[str, Any] = {
            "epochs": epochs,
            "batch": work.batch,
            "validation": 0.0,
            "test": 0.0,
            "threads": 1,
        }
        out = place / str(len(list(place.iterdir())))
        ravine.train(
            model=work.model,
            data=data,
            out=out,
            quiet=True,
            doctor=watched,
            precision="float32",
            **said,
        )
        return time.process_time() - began

    return run


def whole(name: str, rounds: int) -> dict[str, float]:
    """The least seconds of each side, both in turn; the first round warms up."""
    off, on = training(name, False), training(name, True)
    pairs = [(off(), on()) for _ in range(rounds + 1)][1:]
    return both(min(a for a, _ in pairs), min(b for _, b in pairs))


def looped(name: str, rounds: int) -> dict[str, float]:
    """Seconds of two loops that are run side by side, a hundredth of the steps in turn: so both meet the same
    minutes of a machine that is faster now and slower then. The mean of the rounds."""
    sums = [0.0, 0.0]
    for number in range(rounds + 1):
        sides = [loop(name, watched) for watched in (False, True)]
        for block in range(BLOCKS):
            for side in (0, 1) if block % 2 else (1, 0):
                seconds = sides[side](STEPS[name] // BLOCKS)
                sums[side] += seconds / rounds if number else 0.0  # the first warms up
    return both(*sums)


def both(off: float, on: float) -> dict[str, float]:
    """Two figures and their ratio."""
    return {"without s": off, "with s": on, "ratio": on / off}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in STEPS:
        for what, make in (
            ("ravine.watch in a loop", looped),
            ("ravine.train and the doctor", whole),
        ):
            found = make(name, options.rounds)
            rows.append({"network": WORKS[name].title, "what": what, **found})
            if not options.json:
                seconds = (
                    f"{found['without s']:8.3f} s {found['with s']:8.3f} s  {found['ratio']:.3f}"
                )
                print(f"{WORKS[name].title:34} {what:28} {seconds}", flush=True)
    if options.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
