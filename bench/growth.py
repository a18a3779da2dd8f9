"""Do costs grow with the work? Whole commands, start to report, as one thing grows by 100.

    python bench/growth.py [members rows ...] [--sizes 3] [--out docs/pictures/growth.svg]

Each command runs in a process of its own. What counts is its processor time, so that a busy machine
changes little, and its peak memory. Both are a start that every command pays, and a part that grows
as size ** exponent; the exponent is fitted, and one above 1.1 fails. The figure shows all, with the
machine's memory as a line. Data that a command needs are made in the same process, and counted.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

LIMIT = 1.1
SMALL = {"seconds": 1.0, "megabytes": 40.0}  # growth that is lost in what every command pays
DIGITS = {"data": {"source": {"kind": "digits"}}}
BLOBS = {"data": {"source": {"kind": "blobs"}}}


# --- the commands, each of a size -----------------------------------------------------------------


def train(place: Path, *recipes: dict[str, Any], data: Any = None) -> None:
    from ravine import Recipe, train_many

    made = [Recipe(**{**recipe, "name": "growth"}) for recipe in recipes]
    runs = train_many(made, data=data, out=place / "run", quiet=True)
    assert all(run.result["steps"] for run in runs)


def members(size: int, place: Path) -> None:
    mlp = {"kind": "mlp", "hidden": [32]}
    train(place, *({**DIGITS, "model": mlp, "stop": {"after": "5ep"}, "seed": i} for i in range(size)))  # fmt: skip


def programs(size: int, place: Path) -> None:
    wide = [{"kind": "mlp", "hidden": [4 + i]} for i in range(size)]
    train(place, *({**BLOBS, "model": one, "stop": {"after": "20it"}} for one in wide))


def table(place: Path, rows: int, columns: int) -> dict[str, Any]:
    import pandas as pd

    rng = np.random.default_rng(0)
    made: dict[str, Any] = {}
    for i in range(columns):
        number = rng.normal(size=rows)
        kind = i % 4
        made[f"c{i}"] = (
            number.round(5) if kind < 2
            else [f"{x * 5000:,.2f}" for x in number] if kind == 2
            else rng.choice(["red", "green", "blue"], rows)
        )  # fmt: skip
    made["y"] = rng.normal(size=rows).round(4)
    pd.DataFrame(made).to_csv(place / "table.csv", index=False)
    return {"data": {"source": {"kind": "csv", "path": str(place / "table.csv"), "target": "y"}}}


def rows(size: int, place: Path) -> None:
    train(place, {**table(place, size, 12), "model": {"kind": "mlp"}, "stop": {"after": "1ep"}})


def columns(size: int, place: Path) -> None:
    train(place, {**table(place, 1000, size), "model": {"kind": "mlp"}, "stop": {"after": "20it"}})


def images(size: int, place: Path) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    for kind in range(2):
        (place / "images" / "ab"[kind]).mkdir(parents=True)
        for i in range(size // 2):
            pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / "images" / "ab"[kind] / f"{i}.png")
    folder = {"data": {"source": {"kind": "folder", "path": str(place / "images")}}}
    train(place, {**folder, "model": {"kind": "lenet"}, "stop": {"after": "1ep"}})


def parameters(size: int, place: Path) -> None:
    width = round(math.sqrt(size))
    mlp = {"kind": "mlp", "hidden": [width, width]}
    train(place, {**DIGITS, "model": mlp, "stop": {"after": "40it"}})


def depth(size: int, place: Path) -> None:
    mlp = {"kind": "mlp", "hidden": [16] * size}
    train(place, {**DIGITS, "model": mlp, "stop": {"after": "40it"}})


def steps(size: int, place: Path) -> None:
    train(place, {**DIGITS, "model": {"kind": "mlp"}, "stop": {"after": f"{size}it"}})


def epochs(size: int, place: Path) -> None:
    train(place, {**BLOBS, "model": {"kind": "softmax"}, "stop": {"after": f"{size}ep"}})


COMMANDS: dict[str, tuple[Callable[[int, Path], None], int]] = {  # and the largest size
    "members": (members, 3000),
    "programs": (programs, 200),
    "rows": (rows, 300_000),
    "columns": (columns, 2000),
    "images": (images, 20_000),
    "parameters": (parameters, 40_000_000),
    "depth": (depth, 300),
    "steps": (steps, 20_000),
    "epochs": (epochs, 2000),
}


# --- measuring ------------------------------------------------------------------------------------


def cost(name: str, size: int) -> dict[str, float]:
    """Processor seconds, seconds and peak megabytes of a command, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--one", name, str(size), folder]
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout
        answer = process.stdout.read()
        seconds = time.perf_counter() - began
        if process.wait():
            raise SystemExit(f"{name} of size {size} failed")
    return {"size": size, "wall": seconds, **json.loads(answer)}


def one(name: str, size: int, folder: str) -> None:
    """The command in this process."""
    import torch  # what every command pays first

    assert torch
    COMMANDS[name][0](size, Path(folder))
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(
        json.dumps({"seconds": used.ru_utime + used.ru_stime, "megabytes": used.ru_maxrss / 1024})
    )


def exponent(costs: list[dict[str, float]], what: str) -> float | None:
    """e of ``a + b size ** e``, through the three largest sizes, which are equally far apart; None
    where growth is lost in what every command pays."""
    low, middle, high = costs[-3:]
    first, second = middle[what] - low[what], high[what] - middle[what]
    if second < SMALL[what]:
        return None
    first = max(first, 0.05 * SMALL[what])
    return math.log(second / first) / math.log(high["size"] / middle["size"])


def measured(names: list[str], count: int) -> dict[str, list[dict[str, float]]]:
    found: dict[str, list[dict[str, float]]] = {}
    for name in names:
        largest = COMMANDS[name][1]
        sizes = [
            max(1, round(largest / 10 ** (2 * i / (count - 1)))) for i in reversed(range(count))
        ]
        found[name] = []
        for size in sizes:
            found[name].append(cost(name, size))
            print(name, json.dumps(found[name][-1]), flush=True)
    return found


# --- the figure -----------------------------------------------------------------------------------


def draw(found: dict[str, list[dict[str, float]]], path: Path) -> None:
    import matplotlib.pyplot as plt

    from ravine.machine import machine
    from ravine.report.figures import COLOURS, INK, style

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20
    with style():
        figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
        for axis, what, label in zip(
            axes, SMALL, ("processor time, s", "peak memory, MB"), strict=True
        ):
            for i, (name, costs) in enumerate(found.items()):
                fitted = exponent(costs, what)
                shown = "level" if fitted is None else f"{fitted:.2f}"
                axis.plot(
                    [c["size"] / costs[-1]["size"] for c in costs], [c[what] for c in costs],
                    marker="osD^vP*Xd"[i % 9], ms=4, color=COLOURS[i % len(COLOURS)],
                    label=f"{name} to {costs[-1]['size']:,}: {shown}",
                )  # fmt: skip
            axis.set(xscale="log", yscale="log", xlabel="size, in the largest", ylabel=label)
            axis.legend(fontsize=7)
        axes[1].axhline(memory, color=INK, lw=1, ls="--")
        axes[1].annotate("memory of the machine", (0.01, memory), fontsize=7, va="top")
        facts = machine()
        figure.supxlabel(
            f"{facts['cpu']}, {facts['cores']} cores; the numbers are exponents", fontsize=7
        )
        figure.savefig(path)
        plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=list(COMMANDS))
    parser.add_argument("--sizes", type=int, default=3, help="sizes over the factor of 100")
    parser.add_argument("--out", type=Path, help="where the figure goes, and its numbers beside it")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options.one[0], int(options.one[1]), options.one[2])
        return 0
    found = measured(options.names, options.sizes)
    if options.out:
        earlier = options.out.with_suffix(".json")
        before = json.loads(earlier.read_text()) if earlier.exists() else {}
        found = {
            name: {**before, **found}[name] for name in COMMANDS if name in {**before, **found}
        }
        earlier.write_text(json.dumps(found, indent=1))
        draw(found, options.out)
    failed = False
    for name, costs in found.items():
        fitted = {what: exponent(costs, what) for what in SMALL}
        over = [what for what, e in fitted.items() if e is not None and e > LIMIT]
        failed |= bool(over)
        shown = ", ".join(f"{w} {'level' if e is None else f'{e:.2f}'}" for w, e in fitted.items())
        print(f"{name:12} {shown}{'   GROWS FASTER: ' + ', '.join(over) if over else ''}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
