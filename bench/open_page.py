"""What an open live page costs the training that it shows, and how soon a long run is drawn.

    python bench/open_page.py                    # three minutes
    python bench/open_page.py --only curve       # ten seconds
    python bench/open_page.py --stretches 40 --json

Training runs in a process of its own on one thread, ``ravine serve`` in another, the page in Chromium
(playwright). In turn the page is closed and open. Compared is the training's processor time a step, which
what else runs on the machine hardly changes: each stretch with the page open by the mean of its neighbours
without; the median of the ratios, with the interval that the median has with 95 %. The same ratio of
stretches that are all closed says how far the measure is to be trusted. The other figure is the time from
the address to the first curve of a run of a million steps, on the clock.
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
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Browser, sync_playwright

from ravine.machine import machine
from ravine.recipe import Recipe
from ravine.rundir import RunDir

STEPS = 1_000_000
CLOCK = """
const look = setInterval(() => {
  if (!(document.querySelector(".plot")?.ravine?.plot?.data[0].length > 100)) return;
  clearInterval(look);
  requestAnimationFrame(() => { window.drawn = performance.now(); });
}, 5);
"""  # milliseconds from the address to the picture
Cost = dict[str, Any]
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
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://\S+", process.stdout.readline())
            assert found is not None
            yield found[0]
        finally:
            process.terminate()


def cost(browser: Browser, folder: Path, model: str, stretches: int, seconds: float) -> Cost:
    """The training's processor time a step with the page open, by that of the stretches before and
    after with the page closed, so that what drifts counts for nothing."""
    training = Training(folder / "beside", model)
    try:
        with served(folder) as address:
            training.now()
            time.sleep(3)
            closed, opened = [_stretch(training, browser, None, seconds)], []
            for _ in range(stretches):
                opened.append(_stretch(training, browser, address, seconds))
                closed.append(_stretch(training, browser, None, seconds))
    finally:
        training.process.kill()
        training.process.wait()
    around = [(a + b) / 2 for a, b in pairwise(closed)]
    ratios = sorted(a / b for a, b in zip(opened, around, strict=True))
    same = sorted(
        b / (0.5 * (a + c)) for a, b, c in zip(closed, closed[1:], closed[2:], strict=False)
    )
    reach = max(0, round(len(ratios) / 2 - 0.98 * len(ratios) ** 0.5) - 1)  # by the binomial
    return {
        "model": model,
        "ratio": statistics.median(ratios),
        "interval": [ratios[reach], ratios[-1 - reach]],
        "ratios": ratios,
        "closed_by_closed": statistics.median(same) if same else None,
    }


def _stretch(training: Training, browser: Browser, address: str | None, seconds: float) -> float:
    """Processor seconds a step over a stretch, the page open if there is an address; its loading is
    not counted."""
    page = browser.new_page()
    if address:
        page.goto(address)
        page.wait_for_selector(".plot canvas")
    page.wait_for_timeout(300)
    began = training.now()
    page.wait_for_timeout(1000 * seconds)
    ended = training.now()
    page.close()
    return (ended[1] - began[1]) / (ended[0] - began[0])


def first_curve(browser: Browser, folder: Path, repeats: int = 10) -> list[float]:
    """Seconds until a run of a million steps is drawn (every step, and 100,000 epochs), each time in
    a new page; the first time of a new server."""
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
    found = []
    with served(folder) as address:
        for _ in range(repeats):
            page = browser.new_page()
            page.add_init_script(CLOCK)
            page.goto(f"{address}#run=long&show=step_loss&show=loss&x=step")
            while not (drawn := page.evaluate("window.drawn")):
                page.wait_for_timeout(50)
            found.append(drawn / 1000)
            page.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", choices=["curve", "cost"])
    parser.add_argument("--stretches", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--models", nargs="+", default=["mlp", "lenet"])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    drawn, costs = [], []
    with tempfile.TemporaryDirectory() as place, sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        if options.only != "cost":
            drawn = first_curve(browser, Path(place) / "drawn")
        for model in options.models if options.only != "curve" else []:
            folder = Path(place) / model
            folder.mkdir()
            costs.append(cost(browser, folder, model, options.stretches, options.seconds))
        browser.close()
    if options.json:
        print(json.dumps({"machine": machine(), "first_curve": drawn, "costs": costs}, indent=1))
        return
    if drawn:
        print(
            f"first curve of a million steps: {drawn[0]:.2f} s from a new server, then "
            f"{statistics.median(drawn[1:]):.2f} s ({min(drawn[1:]):.2f} to {max(drawn[1:]):.2f})"
        )
    for one in costs:
        low, high = one["interval"]
        print(
            f"{one['model']}: open / closed {one['ratio']:.3f} [{low:.3f}, {high:.3f}], "
            f"closed / closed {one['closed_by_closed']:.3f}"
        )


if __name__ == "__main__":
    main()
