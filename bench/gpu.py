"""What an accelerator gives: populations, small networks, optimiser formulas, and CIFAR-10 to 90
and 94 %.

    python bench/gpu.py                    # on the GPU of this machine
    python bench/gpu.py --device cpu --small   # the same code at toy sizes, to see that it runs

Each line of output is one JSON object with the device and the versions.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ravine import Recipe, train_many
from ravine.bench.works import WORKS, Work, arrays
from ravine.catalogue import make
from ravine.layout import Layout
from ravine.machine import machine, versions
from ravine.optim.rows.optimizer import RowOptimizer
from ravine.rundir import RunDir

FUSED = ("sgd", "adam", "adamw", "adagrad")
OTHERS = ("rmsprop", "nadam", "lamb")


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(step: Callable[[], Any], device: str, repeats: int) -> float:
    """Median seconds of a call, after three that warm up."""
    times = []
    for number in range(repeats + 3):
        wait(device)
        began = time.perf_counter()
        step()
        wait(device)
        times += [time.perf_counter() - began] if number >= 3 else []
    return statistics.median(times)


def written_by_hand(work: Work, device: str, compiled: bool) -> Callable[[], None]:
    """A step of a hand-written loop: indexed tensors on the device, bfloat16 autocast, fused Adam;
    compiled or eager."""
    model: Any = work.torch().to(device)
    inputs, targets = (torch.from_numpy(a).to(device) for a in arrays(work))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    run = torch.compile(model, mode="reduce-overhead") if compiled else model
    rows = iter(torch.randperm(work.samples, device=device).split(work.batch))

    def step() -> None:
        nonlocal rows
        chosen = next(rows, None)
        if chosen is None:
            rows = iter(torch.randperm(work.samples, device=device).split(work.batch))
            chosen = next(rows)
        with torch.autocast(device, torch.bfloat16):
            loss = cross_entropy(run(inputs[chosen]), targets[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def with_ravine(work: Work, members: int, device: str, epochs: int) -> tuple[float, dict[str, Any]]:
    """Seconds per member and step, of the epochs after the first, and the execution record."""
    data = {"batch": work.batch, "validation": 0.0, "test": 0.0}
    said = {"data": data, "model": work.model, "device": device, "stop": {"after": f"{epochs}ep"}}
    with tempfile.TemporaryDirectory() as folder:
        recipes = [Recipe(seed=seed, **said) for seed in range(members)]
        run = train_many(recipes, data=arrays(work), out=Path(folder) / "run", quiet=True)[0]
        ends = [row["seconds"] for row in RunDir.open(run.directory).epochs(0, clock=True)]
        record = run.events_of("execution")[0]["data"]
    return (ends[-1] - ends[0]) / (len(ends) - 1) / work.steps / members, record


def populations(device: str, small: bool) -> Iterator[dict[str, Any]]:
    """64 LeNets together, against one after another by hand; a small network alone, against
    eager."""
    for name, members in (
        ("lenet", 4 if small else 64),
        ("small_mlp", 1),
        ("mnist_mlp", 1),
        ("lenet", 1),
    ):
        work = WORKS[name]
        ours, record = with_ravine(work, members, device, 2 if small else 6)
        hand = {
            how: seconds(written_by_hand(work, device, compiled), device, 3 if small else 200)
            for how, compiled in (("eager", False), *([] if small else [("compiled", True)]))
        }
        yield {
            "what": f"{members} x {work.title}",
            "ms_per_member_and_step": 1e3 * ours,
            "execution": record,
            **{f"by_hand_{how}_ms": 1e3 * s for how, s in hand.items()},
            **{f"ratio_to_{how}": s / ours for how, s in hand.items()},
        }


def bandwidth(device: str, small: bool) -> Iterator[dict[str, Any]]:
    """Each formula on [1, 25 M] and [25, 1 M]: bytes of weights, gradient and slots a second,
    against a device copy."""
    million = 10_000 if small else 1_000_000
    source = torch.randn(25 * million, device=device)
    copied = torch.empty_like(source)
    copy = 2 * source.nbytes / seconds(lambda: copied.copy_(source), device, 5 if small else 50)
    for rows, columns in ((1, 25 * million), (25, million)):
        layout = Layout.of([("w", (columns,), "weight", 0)])
        for kind in (*FUSED, *OTHERS):
            part = make("optimizer", {"kind": kind, "lr": 1e-3})
            optimizer = RowOptimizer([part] * rows, layout, device=device, dtype=torch.float32)
            theta, grad = torch.randn(2, rows, columns, device=device)
            ones = torch.ones(rows, device=device, dtype=torch.float64)
            step = partial(optimizer.step, theta, grad, ones * 1e-3, ones.bool(), ones)
            taken = seconds(step, device, 5 if small else 30)
            slots = sum(slot.nbytes for slot in optimizer.state().values())
            moved = (
                3 * theta.nbytes + 2 * slots
            )  # weights read and written, gradient read, slots read and written
            row = {
                "what": f"{kind} on [{rows}, {columns}]",
                "ms": 1e3 * taken,
                "share_of_copy": moved / taken / copy,
            }
            yield (
                row | {"fused_ms": 1e3 * _fused(kind, theta, grad, device, small)}
                if kind in FUSED
                else row
            )


def _fused(kind: str, theta: Tensor, grad: Tensor, device: str, small: bool) -> float:
    parameters = [nn.Parameter(row.clone()) for row in theta]
    for parameter, gradient in zip(parameters, grad, strict=True):
        parameter.grad = gradient
    classes = {
        "sgd": torch.optim.SGD,
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "adagrad": torch.optim.Adagrad,
    }
    try:
        optimizer = classes[kind](parameters, lr=1e-3, fused=True)
        return seconds(optimizer.step, device, 5 if small else 30)
    except RuntimeError:  # this version has no fused kernel of it on this device
        return float("nan")


def cifar(device: str, small: bool) -> Iterator[dict[str, Any]]:
    """A residual network as wide as ResNet-18 (20 layers, 64 to 256 maps) on CIFAR-10 until 90 and
    94 %."""
    augment = (
        [{"kind": "shift", "pixels": 1}]
        if small
        else [{"kind": "flip"}, {"kind": "crop", "padding": 4}]
    )
    recipe = Recipe(
        data={"source": "digits" if small else "cifar10", "batch": 512, "augment": augment},
        device=device,
        model={"kind": "resnet", "depth": 8 if small else 20, "width": 4 if small else 64},
        loss={"kind": "cross_entropy", "label_smoothing": 0.1},
        schedule={"kind": "one_cycle"},
        optimizer={
            "kind": "sgd",
            "lr": 0.2,
            "momentum": 0.9,
            "nesterov": True,
            "weight_decay": 5e-4,
        },
        stop={"after": "1ep" if small else "30ep"},
    )
    with tempfile.TemporaryDirectory() as folder:
        run = train_many([recipe], out=Path(folder) / "run", quiet=True)[0]
        rows = RunDir.open(run.directory).epochs(0, clock=True)
        reached = {
            f"seconds_to_{goal}": next(
                (row["seconds"] for row in rows if row.get("val_accuracy", 0) >= goal / 100), None
            )
            for goal in (90, 94)
        }
        what = f"{recipe.model.kind} on {recipe.data.source.kind}"
        yield {"what": what, **reached, "test_accuracy": run.result.get("test_accuracy")}


PARTS = {"populations": populations, "bandwidth": bandwidth, "cifar": cifar}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--small", action="store_true", help="toy sizes")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("no GPU on this machine: --device cpu --small runs the same code at toy sizes")
    facts = {**machine(), **versions(["torch"])}
    for part in options.parts:
        for row in PARTS[part](options.device, options.small):
            print(json.dumps({"part": part, **row, "machine": facts}), flush=True)


if __name__ == "__main__":
    main()
