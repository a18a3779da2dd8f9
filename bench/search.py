"""Is a search of 25 members and two rounds worth its time? Against 50 separate runs of the recipe,
in one process.

    python bench/search.py
    python bench/search.py --solo 10        # fewer separate runs, their time scaled up

Time is wall-clock time and processor time; validation accuracy is that of the chosen configuration
on fresh seeds, of the recipe as it was on the same seeds, and of the recipe in the separate runs,
each with a seed of its own.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ravine
from ravine.recipe import Recipe
from ravine.starters.start import start
from ravine.study.search.study import search

RUNS = 50


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """The result, and the seconds it took by the clock and by the processor."""
    wall, processor = time.perf_counter(), time.process_time()
    found = work()
    return found, time.perf_counter() - wall, time.process_time() - processor


def separate(recipe: Recipe, seeds: range, folder: Path) -> list[float]:
    """Validation accuracy of the recipe with other seeds, one run after the other."""
    runs = [
        ravine.train(recipe.edit({"seed": i}), quiet=True, doctor=False, out=folder / str(i))
        for i in seeds
    ]
    return [run.result["val_accuracy"] for run in runs]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--solo", type=int, default=RUNS, help="separate runs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--vary",
        action="append",
        default=[],
        help="as for ravine search; default: what it varies by itself",
    )
    asked = parser.parse_args()
    recipe = start(None, {"seed": asked.seed}).recipe
    with tempfile.TemporaryDirectory() as place:
        ravine.train(recipe.edit({"stop.after": "1ep"}), quiet=True, out=Path(place) / "warm")
        half, folder = (
            asked.solo // 2,
            Path(place) / "alone",
        )  # half before, half after: other work on the machine changes
        before = timed(lambda: separate(recipe, range(half), folder))
        found, wall, processor = timed(
            lambda: search(recipe, asked.vary, quiet=True, out=Path(place) / "search")
        )
        after = timed(lambda: separate(recipe, range(half, asked.solo), folder))
    alone, wall_alone, processor_alone = (b + a for b, a in zip(before, after, strict=True))
    scale = RUNS / asked.solo
    chosen, default = found["chosen"]["val_accuracy"], found["default"]["val_accuracy"]
    best = found["table"][0]["val_accuracy"]
    print(
        f"search: {wall:.1f} s, processor {processor:.1f} s; {found['methods'][0]['epochs trained']:g} epochs in its rounds"
    )
    print(
        f"{RUNS} separate runs: {scale * wall_alone:.1f} s, processor {scale * processor_alone:.1f} s"
    )
    print(
        f"ratio: {wall / wall_alone / scale:.3f}, processor {processor / processor_alone / scale:.3f}"
    )
    print(f"validation accuracy on fresh seeds: chosen {chosen[0]:.4f} ± {chosen[1]:.4f}")
    print(f"                       recipe as it was {default[0]:.4f} ± {default[1]:.4f}")
    print(
        f"best of the search {best:.4f}; separate runs {statistics.mean(alone):.4f} ± {statistics.pstdev(alone):.4f}"
    )
    print(
        f"test accuracy of the chosen: {found['chosen']['test_accuracy'][0]:.4f}; {found['chosen']['values']}"
    )


if __name__ == "__main__":
    main()
