"""The optimiser step: every formula against PyTorch's own optimiser, and against the machine's
memory bandwidth.

    python bench/optimizers.py                      # [1, 25 M], [25, 1 M] and 100 members of a small network
    python bench/optimizers.py --million 4 --kinds adam,rmsprop

A step reads w, g and the slots once and writes w and the slots once; that traffic over its time, as
a part of what a plain copy of the same size reaches in the same run, is the last column. PyTorch's
side is its fused step where it has one, its default (foreach) where not, with one parameter a
member. Times are the least of several repeats, both sides interleaved.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ravine.catalogue import make, table
from ravine.layout import Layout
from ravine.machine import machine
from ravine.optim.rows.optimizer import RowOptimizer

FUSED = {"fused": True}
THEIRS: dict[str, tuple[Any, dict[str, Any]]] = {
    "sgd": (torch.optim.SGD, FUSED),
    "momentum": (torch.optim.SGD, {"momentum": 0.9, **FUSED}),
    "nesterov": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True, **FUSED}),
    "adam": (torch.optim.Adam, FUSED),
    "adamw": (torch.optim.AdamW, FUSED),
    "amsgrad": (torch.optim.Adam, {"amsgrad": True, **FUSED}),
    "adagrad": (torch.optim.Adagrad, FUSED),
    "adadelta": (torch.optim.Adadelta, {}),
    "rmsprop": (torch.optim.RMSprop, {}),
    "adamax": (torch.optim.Adamax, {}),
    "nadam": (torch.optim.NAdam, {}),
    "radam": (torch.optim.RAdam, {}),
    "rprop": (torch.optim.Rprop, {}),
}


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(step: Callable[[], object], device: torch.device, at_least: float = 0.05) -> float:
    """The time of one call, over as many as take a while."""
    count, elapsed = 1, 0.0
    while elapsed < at_least:
        synchronize(device)
        began = time.perf_counter()
        for _ in range(count):
            step()
        synchronize(device)
        elapsed = time.perf_counter() - began
        count = (
            max(count * 2, int(count * at_least / max(elapsed, 1e-9)))
            if elapsed < at_least
            else count
        )
    return elapsed / count


def ours(
    kind: str, theta: Tensor, grad: Tensor, options: dict[str, Any]
) -> tuple[Callable[[], None], RowOptimizer]:
    p, d = theta.shape
    layout = Layout.of([("w", (d,), "weight", 0)])
    optimizer = RowOptimizer(
        [make("optimizer", kind)] * p, layout, device=theta.device, dtype=theta.dtype, **options
    )
    lr = torch.full((p,), 1e-6, dtype=torch.float64, device=theta.device)
    alive, t = torch.ones(p, dtype=torch.bool, device=theta.device), torch.full_like(lr, 10.0)
    return lambda: optimizer.step(theta, grad, lr, alive, t), optimizer


def theirs(kind: str, theta: Tensor, grad: Tensor) -> Callable[[], None] | None:
    if kind not in THEIRS:
        return None
    parameters = [torch.nn.Parameter(row) for row in theta]
    for parameter, row in zip(parameters, grad, strict=True):
        parameter.grad = row
    optimizer, arguments = THEIRS[kind]
    return optimizer(parameters, lr=1e-6, **arguments).step


def measure(
    kind: str, p: int, d: int, device: torch.device, repeats: int, options: dict[str, Any]
) -> list[Any]:
    theta, grad = torch.rand(p, d, device=device), torch.rand(p, d, device=device)
    here, optimizer = ours(kind, theta, grad, options)
    there = theirs(kind, theta, grad)
    here()
    slots = sum(slot.numel() for slot in optimizer.state().values()) / (p * d)
    target = torch.empty_like(theta)
    calls = {
        "ours": here,
        "copy": lambda: target.copy_(theta),
        **({"theirs": there} if there else {}),
    }
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(repeats):
        for name, call in calls.items():
            best[name] = min(best[name], seconds(call, device))
    traffic = (3 + 2 * slots) * 4 * p * d  # bytes: w, g, slots read; w, slots written
    return [
        kind,
        best["ours"],
        best.get("theirs"),
        traffic / best["ours"],
        8 * p * d / best["copy"],
    ]


def report(rows: list[list[Any]]) -> None:
    print(
        f"{'kind':<10} {'ours ms':>9} {'PyTorch ms':>11} {'ratio':>6} {'GB/s':>7} {'copy GB/s':>10} {'of copy':>8}"
    )
    for kind, own, other, rate, copy in rows:
        compared = f"{1e3 * other:11.3f} {other / own:6.2f}" if other else f"{'-':>11} {'-':>6}"
        print(
            f"{kind:<10} {1e3 * own:9.3f} {compared} {rate / 1e9:7.1f} {copy / 1e9:10.1f} {rate / copy:8.0%}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--million", type=float, default=25.0, help="parameters of the large case, in millions"
    )
    parser.add_argument("--kinds", default=",".join(table("optimizer")))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compiled", action="store_true", help="formulas through torch.compile")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    device = torch.device(chosen.device)
    name = machine()["gpu" if device.type == "cuda" else "cpu"]
    print(
        f"PyTorch {torch.__version__}, {name}, {chosen.threads} threads, float32, least of {chosen.repeats}"
    )
    options = {"compiled": True} if chosen.compiled else {}
    large = int(chosen.million * 1e6)
    for p, d in ((1, large), (25, large // 25), (100, 2410)):
        print(f"\n[{p}, {d:,}]")
        kinds = chosen.kinds.split(",")
        report([measure(kind, p, d, device, chosen.repeats, options) for kind in kinds])


if __name__ == "__main__":
    main()
