"""The live page in a real browser, beside a real training: it draws and updates, switches, zooms and
compares, changes the rate, stops a run with the token and not without it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import numpy as np
import pytest
from typer.testing import CliRunner

import browsing
from browsing import assert_fits, launched, serious_faults
from ravine.app.cli import app
from ravine.recipe import Recipe
from ravine.rundir import RunDir
from synthetic import make_all, recipe

pytest.importorskip("starlette", reason="the extra web is not installed")
pytestmark = browsing.needed
HTML = "<img src=x onerror=alert(1)>&amp;"


@contextmanager
def served(folder):
    command = [sys.executable, "-m", "ravine", "serve", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield re.search(r"http://\S+", process.stdout.readline())[0]
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    make_all(root)
    RunDir.create(root / "html", [recipe().edit({"name": HTML})], facts={}).close()
    (root / "broken").mkdir()
    (root / "broken" / "recipe.json").write_text("[" * 100_000)
    (root / "broken" / "metrics.sqlite").write_text("")
    return root


@pytest.fixture(scope="module")
def address(runs):
    with served(runs) as found:
        yield found


@pytest.fixture(scope="module")
def browser():
    with launched() as found:
        yield found


@contextmanager
def opened(browser, address, width=1400, scheme="light"):
    """The live page, when it shows runs."""
    with browsing.opened(browser, address, width, scheme) as page:
        page.wait_for_selector("#runs tbody tr")
        page.wait_for_selector(".plot")
        yield page


# a row of a long run: what stands in its cells is as long as it gets
AT_ITS_LONGEST = """() => {
  const row = document.querySelector("#runs tbody tr"), cells = [...row.querySelectorAll("td.number")];
  const texts = ["98.61 % accuracy (val)", "0.000123", "1,203 / 40,000", "12 h 15 min, 3 h 52 min left"];
  texts.forEach((text, i) => { cells[i].textContent = text; });
}"""


def test_the_page_at_every_width_in_both_themes(browser, address):
    for width, scheme in ((390, "dark"), (800, "light"), (1400, "dark")):
        with opened(browser, address, width, scheme) as page:
            assert_fits(page, width)
            assert page.locator("#runs tbody tr").count() == 9
            assert HTML in page.locator("#runs").inner_text()  # as text
            assert "broken cannot be read" in page.locator("#damaged").inner_text()
            assert "token" not in page.url
            if width > 390:
                assert serious_faults(page) == []
            page.evaluate(AT_ITS_LONGEST)
            assert_fits(page, width)


def test_switches_zoom_smoothing_and_comparison(browser, address):
    view = f"{address}#run=study/adam&run=study/slow&show=accuracy&show=step_loss"
    with opened(browser, view) as page:
        page.wait_for_selector(".chart-legend button")
        first = "document.querySelector('.plot').ravine.plot"
        until(page, f"{first}.series.filter((s) => s.label && !s.edge).length === 3")
        until(page, "document.querySelectorAll('.plot').length === 2")
        page.locator(".chart-legend button").first.click()
        assert page.evaluate(f"{first}.series[1].show") is False
        before = page.evaluate(f"[{first}.scales.x.min, {first}.scales.x.max]")
        box = page.locator(".u-over").first.bounding_box()
        page.mouse.move(box["x"] + 50, box["y"] + 60)
        page.mouse.down()
        page.mouse.move(box["x"] + 200, box["y"] + 60, steps=5)
        page.mouse.up()
        after = page.evaluate(f"[{first}.scales.x.min, {first}.scales.x.max]")
        assert after[1] - after[0] < 0.7 * (before[1] - before[0])
        assert page.locator(".tip").first.is_visible()
        page.locator(".u-wrap").first.focus()
        page.keyboard.press("Escape")
        assert page.evaluate(f"[{first}.scales.x.min, {first}.scales.x.max]") == before
        page.keyboard.press("ArrowRight")
        rough = page.evaluate(
            "document.querySelectorAll('.plot')[1].ravine.plot.data[1].slice(0, 50)"
        )
        page.locator("#smooth").fill("0.9")
        smooth = page.evaluate(
            "document.querySelectorAll('.plot')[1].ravine.plot.data[1].slice(0, 50)"
        )
        assert np.abs(np.diff(np.diff(smooth))).sum() < np.abs(np.diff(np.diff(rough))).sum()
        page.locator("#scale").select_option("log")
        assert page.evaluate(f"{first}.scales.y.distr") == 3
        page.locator("#runs tbody tr", has_text="regression").locator("input").check()
        page.wait_for_timeout(300)
        assert "regression" in page.url
        page.locator("#none").click()
        assert page.locator(".nothing").count() == 2


@contextmanager
def trained(folder):
    """A real training, in a process of its own."""
    script = f"""
import ravine, time
ravine.train(model="softmax", data="blobs", optimizer="sgd", lr=0.01, epochs=100000, minutes=3, name="beside",
             out={str(folder)!r}, quiet=True, doctor=False, on_epoch=lambda seen: time.sleep(0.01), threads=1)
"""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_real_training_is_followed_changed_and_stopped(browser, tmp_path):
    (tmp_path / "runs").mkdir()
    with trained(tmp_path / "runs" / "beside") as process:
        latest = time.monotonic() + 60
        while (
            not (tmp_path / "runs" / "beside" / "snapshots").is_dir() and time.monotonic() < latest
        ):
            time.sleep(0.2)
        with served(tmp_path / "runs") as address, opened(browser, address) as page:
            points = "document.querySelector('.plot').ravine.plot.data[0].length"
            happened = "document.querySelector('#happened').textContent"
            until(page, "document.querySelector('.plot')?.ravine?.plot")
            before = page.evaluate(points)
            until(page, f"{points} > {before}")
            page.wait_for_selector("#controls", state="visible")
            page.locator("#rate").fill("0.002")
            page.locator("#set-rate").click()
            text = "optimizer.lr is 0.002"
            until(page, f"{happened}.includes('{text}')")
            page.locator("#snapshot").click()
            until(page, f"{happened}.includes('snapshot was asked')")
            assert asked(address, {"run": "beside", "kind": "stop"}, token="wrong") == 401
            assert asked(address, {"run": "beside", "kind": "stop"}, token="") == 401
            assert (
                asked(address, {"run": "beside", "kind": "stop"}, origin="http://evil.example")
                == 403
            )
            assert asked(address, {"run": "../beside", "kind": "stop"}) == 400
            assert asked(address, {"run": "beside", "kind": "delete"}) == 400
            assert asked(address, {"run": "beside", "kind": "set", "value": "x"}) == 400
            assert asked(address, [1]) == 400
            assert process.poll() is None
            page.locator("#stop").click()
            assert process.wait(30) == 1
            page.wait_for_selector("#runs .state.interrupted", timeout=20_000)
        assert "ravine resume" in process.stderr.read()
    with RunDir.open(tmp_path / "runs" / "beside") as run:
        assert run.epochs()[-1]["lr"] == 0.002


def until(page, expression, seconds=20):
    """Wait until an expression holds; the page's own rules forbid it to evaluate one itself."""
    for _ in range(10 * seconds):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"not within {seconds} s: {expression}")


def asked(address, what, token=True, origin=None):
    """The status of what is asked of the server."""
    base, _, own = address.partition("?")
    place = f"{base}api/act?{own if token is True else f'token={token}'}"
    request = urllib.request.Request(place, json.dumps(what).encode(), method="POST")
    if origin:
        request.add_header("Origin", origin)
    try:
        return urllib.request.urlopen(request, timeout=20).status
    except urllib.error.HTTPError as error:
        return error.code


def test_a_million_rows_are_made_short(tmp_path):
    """By what is sent, not by a clock: the server picks rows by the index."""
    from starlette.testclient import TestClient

    from ravine.report.server import application

    made = Recipe(name="long", stop={"after": "100000ep"})
    run = RunDir.create(tmp_path / "long", [made], facts={})
    rng = np.random.default_rng(0)
    run.add_steps(0, [0], rng.normal(size=(1_000_000, 1)) ** 2)
    losses = rng.normal(size=100_000) ** 2
    run.add_epochs(
        [
            {
                "member": 0,
                "epoch": e + 1,
                "step": 10 * (e + 1),
                "seconds": float(e),
                "val_loss": loss,
                "train_loss": 1.0,
            }
            for e, loss in enumerate(losses)
        ]
    )
    run.close()
    client = TestClient(application(tmp_path))
    (row,) = client.get("/api/runs").json()["runs"]
    assert (row["epochs"], row["steps"]) == (100_000, 1_000_000)
    for metric, x in (("step_loss", "step"), ("loss", "epoch"), ("loss", "seconds")):
        answer = client.get("/api/curves", params={"run": "long", "metric": metric, "x": x})
        lines = answer.json()["series"]
        assert lines
        assert all(300 < len(line["x"]) <= 3000 for line in lines)
        assert len(answer.content) < 300_000
    (val,) = [line for line in lines if line["metric"] == "val_loss"]
    assert val["x"][-1] == 99_999


def test_a_server_ends_quietly_with_a_page_open(runs):
    command = [sys.executable, "-m", "ravine", "serve", str(runs), "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        base, _, own = re.search(r"http://\S+", process.stdout.readline())[0].partition("?")
        with urllib.request.urlopen(f"{base}api/events?{own}", timeout=20) as stream:
            assert stream.readline().startswith(b"data: ")
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 1
        assert process.stderr.read() == "ravine: interrupted\n"


def test_train_serves_itself_while_it_trains(tmp_path):
    arguments = ["--epochs", "1", "--out", str(tmp_path / "runs" / "one"), "--set", "threads=1"]
    command = ["train", "--serve", "--set", "model.kind=mlp", "--no-doctor", *arguments]
    said = CliRunner().invoke(app, command)
    assert said.exit_code == 0, said.output
    address = re.search(
        r"at http://127\.0\.0\.1:(\d+)/\?token=\S+  until training ends", said.stderr
    )
    with pytest.raises(urllib.error.URLError):  # it has ended with the training
        urllib.request.urlopen(f"http://127.0.0.1:{address[1]}/", timeout=5)
