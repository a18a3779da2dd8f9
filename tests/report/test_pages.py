"""Reports of runs and of studies in a real browser: they draw, fit at every width, take names as text, fetch
nothing, and are accessible in both themes."""

from __future__ import annotations

import functools
import itertools
import re

import pytest
import torch

import ravine
from browsing import LOOKS, assert_fits, launched, needed, opened, serious_faults
from ravine.report.figures import style
from ravine.report.run_page import inline_svg, write_report
from ravine.rundir import RunDir
from ravine.study.narrow import narrow
from ravine.study.panels import panels
from synthetic import FINDING, make_run, recipe

pytestmark = needed
HTML = "<img src=x onerror=alert(1)>&amp;"
LONG = "a_name_without_any_place_to_break_it_" * 3


@pytest.fixture(scope="module")
def browser():
    with launched() as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The reports of a trained run, of a population with findings, of one that diverged; a study."""
    root = tmp_path_factory.mktemp("pages")
    quiet = {"quiet": True, "threads": 1}
    ravine.train(
        model="mlp", data="digits", epochs=3, name=HTML, out=root / "one", doctor=False, **quiet
    )
    finding = {**FINDING, "cause": HTML, "evidence": LONG}
    found = [(10, 0, "overfitting", finding)]
    many = [recipe(lr=3e-3 * (i + 1), name=LONG) for i in range(9)]
    runs = [
        make_run(root / "many", many, epochs=12, findings=found),
        make_run(root / "wild", [recipe(lr=1.0)], diverges_at={0: 31}),
    ]
    for run in runs:
        write_report(run)
        run.close()
    small = ravine.Recipe(name="blobs", model="softmax", data={"source": "blobs"}, threads=1)
    ravine.lr(small, after="2ep", rates=9, out=root / "lr", quiet=True)
    return {name: root / name / "report.html" for name in ("one", "many", "wild", "lr")}


slow = functools.partial(pytest.param, marks=pytest.mark.slow)


# pixels of the labels of every figure that is seen: of curves, and of figures that are SVG
LABELS = """() => {
  const curves = [...document.querySelectorAll(".plot")].flatMap(({ ravine }) =>
    ravine.plot.axes.map((axis) => Number(/([\\d.]+)px/.exec(axis.font[0])[1]) / devicePixelRatio));
  const drawn = [...document.querySelectorAll("figure svg text")].flatMap((text) => {
    const matrix = text.getScreenCTM(), box = text.getBoundingClientRect();
    if (box.width < 1 || box.height < 5) return []; // not seen
    return Math.hypot(matrix.a, matrix.b) * parseFloat(getComputedStyle(text).fontSize);
  });
  return [...curves, ...drawn];
}"""


@pytest.mark.parametrize("name", ["one", "many", slow("wild"), "lr"])
def test_a_report_at_every_width(browser, pages, name):
    for width, scheme in LOOKS:
        with opened(browser, pages[name], width, scheme) as page:
            page.wait_for_selector(".plot canvas")
            assert_fits(page, width)
            sizes = page.evaluate(LABELS)
            assert 11 < min(sizes) <= max(sizes) < 12.5, sorted(set(sizes))
            if width == 390:
                assert page.evaluate("document.documentElement.scrollHeight") < 14_000


def test_names_are_text_and_layers_are_drawn(browser, pages):
    with opened(browser, pages["one"]) as page:
        assert page.locator("h1").inner_text() == HTML
        assert page.locator("img[src=x]").count() == 0
        assert page.locator(".ridges").count() == 2  # a layer each
        before = page.locator(".ridges polygon").first.get_attribute("points")
        page.get_by_label("weights", exact=True).check()
        assert page.locator(".ridges polygon").first.get_attribute("points") != before
        names = "[...document.querySelectorAll('#layers .chart-legend button')].map((b) => b.textContent)"
        assert page.evaluate(names)[:2] == ["1 Linear", "4 Linear"]
    with opened(browser, pages["many"]) as page:
        assert page.locator(".finding h3").inner_text().startswith(HTML)


def test_switches_zoom_and_smoothing_of_a_report(browser, pages):
    with opened(browser, pages["one"]) as page:
        plot = "document.querySelector('.plot').ravine.plot"
        page.locator(".chart-legend button").first.click()
        assert page.evaluate(f"{plot}.series[1].show") is False
        page.locator("#log").check()
        assert page.evaluate(f"{plot}.scales.y.distr") == 3
        page.locator(".u-wrap").first.focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("+")
        narrow = page.evaluate(f"{plot}.scales.x.max - {plot}.scales.x.min")
        page.keyboard.press("Escape")
        assert page.evaluate(f"{plot}.scales.x.max - {plot}.scales.x.min") > narrow


@pytest.mark.parametrize("name", ["one", slow("many"), slow("lr")])
def test_no_serious_fault_of_accessibility(browser, pages, name):
    for scheme in ("light", "dark"):
        with opened(browser, pages[name], 1400, scheme) as page:
            assert serious_faults(page) == []


def test_a_study_draws_every_run_by_its_field(browser, pages):
    with opened(browser, pages["lr"]) as page:
        with RunDir.open(next((pages["lr"].parent / "runs").iterdir())) as run:
            members = len(run.recipes)
        lines = "document.querySelector('[data-curves]').ravine.plot.series.length - 1"
        assert 2 <= page.evaluate(lines) <= members
        assert page.locator(".parallel .member").count() == members


def test_a_wide_figure_has_its_panels_one_by_one_for_a_phone(browser, tmp_path):
    with style():
        figure, axes = panels(2, 3, 3.0, 2.5, sharex=True, sharey=True)
        for i, one in enumerate(axes):
            one.plot([0, 1], [i, i + 1])
            one.set_title(f"panel {i}")
        axes[0].set_ylabel("height")
        figure.savefig(tmp_path / "figure.png")
        figure.set_layout_engine("none")
    views = narrow(figure, "s0")
    inner = re.findall(r'viewBox="([-\d. ]+)"><use href="#s0-figure_1"', views)
    boxes = [tuple(map(float, box.split())) for box in inner]
    assert len(boxes) == 3 * len(axes)  # labels at the left, the panel, labels below
    left, panel, below = boxes[
        3:6
    ]  # the second panel takes its labels from the first and the one below it
    assert left == pytest.approx((boxes[0][0], left[1], boxes[0][2], left[3]))
    assert below[1] > 2.5 * 72 > panel[1] + panel[3]
    page = tmp_path / "page.html"
    page.write_text(f"<body style='width: 340px'>{inline_svg(figure, 's0', 'six')}{views}")
    with opened(browser, page, 390) as shown:
        sizes = (
            "[...document.querySelectorAll('.view')].map((v) => v.getBoundingClientRect().width)"
        )
        assert all(150 < width < 390 for width in shown.evaluate(sizes))
        drawn = "[...document.querySelectorAll('.view')].every((v) => v.querySelector('use').getBBox().width > 0)"
        assert shown.evaluate(drawn)


def test_a_finding_has_its_remedy_second_a_picture_and_a_link_within_the_page(browser, tmp_path):
    general = {"seen_by": "the loss", "what_to_do": "Ten times the rate.", "title": "Too low."}
    bare = {
        "code": "lr_too_low",
        "cause": "It ends too soon.",
        "remedies": [],
        "evidence": "lr 1e-7",
    }
    found = [
        (10, 0, "lr_too_low", {**bare, **general, "shown_by": "step_loss"}),
        (10, 0, "overfitting", FINDING),
    ]
    with make_run(tmp_path / "run", [recipe()], epochs=6, findings=found) as run:
        page_at = write_report(run)
    with opened(browser, page_at, 800) as page:
        first, second = page.locator(".finding").all()
        assert first.locator("dt").all_inner_texts()[:2] == ["what to do", "evidence"]
        assert first.locator("dd").first.inner_text().startswith("Ten times the rate.")
        assert second.locator("dt").first.inner_text() == "what to do"
        assert first.locator("canvas").count() == second.locator("canvas").count() == 1
        first.get_by_role("link").click()
        assert page.url.endswith("#about-lr_too_low")
        assert page.locator("#about-lr_too_low").is_visible()
        assert_fits(page, 800)


def test_predictions_and_residuals_have_numbers_at_their_axes(browser, tmp_path):
    """Numbers in order and evenly apart, on whose places the points lie."""
    x = torch.linspace(-3, 5, 120)[:, None]
    run = ravine.train(
        model=torch.nn.Linear(1, 1), data=(x, 1e5 * x), epochs=1, out=tmp_path / "run", quiet=True
    )
    with opened(browser, run.directory / "report.html", 390) as page:
        page.wait_for_selector(".framed")
        assert_fits(page, 390)
        for side in ("left", "below"):
            shown = page.locator(f"[data-scatter] .{side} span").all_inner_texts()
            numbers = [float(text.replace(",", "").replace("K", "e3")) for text in shown]
            steps = {round(b - a) for a, b in itertools.pairwise(numbers)}
            assert len(numbers) > 2
            assert len(steps) == 1
            assert steps.pop() > 0
