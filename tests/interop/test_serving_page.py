"""The page of ``serve RUN --predict`` in a real browser: a picture is dropped, a row is filled."""

from __future__ import annotations

import base64
import io
import re
import shutil
import socket
import threading
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

import ravine
from ravine.interop import serving

pytest.importorskip("starlette", reason="the extra web is not installed")
uvicorn = pytest.importorskip("uvicorn")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")
QUICK = {"epochs": 20, "lr": 0.05, "quiet": True, "doctor": False}
HTML = "<img src=x onerror=alert(1)>"
DROP = """([text, type]) => {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], "picture", { type }));
  const event = new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true });
  document.getElementById("drop").dispatchEvent(event);
}"""


@contextmanager
def served(run):
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        serving.application(run, ["127.0.0.1"]), log_level="error", log_config=None
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield found
        found.close()


@contextmanager
def opened(browser, address, width, scheme, refused=0):
    """A page that asks nobody else, is not wider than the window, and logs no error but the answers
    of so many refused requests."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    errors, outside = [], []
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on(
        "request",
        lambda r: (
            None
            if r.url.startswith(address) or r.url.startswith("blob:")
            else outside.append(r.url)
        ),
    )
    page.goto(address)
    page.wait_for_selector("#form label, #form #drop")
    yield page
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.close()
    assert len([text for text in errors if "status of 4" in text]) == refused == len(errors), errors
    assert outside == []


def png(colour):
    file = io.BytesIO()
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[..., colour] = 220
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1100, "light")])
def test_a_picture_is_dropped_and_a_row_filled(browser, width, scheme, tmp_path):
    generator = np.random.default_rng(0)
    for name, colour in (("red", 0), ("blue", 2)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(16):
            pixels = generator.integers(0, 60, (8, 8, 3), dtype=np.uint8)
            pixels[..., colour] += 180
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{i}.png")
    run = ravine.train(
        data=f"folder:{tmp_path / 'data'}", model="softmax", out=tmp_path / "colours", **QUICK
    )
    with served(run) as address, opened(browser, address, width, scheme, refused=1) as page:
        assert page.locator("h1").inner_text() == "colours"
        for colour, name in ((0, "red"), (2, "blue")):
            page.evaluate(DROP, [base64.b64encode(png(colour)).decode(), "image/png"])
            page.locator("#answer h2", has_text=name).wait_for()
            rows = page.locator("#answer tr").all_inner_texts()
            assert rows[0].split()[0] == name
            shares = [re.search(r"\b[01]\.\d{4}\b", row)[0] for row in rows]
            assert sum(map(float, shares)) == pytest.approx(1.0, abs=2e-4)
            assert page.evaluate("document.querySelector('#drop img').naturalWidth") == 30
        page.evaluate(DROP, [base64.b64encode(b"no picture").decode(), "text/plain"])
        page.locator("#answer .error").wait_for()
        with page.expect_file_chooser() as chooser:
            page.locator("#drop").click()
        chooser.value.set_files({"name": "r.png", "mimeType": "image/png", "buffer": png(0)})
        page.locator("#answer h2", has_text="red").wait_for()


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1100, "dark")])
def test_a_row_is_filled(browser, width, scheme, tmp_path):
    cities = ("Bern", "Oslo", HTML)
    rows = [f"{20 + i % 40},{cities[i % 3]},{100 + 3 * (i % 40) + 20 * (i % 3)}" for i in range(90)]
    (tmp_path / "houses.csv").write_text("\n".join(["age,city,price", *rows]))
    run = ravine.train(
        data=f"csv:{tmp_path / 'houses.csv'}", model="mlp", out=tmp_path / "houses",
        baselines=False, **QUICK,
    )  # fmt: skip
    with served(run) as address, opened(browser, address, width, scheme) as page:
        page.get_by_label("age").fill("33")
        page.get_by_label("city").fill("Oslo")
        page.keyboard.press("Enter")
        page.locator("#answer h2").wait_for()
        expected = run.predict(run.pipeline.read(_row(tmp_path))[0])[0, 0]
        shown = page.locator("#answer h2").inner_text()
        assert float(shown.split()[-1]) == pytest.approx(expected, rel=1e-4)
        page.get_by_label("city").fill(HTML + "!")
        page.get_by_role("button", name="Predict").click()
        page.locator("#answer", has_text="training did not have").wait_for()
        assert HTML in page.locator("#answer").inner_text()  # as text


def _row(folder):
    (folder / "new.csv").write_text("age,city\n33,Oslo\n")
    return folder / "new.csv"
