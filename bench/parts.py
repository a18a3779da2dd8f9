"""What two choices of the engine save on this machine: parts of a recurrent batch side by side, and
denormal numbers as zero.

    python bench/parts.py

Milliseconds of a gradient of one network, batches of 128 with 28 steps of 28 numbers, medians of
turns: by all threads together, and in parts, one for each thread. Then Adam's step over 1.7 million
weights a quarter of whose momentum is denormal.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ravine.bench.works import WORKS
from ravine.catalogue import make
from ravine.data.pipeline import Pipeline
from ravine.engine.execution.denormals import denormals_flushed
from ravine.engine.execution.device import kernel_threads
from ravine.engine.execution.memory import keep_freed_memory
from ravine.engine.programs import populate
from ravine.engine.rows.ways import Arithmetic, OneByOne, Parts, Way
from ravine.layout import Layout
from ravine.optim.rows.optimizer import RowOptimizer
from ravine.recipe import Recipe

WIDTH, TURNS = 1_663_370, 15  # LeNet's weights; turns of each way


def milliseconds(ways: Sequence[Callable[[], Any]], each: int) -> list[float]:
    """The ways take turns; the median of each, a turn being so many calls after one that warms
    up."""
    found: list[list[float]] = [[] for _ in ways]
    for _ in range(TURNS):
        for way, seconds in zip(ways, found, strict=True):
            way()
            began = time.perf_counter()
            for _ in range(each):
                way()
            seconds.append((time.perf_counter() - began) / each)
    return [1e3 * statistics.median(seconds) for seconds in found]


def recurrent(kind: str, units: int, bfloat16: bool) -> list[float]:
    """Of a gradient by all threads together, and in parts."""
    work, threads = WORKS["lstm"], torch.get_num_threads()
    recipe = Recipe(
        model={"layers": [{"kind": kind, "units": units}, {"kind": "dense", "units": 10}]},
        data={"batch": work.batch},
    )
    x, y = torch.randn(2 * work.batch, *work.shape), torch.arange(2 * work.batch) % 10
    pipeline = Pipeline(recipe.data, arrays=(x.numpy(), y.numpy()))
    rows = populate([recipe], pipeline, None, device=torch.device("cpu"), dtype=torch.float32)

    arithmetic = Arithmetic(torch.bfloat16 if bfloat16 else None, threads=threads)

    def gradient(kind: type[Way]) -> Callable[[], Any]:
        way = kind(rows, arithmetic)

        def run() -> None:
            with kernel_threads(1 if kind.own_threads else threads):
                way.gradients(x[: work.batch], y[: work.batch], None, 0)

        return run

    return milliseconds([gradient(OneByOne), gradient(Parts)], each=8)


def adam(flushed: bool) -> float:
    """Of a step, where a quarter of the momentum has decayed to the least denormal."""
    layout = Layout.of([("w", (WIDTH,), "weight", 0)])
    optimizer = RowOptimizer([make("optimizer", "adam")], layout, device="cpu", dtype=torch.float32)
    theta, grad, one = (
        torch.randn(1, WIDTH),
        torch.randn(1, WIDTH) / 100,
        torch.ones(1, dtype=torch.float64),
    )
    grad[:, ::4] = 0
    momentum = next(iter(optimizer.state().values()))
    momentum[:, ::4] = 1e-44
    with denormals_flushed() if flushed else contextlib.nullcontext():
        return milliseconds(
            [lambda: optimizer.step(theta, grad, 1e-3 * one, one.bool(), one)], each=20
        )[0]


def main() -> None:
    keep_freed_memory()
    print(f"{'':24} {'together':>9} {'in parts':>9} {'ratio':>6}")
    for bfloat16 in (True, False):
        for kind in ("rnn", "lstm", "gru"):
            for units in (32, 64, 128):
                together, parts = recurrent(kind, units, bfloat16)
                name = f"{kind} {units}, {'bfloat16' if bfloat16 else 'float32'}"
                print(f"{name:24} {together:9.2f} {parts:9.2f} {together / parts:6.2f}", flush=True)
    kept, zero = adam(False), adam(True)
    print(f"Adam, a quarter of the momentum denormal: {kept:.2f} ms, as zero {zero:.2f} ms")


if __name__ == "__main__":
    main()
