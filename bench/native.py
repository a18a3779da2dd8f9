"""A step's gradient of dense networks by the compiled function, by the passes of `Dense` in float32, and by
these in bfloat16; all take turns, and the least time of each counts.

    python bench/native.py [--threads 1]

On one thread it is processor time, which other programs on the machine change little.
"""

from __future__ import annotations

import argparse
import math
import time

import torch

import ravine  # noqa: F401  # it sets how long threads wait, before torch starts them
from ravine.engine.rows.population import Objective, Population
from ravine.engine.rows.ways import Arithmetic, Dense, Native
from ravine.nn.build import build, build_loss

BATCH, CLASSES, ROUNDS = 128, 10, 15
NETWORKS = [  # inputs, hidden units, members
    (64, (32,), 1),
    (64, (32,), 25),
    (64, (32,), 100),
    (784, (256, 256), 1),
    (784, (256, 256), 25),
    (784, (1024, 1024), 1),
]


def population(inputs: int, hidden: tuple[int, ...], members: int) -> Population:
    fields = {"kind": "mlp", "hidden": list(hidden)}
    nets = [build(fields, (inputs,), CLASSES, seed=i, dtype=torch.float32) for i in range(members)]
    rows = [Objective(net, build_loss("cross_entropy", "classification")) for net in nets]
    return Population(rows, range(members), device=torch.device("cpu"), dtype=torch.float32)


def milliseconds(inputs: int, hidden: tuple[int, ...], members: int, threads: int) -> list[float]:
    rows = population(inputs, hidden, members)
    x, y = torch.randn(BATCH, inputs), torch.randint(CLASSES, (BATCH,))
    ways = [
        Native(rows, Arithmetic(threads=threads)),
        Dense(rows),
        Dense(rows, Arithmetic(products=torch.bfloat16)),
    ]
    if not ways[0].possible:
        raise SystemExit("the compiled function needs GCC, and a PyTorch with MKL")
    clock = time.process_time if threads == 1 else time.perf_counter
    steps = max(2, round(4e7 / (members * inputs * hidden[0] * BATCH)))
    found = [math.inf] * len(ways)
    for _ in range(ROUNDS):
        for i, way in enumerate(ways):
            began = clock()
            for _ in range(steps):
                way.gradients(x, y, None, 0)
            found[i] = min(found[i], 1e3 * (clock() - began) / steps)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    threads = parser.parse_args().threads
    torch.set_num_threads(threads)
    print(f"milliseconds, {threads} thread{'s' * (threads > 1)}, batch {BATCH}")
    print(
        f"{'network':24}{'members':>8}{'native':>9}{'dense':>9}{'bfloat16':>9}{'dense/native':>13}"
    )
    for inputs, hidden, members in NETWORKS:
        native, dense, low = milliseconds(inputs, hidden, members, threads)
        name = "-".join(map(str, (inputs, *hidden, CLASSES)))
        print(f"{name:24}{members:8}{native:9.3f}{dense:9.3f}{low:9.3f}{dense / native:13.2f}")


if __name__ == "__main__":
    main()
