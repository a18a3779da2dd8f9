"""Sound programs on data that are in every installation, and whether the doctor raises an alarm.

    python bench/sound.py [--only WORD …] [--seeds N] [--json]

Each program is one that people would call good: it is examined as ``ravine doctor RECIPE`` does it,
and where that is uncertain its whole plan is run and judged. An alarm is the verdict ``sick``.
Data: scikit-learn's digits, iris, wine, breast cancer and diabetes; made customers, text and
spirals; Ravine's own synthetic sources. ``--mnist`` adds programs on MNIST (``RAVINE_DATA``).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from planted import CLASSES, Program, chars, digits, mnist, regressions, table, text
from sklearn import datasets

from ravine import Recipe
from ravine.doctor.examination import examine, follow

SETS: dict[str, Callable[..., Any]] = {
    "iris": datasets.load_iris,
    "wine": datasets.load_wine,
    "breast cancer": datasets.load_breast_cancer,
    "diabetes": datasets.load_diabetes,
}
OPTIMIZERS: dict[str, Any] = {
    "adam": {"kind": "adam", "lr": 3e-3},
    "sgd with momentum": {"kind": "sgd", "lr": 0.05, "momentum": 0.9},
    "rmsprop": {"kind": "rmsprop", "lr": 1e-3},
}


def programs(with_mnist: bool = False) -> Iterator[tuple[str, Program]]:
    """Every sound program by its name."""
    yield from _tables()
    yield from _planted_twins(with_mnist)
    yield from _own_sources()


def _tables() -> Iterator[tuple[str, Program]]:
    """A small network for each of scikit-learn's tables, with three optimisers."""
    for name, load in SETS.items():
        x, y = load(return_X_y=True)
        numbers = name == "diabetes"
        preprocess: list[Any] = ["standardize"]
        if numbers:
            preprocess.append({"kind": "standardize", "of": "targets"})
        arrays = x.astype(np.float32), (y[:, None].astype(np.float32) if numbers else y)
        for kind, optimizer in OPTIMIZERS.items():
            data = {"source": "arrays", "batch": 16, "preprocess": preprocess}
            recipe = Recipe(
                data=data,
                model={"kind": "mlp", "hidden": [16]},
                optimizer=optimizer,
                stop={"after": "60ep", "patience": "15ep"},
                threads=1,
            )
            yield f"{name}, {kind}", Program(recipe, arrays)


def _planted_twins(with_mnist: bool) -> Iterator[tuple[str, Program]]:
    """The tasks of planted faults as they are, and with what is usual in good programs."""
    for name, task in {**CLASSES, "chars": chars}.items():
        if name == "mnist" and not with_mnist:
            continue
        yield name, task()
    for name, task in regressions().items() if with_mnist else ():
        yield f"{name}, regression", task
    schedule = {"schedule": {"kind": "cosine"}}
    for task in (digits, table, text):
        yield f"{task.__name__}, cosine", task().edit(schedule)
        yield (
            f"{task.__name__}, weight decay",
            task().edit({"optimizer": {"kind": "adamw", "lr": 3e-3, "weight_decay": 0.01}}),
        )
        layers = task().layers
        dropped = [*layers[:-1], {"kind": "dropout", "rate": 0.3}, layers[-1]]
        yield f"{task.__name__}, dropout", task().edit({"model.layers": dropped})
        yield f"{task.__name__}, batch 16", task().edit({"data.batch": 16, "optimizer.lr": 1e-3})
    if with_mnist:
        yield "mnist, shifted", mnist().edit({"data.augment": [{"kind": "shift", "pixels": 1}]})


def _own_sources() -> Iterator[tuple[str, Program]]:
    for source, hidden in (("blobs", 16), ("circles", 32), ("digits", 64)):
        for batch in (16, 32):
            recipe = Recipe(
                data={"source": source, "batch": batch, "preprocess": ["standardize"]},
                model={"kind": "mlp", "hidden": [hidden, hidden]},
                optimizer={"kind": "adam", "lr": 3e-3},
                stop={"after": "40ep", "patience": "10ep"},
                threads=1,
            )
            yield f"{source}, batch {batch}", Program(recipe, None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", nargs="*", default=[], help="words of programs")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--mnist", action="store_true", help="programs on MNIST too")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    asked = parser.parse_args()
    rows = []
    for name, program in programs(asked.mnist):
        if asked.only and not any(word in name for word in asked.only):
            continue
        for seed in range(asked.seeds):
            began = time.monotonic()
            recipe = program.recipe.edit({"seed": 1000 * seed, "data.seed": seed})
            found = examine(recipe, arrays=program.arrays)
            if found.verdict == "uncertain":
                found = follow(recipe, arrays=program.arrays)
            row = {
                "program": name,
                "seed": seed,
                "verdict": found.verdict,
                "codes": found.codes,
                "why": found.why,
                "seconds": round(time.monotonic() - began, 1),
            }
            rows.append(row)
            mark = f"  <-- {', '.join(found.codes)}" if found.verdict == "sick" else ""
            print(f"{name:<36} {seed} {found.verdict:<9} {found.why}{mark}", flush=True)
    alarms = [f"{row['program']}#{row['seed']}" for row in rows if row["verdict"] == "sick"]
    summary = {"programs": len(rows), "alarms": alarms, "share": len(alarms) / max(1, len(rows))}
    print(json.dumps({"summary": summary, "rows": rows} if asked.json else summary))


if __name__ == "__main__":
    sys.exit(main())
