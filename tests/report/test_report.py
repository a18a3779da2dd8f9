import math
import re
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
from jinja2 import Environment

from ravine import measures
from ravine.errors import InputError
from ravine.recipe import Recipe
from ravine.report import courses, figures, overview, run_page
from ravine.report.listing import listing
from ravine.rundir import RunDir
from synthetic import FINDING, make_all, make_run, recipe, recipe_epochs

KINDS = ("one", "five-seeds", "rates", "regression", "stopped", "wild")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    make_all(root)
    return root


@pytest.fixture
def empty(tmp_path):
    """A run of which nothing is known yet."""
    return RunDir.create(tmp_path / "empty", [recipe()], facts={})


# --- the summary ----------------------------------------------------------------------------------

SAID = [
    (
        "one",
        r"^Test accuracy 9\d\.\d\d %, after 24 epochs \(552 steps\) in 9\.8 s\. Its weights are those of epoch "
        r"\d+, its best\. It stopped early: no better validation loss for 8 epochs\.$",
    ),
    (
        "five-seeds",
        r"^5 members: median test accuracy 94\.\d\d %, from 9.* By validation accuracy the best is member "
        r"\d \(seed = \d\)\.$",
    ),
    ("rates", r"^25 members: .*\(optimizer\.lr = [\de.-]+\)\. 4 of 25 diverged\.$"),
    ("regression", r"^Test R² 0\.9\d+, after 30 epochs \(690 steps\) in 12 s\."),
    (
        "stopped",
        r"^Interrupted: 11 of 30 epochs are done \(253 steps\)\. Validation accuracy is 9\d\.\d\d %\.$",
    ),
    ("wild", r"^The run diverged: the loss was no longer a finite number from step 31 on\.$"),
]


@pytest.mark.parametrize(("kind", "said"), SAID, ids=[kind for kind, _ in SAID])
def test_a_run_is_told_in_sentences(runs, kind, said):
    assert re.search(
        said, " ".join(overview.sentences(overview.summarise(RunDir.open(runs / kind))))
    )


def test_what_is_not_finite_is_never_best(tmp_path):
    run = make_run(
        tmp_path / "run", [recipe(lr=lr) for lr in (1e-3, 3e-3, 1.0)], epochs=5, diverges_at={2: 40}
    )
    seen = overview.summarise(run)
    values = [
        row["val_accuracy"]
        for row in seen.members
        if math.isfinite(row.get("val_accuracy", math.nan))
    ]
    assert seen.best["val_accuracy"] == max(values)
    assert seen.diverged == 1
    assert seen.varies == ["optimizer.lr"]


def test_only_what_varies_and_was_measured_is_a_column(runs):
    columns = overview.columns(overview.summarise(RunDir.open(runs / "rates")))
    assert columns[:4] == ["member", "optimizer.lr", "val_accuracy", "test_accuracy"]
    assert columns[-1] == "stopped"
    assert not {"seed", "lr", "grad_norm", "seconds"} & set(columns)


def test_a_run_just_begun_has_a_summary(empty):
    seen = overview.summarise(empty)
    assert (seen.state, seen.steps, seen.best) == ("running", 0, None)
    assert overview.sentences(seen) == ["Training: 0 of 30 epochs are done (0 steps)."]
    assert overview.tiles(seen) == [("Time", "0.0 s", "0 steps")]


def test_the_key_numbers_are_the_best_members(runs):
    seen = overview.summarise(RunDir.open(runs / "regression"))
    tiles = {label: value for label, value, _ in overview.tiles(seen)}
    assert list(tiles) == [
        "Test R²",
        "Validation R²",
        "Test RMSE",
        "Validation RMSE",
        "Test loss",
        "Validation loss",
        "Training loss",
        "Time",
    ]
    assert tiles["Validation R²"] == f"{seen.best['val_r2']:.3f}"
    assert overview.tiles(seen)[-1] == ("Time", "12 s", "690 steps, 56/s")


# --- the recipe -----------------------------------------------------------------------------------

LISTED = [
    ({"seed": 3}, ["seed = 3"]),
    ({"optimizer": {"kind": "adam", "lr": 0.1}}, ["[optimizer]", "lr = 0.1"]),
    ({"optimizer": "sgd"}, ["[optimizer]", 'kind = "sgd"']),
    (
        {"data": {"preprocess": ["standardize"]}},
        ["[data]", 'preprocess = [{ kind = "standardize" }]'],
    ),
    (
        {"name": 'a "quoted"\nname', "stop": {"patience": "3ep"}},
        ['name = "a \\"quoted\\"\\nname"', "[stop]", 'patience = "3ep"'],
    ),
]


@pytest.mark.parametrize(("fields", "own"), LISTED)
def test_what_differs_from_the_defaults_is_marked(fields, own):
    lines = listing(Recipe(**fields))
    assert [line.text for line in lines if line.own] == own
    assert all(line.brief for line in lines if line.own)


@pytest.mark.parametrize("made", [Recipe(**fields) for fields, _ in LISTED] + [recipe(seed=5)])
def test_the_listing_is_the_recipe(made):
    read = Recipe(**tomllib.loads("\n".join(line.text for line in listing(made))))
    assert (read.hash, read.name) == (made.hash, made.name)


# --- figures --------------------------------------------------------------------------------------


def values_of(run, metric):
    epochs = max(row["epoch"] for row in run.epochs())
    table = np.full((len(run.recipes), epochs), np.nan)
    for row in run.epochs():
        table[row["member"], row["epoch"] - 1] = row[metric]
    return table


def test_a_group_is_its_mean_and_the_confidence_band_of_the_mean(runs):
    run = RunDir.open(runs / "study" / "adam")
    figure = figures.curves({"adam": run, "slow": runs / "study" / "slow"}, "val_loss")
    (axes,) = figure.axes
    values = values_of(run, "val_loss")
    np.testing.assert_allclose(axes.lines[0].get_ydata(), values.mean(0))
    band = axes.collections[0].get_paths()[0].vertices
    low, high = scipy.stats.t.interval(0.95, 9, loc=values.mean(0), scale=scipy.stats.sem(values))
    for epoch in (1, 7, 20):
        at = band[band[:, 0] == epoch, 1]
        np.testing.assert_allclose([at.min(), at.max()], [low[epoch - 1], high[epoch - 1]])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "adam (n = 10)",
        "slow (n = 10)",
    ]


def test_many_members_are_their_median_and_bands(runs):
    run = RunDir.open(runs / "rates")
    (axes,) = figures.curves(run, "val_accuracy").axes
    percent = 100 * values_of(run, "val_accuracy")
    np.testing.assert_allclose(axes.lines[0].get_ydata(), np.nanmedian(percent, 0))
    inner = axes.collections[1].get_paths()[0].vertices
    at = inner[inner[:, 0] == 10, 1]
    np.testing.assert_allclose([at.min(), at.max()], np.nanpercentile(percent[:, 9], [25, 75]))
    assert axes.get_ylabel() == "Validation accuracy in %"


def test_few_members_are_lines_of_their_own(runs):
    run = RunDir.open(runs / "five-seeds")
    (axes,) = figures.curves(run, "val_loss").axes
    np.testing.assert_allclose(
        [line.get_ydata() for line in axes.lines], values_of(run, "val_loss")
    )
    assert len({(line.get_color(), str(line._unscaled_dash_pattern)) for line in axes.lines}) == 5


def test_the_best_epoch_is_marked(runs):
    run = RunDir.open(runs / "one")
    (axes,) = figures.training_curves(run, "loss").axes
    best = min(run.epochs(0), key=lambda row: row["val_loss"])
    (mark,) = [line for line in axes.lines if line.get_marker() == "o"]
    assert (mark.get_xdata()[0], mark.get_ydata()[0]) == (best["epoch"], best["val_loss"])
    assert f"at epoch {best['epoch']}" in mark.get_label()


FORMS = [
    lambda run: run,
    lambda run: run.path,
    lambda run: str(run.path),
    lambda run: [(run.path, m) for m in range(5)],
    lambda run: [SimpleNamespace(directory=run.path, member=m) for m in range(5)],
]


@pytest.mark.parametrize("form", FORMS)
def test_members_may_be_given_in_any_form(runs, form):
    run = RunDir.open(runs / "five-seeds")
    assert (
        courses.gather(form(run), "val_loss").values.tolist() == values_of(run, "val_loss").tolist()
    )


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_a_figure_is_saved_as_its_suffix_says(runs, tmp_path, suffix):
    figures.curves(runs / "one", "val_loss", tmp_path / f"loss.{suffix}", x="seconds", title="Loss")
    assert (tmp_path / f"loss.{suffix}").stat().st_size > 1000


def test_a_metric_nobody_measured_is_an_input_error(runs):
    with pytest.raises(
        InputError, match="got 'val_f1'; expected a metric that these runs have measured"
    ):
        figures.curves(runs / "one", "val_f1")


LABELS = [
    ["a"],
    ["short", "a very long label of a group " * 2] * 3,
    [f"member {i}" for i in range(8)],
]


@pytest.mark.parametrize("labels", LABELS)
def test_the_legend_is_never_over_the_data(runs, labels):
    figure = figures.curves(
        {f"{label}{i}": runs / "one" for i, label in enumerate(labels)}, "val_loss", title="Title"
    )
    figure.canvas.draw()
    (axes,) = figure.axes
    legend, data = axes.get_legend().get_window_extent(), axes.get_window_extent()
    assert legend.y0 >= data.y1 - 1
    assert axes.title.get_window_extent().y0 >= legend.y0


def test_smoothing_is_a_running_mean_without_what_is_not_finite():
    values = np.array([1.0, 2.0, np.nan, 4.0, 5.0, 6.0])
    found = courses.smoothed(values, 2)
    np.testing.assert_allclose(found, [1, 1.5, np.nan, 4.5, 5, 6])


def test_one_member_that_explodes_does_not_flatten_the_others(tmp_path):
    run = make_run(tmp_path / "run", [recipe(seed=seed) for seed in range(4)], epochs=20)
    run.add_epochs([{"member": 3, "epoch": 20, "step": 460, "val_loss": 1e9}])
    (axes,) = figures.curves(run, "val_loss").axes
    assert axes.get_ylim()[1] < 50


# --- the page -------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Fails at a tag that is not closed in order; collects what a page refers to."""

    VOID = ("meta", "wbr", "br", "input", "link", "img", "hr")

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.tags, self.words = [], [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.open += [] if tag in self.VOID else [tag]
        attrs = dict(attrs)
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.links += [attrs[name] for name in ("src", "href", "xlink:href") if name in attrs]

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open = self.open[:-1] if tag not in self.VOID else self.open

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.mark.parametrize("kind", KINDS)
def test_a_report_is_one_sound_page_that_fetches_nothing(runs, kind):
    place = run_page.write_report(RunDir.open(runs / kind))
    assert place == runs / kind / "report.html"
    text = place.read_text()
    read = Page(text)
    assert len(read.ids) == len(set(read.ids))
    assert all(link.startswith("#") and link[1:] in read.ids for link in read.links)
    # the banner of uPlot names its home, which nothing asks for
    assert not re.search(
        r"url\((?!#)|@import|https?://(?!www\.w3\.org/|github\.com/leeoniya/uPlot)", text
    )
    assert text.count("data-curves=") >= 4
    words = " ".join(" ".join(read.words).split())
    assert f"ravine evaluate {runs / kind}" in words
    assert "ravine resume" in words
    assert overview.sentences(overview.summarise(RunDir.open(runs / kind)))[0] in words


def test_a_report_tells_findings_execution_recipe_and_versions(runs):
    text = run_page.render(RunDir.open(runs / "one"))
    for said in (
        FINDING["evidence"],
        FINDING["cause"],
        *FINDING["consequences"],
        "Small weights fit less noise.",
        "--set optimizer.weight_decay=0.01 --set optimizer.kind=adamw",
        "likely",
        "cpu, float32, 2 threads",
        "small and dense",
        "lr = 0.003",
        f"numpy {np.__version__}",
    ):
        assert said in text


def test_a_report_of_a_run_just_begun(empty):
    assert "0 of 30 epochs are done" in run_page.render(empty)


def test_what_people_wrote_is_text_and_not_markup(tmp_path):
    evil = "<script>alert(1)</script>"
    findings = [(1, 0, evil, {"code": evil, "cause": evil})]
    run = make_run(tmp_path / "run", [recipe(name=evil)], epochs=3, findings=findings)
    text = run_page.render(run)
    assert evil not in text
    assert text.count("&lt;script&gt;") >= 4


def test_figures_in_a_page_take_its_colours(runs):
    svg = str(
        run_page.inline_svg(
            figures.training_curves(RunDir.open(runs / "one"), "loss"), "x", 'a "label"'
        )
    )
    assert "var(--c0)" in svg
    assert not re.search("|".join(figures.COLOURS), svg)
    assert 'aria-label="a &#34;label&#34;"' in svg


def test_reports_import_no_torch():
    code = "import sys, ravine.report.run_page, ravine.report.figures; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_synthetic_runs_are_as_long_as_they_say(runs):
    run = RunDir.open(runs / "regression")
    assert len(run.epochs(0)) == recipe_epochs(run.recipes[0]) == 30
    assert measures.judged_by(run.metrics) == "r2"


def test_layers_over_training_are_shown_of_the_best_member_and_what_is_malformed_is_not(tmp_path):
    run = make_run(tmp_path / "run", [recipe(seed=0), recipe(seed=1)], epochs=4)
    part = {"counts": [1, 2, 1], "low": -1.0, "high": 1.0}
    layer = {"name": "<b>first</b>", "kind": "Linear", "weights": part, "gradients": part}
    layer |= {"activations": part, "gradient_norm": 0.5, "update_ratio": 0.001}
    for member in (0, 1):
        for step in range(1, 41):
            data = {"epoch": step / 23, "layers": [layer]}
            run.add_event(step, member, "layers", f"layers after {step} steps", data)
    for bad in ({}, {"epoch": 1, "layers": 3}, {"epoch": 1, "layers": [{"name": 1}]}):
        run.add_event(41, 0, "layers", "bad", bad)
    worse = {"epoch": 1, "layers": [layer | {"weights": {"counts": ["<"], "low": 0, "high": 1}}]}
    run.add_event(42, 0, "layers", "worse", worse)
    found = overview.layer_records(run, 1)
    assert {one["member"] for one in found} == {1}
    assert [found[0]["step"], found[-1]["step"]] == [1, 40]
    assert len(found) == 24
    assert overview.layer_records(run, 7)[0]["member"] == 0  # of whom nothing was recorded
    assert overview.layer_records(run, 0)[-1]["step"] == 40
    page = run_page.render(run)
    assert "Layers over training" in page
    assert "<b>first" not in page
    assert "layers after" not in page


def test_a_second_report_compiles_no_template(runs, monkeypatch):
    """Which took longer than training a small network."""
    run = RunDir.open(runs / "one")
    first = run_page.render(run)
    monkeypatch.delattr(Environment, "compile")
    assert run_page.render(run) == first
