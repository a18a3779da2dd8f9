"""What several ranks gain on this machine: the time of a step on one process and on two, and what the
sum of the gradients takes. ``python bench/ranks.py`` prints the table of docs/scale.md.

One process and two take turns, in one run, and the least of the rounds counts, so that other work on the
machine disturbs both.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

ROUNDS, SECONDS = 6, 0.3
CASES = {
    "dense 64-256-256-10": {"data": {"batch": 128}, "model": {"kind": "mlp", "hidden": [256, 256]}},
    "dense 64-1024-1024-10": {
        "data": {"batch": 512},
        "model": {"kind": "mlp", "hidden": [1024, 1024]},
    },
    "ResNet-8, width 16": {
        "data": {"batch": 128},
        "model": {"kind": "resnet", "depth": 8, "width": 16},
    },
    "ResNet-8, width 64": {
        "data": {"batch": 32},
        "model": {"kind": "resnet", "depth": 8, "width": 64},
    },
    "ResNet-8, width 16, statistics of each rank": {
        "data": {"batch": 128},
        "model": {"kind": "resnet", "depth": 8, "width": 16},
        "ranks": {"sync_batch_norm": False},
    },
    "LSTM, 2 x 128": {
        "data": {"source": {"kind": "adding", "samples": 4096, "length": 32}, "batch": 128},
        "model": {"kind": "lstm", "units": 128, "layers": 2},
    },
}


def measure(fields: dict) -> None:
    import torch
    import torch.distributed as dist

    from ravine import Recipe
    from ravine.engine.loop.loop import TrainingLoop
    from ravine.engine.loop.record import Memory
    from ravine.engine.programs import programs_of
    from ravine.engine.ranks import divide
    from ravine.engine.ranks.ranks import ALONE, joined

    recipe = Recipe(**fields, threads=1, precision="float32", stop={"after": "100000it"})
    ranks = joined(recipe)
    loops = {}
    for name, each in (("one", ALONE), ("two", ranks), ("within", ranks)):
        divide.OVERLAPPED = 0 if name == "within" else 1 << 62
        program = divide.divided(programs_of([recipe])[0], each)
        loops[name] = TrainingLoop(program, Memory(), ranks=each, sparing=True)
        if each is ranks or ranks.writes:
            loops[name].advance(5)
    best = dict.fromkeys((*loops, "sum"), float("inf"))
    grad = loops["two"].population.grad.clone()
    for _ in range(ROUNDS):
        for name in loops:
            steps = ranks.decide(lambda: max(1, int(SECONDS / min(best["one"], 0.05))))
            dist.barrier()
            began = time.perf_counter()
            if name != "one" or ranks.writes:
                loops[name].advance(loops[name].step + steps)
            dist.barrier()
            best[name] = min(best[name], (time.perf_counter() - began) / steps)
        began = time.perf_counter()
        for _ in range(10):
            ranks.add(grad, torch.zeros(1))
        best["sum"] = min(best["sum"], (time.perf_counter() - began) / 10)
    if ranks.writes:
        one, two, within, summed = (1e3 * best[name] for name in ("one", "two", "within", "sum"))
        plain = loops["within"].population.buckets is None
        last = "" if plain else f"{within:.1f}"
        found = f"{grad.numel():,} | {one:.1f} | {two:.1f} | {one / two:.2f}"
        print(f"{found} | {one / two / 2:.0%} | {summed:.2f} | {last}", flush=True)


def main() -> None:
    from ravine.machine import machine

    print(machine())
    print(
        "| network | parameters | ms a step, 1 rank | 2 ranks | gain | efficiency | ms of the sum "
        "| 2 ranks, the sum within the backward pass |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name in CASES:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", "2", str(Path(__file__)), name]
        done = subprocess.run(command, capture_output=True, text=True)
        print(f"| {name} | {done.stdout.strip() or done.stderr[-500:]} |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(CASES[sys.argv[1]])
    else:
        main()
