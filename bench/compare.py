"""Twelve optimisers over ten seeds as one population: do they finish in the order in which they
finish alone?

    python bench/compare.py
    python bench/compare.py --seeds 2 --epochs 3      # a quick look

Trains a small network on the handwritten digits once by ``ravine compare`` and once run by run,
with the same recipes, and compares test accuracy and test loss of every run and the two orders of
finish (Kendall's tau; 1: the same order).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

import ravine
from ravine.recipe import Recipe
from ravine.study.compare.study import FRESH, compare, variants_of

KINDS = "sgd,momentum,nesterov,rprop,adagrad,adadelta,rmsprop,adam,amsgrad,adamw,adamax,nadam"
RATES = {
    "sgd": 0.1,
    "momentum": 0.03,
    "nesterov": 0.03,
    "adagrad": 0.03,
    "adadelta": 1.0,
    "rprop": 0.001,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=10)
    asked = parser.parse_args()
    found = compared(asked.seeds, asked.epochs)
    for row in found["rows"]:
        print(
            f"{row['variant']:10s} {100 * row['together']:6.2f} % together {100 * row['alone']:6.2f} % alone, "
            f"largest difference of a run's test loss {row['difference']:.1e}"
        )
    print(
        f"{found['runs']} runs as {found['programs']} program; order of finish: Kendall's tau {found['tau']:.3f}"
    )
    print(f"together {found['seconds']:.1f} s, alone {found['seconds alone']:.1f} s")


def compared(seeds: int, epochs: int) -> dict[str, Any]:
    """The comparison as one population and run by run, side by side."""
    recipe = Recipe(
        name="digits",
        model="mlp",
        stop={"after": f"{epochs}ep"},
        data={"source": "digits"},
        threads=1,
    )
    tables = ",".join(f'{{kind="{kind}",lr={RATES.get(kind, 0.003)}}}' for kind in KINDS.split(","))
    over = [f"optimizer={tables}"]
    variants = variants_of(recipe, over)
    with tempfile.TemporaryDirectory() as place:
        began = time.perf_counter()
        study = compare(
            recipe, over, seeds=seeds, tune=None, quiet=True, out=Path(place) / "together"
        )
        taken = time.perf_counter() - began
        trained = Path(place) / "together" / "runs" / "seeds"
        together = np.array(
            [ravine.Run(trained, i).result["test_loss"] for i in range(len(variants) * seeds)]
        )
        began = time.perf_counter()
        runs = [
            ravine.train(
                variant.recipe.edit({"seed": FRESH + i}),
                quiet=True,
                doctor=False,
                out=Path(place) / f"{number}-{i}",
            )
            for number, variant in enumerate(variants)
            for i in range(seeds)
        ]
        alone_taken = time.perf_counter() - began
    shape = (len(variants), seeds)
    alone = np.array([run.result["test_loss"] for run in runs]).reshape(shape)
    accuracy = np.array([run.result["test_accuracy"] for run in runs]).reshape(shape).mean(1)
    table = {row["variant"]: row["test_accuracy"][0] for row in study["table"]}
    rows = [
        {
            "variant": v.values["optimizer"]["kind"],
            "together": table[v.label],
            "alone": accuracy[i],
            "difference": np.abs(together.reshape(shape)[i] - alone[i]).max(),
        }
        for i, v in enumerate(variants)
    ]
    tau = stats.kendalltau(
        [row["together"] for row in rows], [row["alone"] for row in rows]
    ).statistic
    return {
        "rows": sorted(rows, key=lambda row: -row["together"]),
        "tau": float(tau),
        "programs": study["programs"],
        "runs": study["runs"],
        "seconds": taken,
        "seconds alone": alone_taken,
    }


if __name__ == "__main__":
    main()
