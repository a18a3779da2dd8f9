"""Is mixed precision as accurate as float32? Ten seeds of each network on MNIST in both, compared
pair by pair.

    python bench/precision.py [mnist_mlp lenet lstm] [--samples 12000] [--epochs 3] [--seeds 10]

Prints one JSON line per network: the test accuracies, the mean difference, and the p-value of a
paired t-test that bfloat16 is worse.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from scipy import stats

from ravine import Recipe, train_many
from ravine.bench.mnist import load
from ravine.bench.works import WORKS


def accuracies(name: str, precision: str, seeds: int, samples: int, epochs: int) -> list[float]:
    """Test accuracy of each seed, trained as one population."""
    x, y, x_test, y_test = load()
    shape = WORKS[name].shape
    data = {
        "train": (x[:samples].reshape(-1, *shape), y[:samples]),
        "test": (x_test.reshape(-1, *shape), y_test),
    }
    said = {"model": WORKS[name].model, "precision": precision, "stop": {"after": f"{epochs}ep"}}
    recipes = [
        Recipe(seed=seed, data={"batch": 128, "validation": 0.0}, **said) for seed in range(seeds)
    ]
    with tempfile.TemporaryDirectory() as folder:
        runs = train_many(recipes, data=data, out=Path(folder) / "run", quiet=True)
        return [run.result["test_accuracy"] for run in runs]


def compare(name: str, seeds: int, samples: int, epochs: int) -> dict[str, object]:
    full, mixed = (
        np.array(accuracies(name, p, seeds, samples, epochs)) for p in ("float32", "bfloat16")
    )
    test = stats.ttest_rel(mixed, full, alternative="less")
    return {
        "work": name,
        "seeds": seeds,
        "samples": samples,
        "epochs": epochs,
        "float32": full.tolist(),
        "bfloat16": mixed.tolist(),
        "difference": float((mixed - full).mean()),
        "p_worse": float(test.pvalue),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("works", nargs="*", default=["mnist_mlp", "lenet", "lstm"])
    for name, value in (("--seeds", 10), ("--samples", 12_000), ("--epochs", 3)):
        parser.add_argument(name, type=int, default=value)
    options = parser.parse_args()
    for name in options.works:
        print(json.dumps(compare(name, options.seeds, options.samples, options.epochs)), flush=True)


if __name__ == "__main__":
    main()
