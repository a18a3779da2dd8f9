"""A step's gradient of convolutional networks with batch norm, ReLU and pooling by compiled functions, and by
PyTorch's; they take turns, and the least time of each counts.

    python bench/elementwise.py [--threads 1] [--rounds 10]

On one thread it is processor time, which other programs on the machine change less than they change the clock's.
"""

from __future__ import annotations

import argparse
import math
import time

import torch

import ravine  # noqa: F401  # it sets how long threads wait, before torch starts them
from ravine.bench.works import BATCH, WORKS
from ravine.engine.execution.memory import keep_freed_memory
from ravine.engine.rows.population import Objective, Population
from ravine.engine.rows.ways import Arithmetic, OneByOne
from ravine.nn.build import build, build_loss

NETWORKS = ("lenet", "resnet20")


def milliseconds(name: str, products: torch.dtype | None, threads: int, rounds: int) -> list[float]:
    """With PyTorch's functions, and with ours."""
    work = WORKS[name]
    net = build(work.model, work.shape, work.classes, seed=0, dtype=torch.float32)
    rows = Population(
        [Objective(net, build_loss("cross_entropy", "classification"))],
        [0],
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    x, y = torch.randn(BATCH, *work.shape), torch.randint(work.classes, (BATCH,))
    ways = [
        OneByOne(rows, Arithmetic(products, torch.channels_last, threads, joined=joined))
        for joined in (False, True)
    ]
    clock = time.process_time if threads == 1 else time.perf_counter
    found = [math.inf] * len(ways)
    for _ in range(rounds + 1):
        for i, way in enumerate(ways):
            began = clock()
            way.gradients(x, y, None, 0)
            found[i] = min(found[i], 1e3 * (clock() - began))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=10)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    keep_freed_memory()
    print(f"milliseconds, {given.threads} thread{'s' * (given.threads > 1)}, batch {BATCH}")
    print(f"{'network':12}{'products':>10}{'PyTorch':>10}{'compiled':>10}{'ratio':>8}")
    for name in NETWORKS:
        for label, products in (("float32", None), ("bfloat16", torch.bfloat16)):
            plain, ours = milliseconds(name, products, given.threads, given.rounds)
            print(f"{name:12}{label:>10}{plain:10.1f}{ours:10.1f}{plain / ours:8.2f}", flush=True)


if __name__ == "__main__":
    main()
