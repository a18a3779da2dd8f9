"""Sound programs on data that are in every installation, and whether the doctor raises an alarm.

    python bench/sound.py [--only WORD …] [--seeds N] [--json]

Each program is one that people would call good: it is examined as ``ravine doctor RECIPE`` does it,
and where that is uncertain its whole plan is run and judged. An alarm is the verdict ``sick``.
Data: scikit-learn's digits, iris, wine, breast cancer and diabetes; made customers, text and
spirals; Ravine's own synthetic sources; the starters of ``ravine train`` for tables and images.
``--data`` adds programs on MNIST, photographs of CIFAR-10 and Shakespeare (``RAVINE_DATA``).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from planted import CLASSES, Program, chars, digits, mnist, regressions, table, text
from published_data import data_folder
from sklearn import datasets

from ravine import Recipe
from ravine.doctor.examination import examine, follow
from ravine.starters.start import start

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


def programs(with_data: bool = False) -> Iterator[tuple[str, Program]]:
    """Every sound program by its name."""
    yield from _tables()
    yield from _planted_twins(with_data)
    yield from _own_sources()
    yield from _noisy()
    yield from _starters(with_data)


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


def _planted_twins(with_data: bool) -> Iterator[tuple[str, Program]]:
    """The tasks of planted faults as they are, and with what is usual in good programs."""
    for name, task in {**CLASSES, "chars": chars}.items():
        if name == "mnist" and not with_data:
            continue
        yield name, task()
    for name, task in regressions().items() if with_data else ():
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
    if with_data:
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


def _noisy() -> Iterator[tuple[str, Program]]:
    """Data of which little can be learned: what is left is noise."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(3000, 8)).astype(np.float32)
    sign = x[:, 0] > 0
    noisy: dict[str, Any] = {
        f"regression, {share:.0%} explained": (
            (share / (1 - share)) ** 0.5 * x[:, :1] + draw.normal(size=(3000, 1))
        ).astype(np.float32)
        for share in (0.05, 0.2)
    }
    for flipped in (0.3, 0.4):
        noisy[f"{flipped:.0%} of the labels wrong"] = (
            sign ^ (draw.random(len(x)) < flipped)
        ).astype(np.int64)
    for name, y in noisy.items():
        recipe = Recipe(
            data={"source": "arrays", "batch": 32},
            model={"kind": "mlp", "hidden": [32]},
            optimizer={"kind": "adam", "lr": 1e-3},
            stop={"after": "20ep", "patience": "4ep"},
            threads=1,
        )
        yield name, Program(recipe, (x, y))


def _starters(with_data: bool) -> Iterator[tuple[str, Program]]:
    """What ``ravine train FILE`` chooses for scikit-learn's tables and digits, and for photographs."""
    folder = Path(tempfile.mkdtemp())
    for name, load in SETS.items():
        found = load(as_frame=True)
        path = folder / f"{name.replace(' ', '_')}.csv"
        found.frame.to_csv(path, index=False)
        yield f"starter, {name}", Program(start(path).recipe.edit({"threads": 1}), None)
    digit = datasets.load_digits()
    rows = np.column_stack([digit.data, digit.target])
    head = ",".join([*(f"pixel{i}" for i in range(64)), "target"])
    np.savetxt(folder / "digits.csv", rows, "%d", ",", header=head, comments="")
    yield "starter, digits as a table", Program(start(folder / "digits.csv").recipe, None)
    for image, label, i in zip(digit.images[:600], digit.target, range(600), strict=False):
        place = folder / "images" / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 15.9).astype(np.uint8)).resize((16, 16)).save(place / f"{i}.png")
    yield "starter, images of digits", Program(start(folder / "images").recipe, None)
    if with_data:
        yield from _starters_on_data(folder)


def _starters_on_data(folder: Path) -> Iterator[tuple[str, Program]]:
    held = np.load(data_folder() / "cifar10-jpeg.npz", allow_pickle=False)
    ends, names = held["train_ends"], held["classes"]
    for i in range(1000):
        place = folder / "photographs" / str(names[held["train_labels"][i]])
        place.mkdir(parents=True, exist_ok=True)
        begin = int(ends[i - 1]) if i else 0
        (place / f"{i}.jpg").write_bytes(held["train_bytes"][begin : int(ends[i])].tobytes())
    yield "starter, photographs", Program(start(folder / "photographs").recipe, None)
    text = (data_folder() / "tinyshakespeare.txt").read_text()[:200_000]
    (folder / "play.txt").write_text(text)
    yield "starter, text", Program(start(folder / "play.txt").recipe, None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", nargs="*", default=[], help="words of programs")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--data", action="store_true", help="MNIST, CIFAR-10 and Shakespeare too")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    asked = parser.parse_args()
    rows = []
    for name, program in programs(asked.data):
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
