"""The README's screenshots: a report, the live page beside a training, a study.

``python docs/screens.py`` trains what they show, in a folder of its own; it needs playwright and Chromium.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

PICTURES = Path(__file__).parent / "pictures"
RAVINE = [sys.executable, "-m", "ravine"]
TALL = 820


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as started:
        place = Path(folder)
        train = [*RAVINE, "train", "--set", "threads=1", "--quiet"]
        subprocess.run([*train, "--epochs", "12", "--out", "runs/digits"], cwd=place, check=True)
        search = [
            *RAVINE,
            "search",
            "--set",
            "model.kind=mlp",
            "--set",
            "stop.after=5ep",
            "--quiet",
        ]
        subprocess.run([*search, "--out", "runs/search"], cwd=place, check=True)
        browser = started.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 1120, "height": TALL})
        page.goto((place / "runs/digits/report.html").as_uri())
        picture(page, "report", "h2:has-text('right and wrong')")
        page.goto((place / "runs/search/report.html").as_uri())
        picture(page, "study", "h2:has-text('All runs')")
        live(page, place)
        browser.close()


def live(page: Page, place: Path) -> None:
    """The live page while a run trains."""
    training = [*RAVINE, "train", "--epochs", "400", "--set", "threads=1", "--quiet", "--no-doctor"]
    running = subprocess.Popen([*training, "--out", "runs/long"], cwd=place)
    serving = subprocess.Popen(
        [*RAVINE, "serve", "runs", "--port", "0"], cwd=place, stdout=subprocess.PIPE, text=True
    )
    try:
        assert serving.stdout is not None
        address = re.search(r"http://\S+", serving.stdout.readline())
        assert address is not None
        page.emulate_media(color_scheme="dark")
        page.goto(address[0])
        page.wait_for_selector("#controls", state="visible", timeout=60_000)
        page.wait_for_timeout(15_000)
        picture(page, "live", "h1")
    finally:
        running.terminate()
        serving.terminate()
        running.wait()
        serving.wait()


def picture(page: Page, name: str, at: str) -> None:
    """What is seen from this heading on."""
    page.wait_for_timeout(800)
    page.evaluate("top => scrollTo(0, top - 12)", page.locator(at).first.bounding_box()["y"])  # type: ignore[index]
    page.wait_for_timeout(300)
    page.screenshot(path=PICTURES / f"{name}.png")


if __name__ == "__main__":
    main()
