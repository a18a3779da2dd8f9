"""What an open live page costs the training that it shows, and how soon a long run is drawn.

    python bench/open_page.py                    # 12 pairs of 4 seconds, one after the other
    python bench/open_page.py --pairs 30 --json

Training runs in a process of its own on one thread, ``ravine serve`` in another, the page in Chromium
(playwright). In turn the page is closed and open; a pair is one stretch of each. Compared is the training's
processor time a step, which what else runs on the machine hardly changes; the median of the pairs' ratios,
with the interval that the median has with 95 %. The second figure is the time from the address to the first
curve of a run of a million steps, on the clock.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Browser, sync_playwright

from ravine.machine import machine
from ravine.recipe import Recipe
from ravine.rundir import RunDir

STEPS = 1_000_000
DRAWN = "document.querySelector('.plot')?.ravine?.plot?.data[0].length > 100"
TRAINING = """
import sys, time, ravine
def seen(row):
    print(row["step"], time.process_time(), flush=True)
ravine.train(model=sys.argv[2], data="digits", epochs=10**7, minutes=60, out=sys.argv[1], quiet=True,
             doctor=False, threads=1, on_epoch=seen)
"""


class Training:
    """A training in a process of its own, which says its steps and its processor time."""

    def __init__(self, place: Path, model: str):
        command = [sys.executable, "-c", TRAINING, str(place), model]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.latest: tuple[int, float] | None = None
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            step, seconds = line.split()
            self.latest = int(step), float(seconds)

    def now(self) -> tuple[int, float]:
        while self.latest is None:
            time.sleep(0.1)
        return self.latest


@contextmanager
def served(folder: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "ravine", "serve", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://\S+", process.stdout.readline())
            assert found is not None
            yield found[0]
        finally:
            process.terminate()


def cost(browser: Browser, folder: Path, model: str, pairs: int, seconds: float) -> dict[str, Any]:
    """Processor time a step, page open by page closed."""
    training = Training(folder / "beside", model)
    try:
        with served(folder) as address:
            training.now()
            time.sleep(3)
            ratios = []
            for pair in range(pairs):
                first = bool(pair % 2)  # in turn the open page comes first
                each = {
                    o: _stretch(training, browser, address, o, seconds) for o in (first, not first)
                }
                ratios.append(each[True] / each[False])
    finally:
        training.process.kill()
        training.process.wait()
    ordered = sorted(ratios)
    reach = max(0, round(len(ordered) / 2 - 0.98 * len(ordered) ** 0.5) - 1)  # by the binomial
    interval = [ordered[reach], ordered[-1 - reach]]
    return {
        "model": model,
        "ratio": statistics.median(ratios),
        "interval": interval,
        "ratios": ratios,
    }


def _stretch(
    training: Training, browser: Browser, address: str, opened: bool, seconds: float
) -> float:
    """Processor seconds a step over a stretch."""
    page = browser.new_page()
    if opened:
        page.goto(address)
        page.wait_for_selector(".plot canvas")
    began = training.now()
    page.wait_for_timeout(1000 * seconds)
    ended = training.now()
    page.close()
    return (ended[1] - began[1]) / (ended[0] - began[0])


def first_curve(browser: Browser, folder: Path) -> dict[str, Any]:
    """Seconds until a run of a million steps is drawn: every step, and 100,000 epochs."""
    run = RunDir.create(
        folder / "long", [Recipe(name="long", stop={"after": "100000ep"})], facts={}
    )
    draw = np.random.default_rng(0)
    run.add_steps(0, [0], draw.normal(size=(STEPS, 1)) ** 2)
    losses = draw.normal(size=STEPS // 10) ** 2
    rows = [
        {"member": 0, "epoch": e + 1, "step": 10 * (e + 1), "seconds": float(e), "val_loss": loss}
        for e, loss in enumerate(losses)
    ]
    run.add_epochs(rows)
    run.close()
    found = {}
    with served(folder) as address:
        for what in ("first", "again"):
            page = browser.new_page()
            began = time.monotonic()
            page.goto(f"{address}#run=long&show=step_loss&show=loss&x=step")
            while not page.evaluate(DRAWN):
                page.wait_for_timeout(10)
            found[what] = time.monotonic() - began
            page.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--models", nargs="+", default=["mlp", "lenet"])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        drawn = first_curve(browser, Path(place) / "drawn")
        costs = []
        for model in options.models:
            folder = Path(place) / model
            folder.mkdir()
            costs.append(cost(browser, folder, model, options.pairs, options.seconds))
        browser.close()
    if options.json:
        print(json.dumps({"machine": machine(), "first_curve": drawn, "costs": costs}, indent=1))
        return
    print(f"a million steps: {drawn['first']:.2f} s, again {drawn['again']:.2f} s")
    for one in costs:
        low, high = one["interval"]
        print(f"{one['model']}: open / closed {one['ratio']:.3f} [{low:.3f}, {high:.3f}]")


if __name__ == "__main__":
    main()
