"""The table of what is measured: complete over the catalogue, the right way up, and what every reader
goes by."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from ravine import Recipe, measures
from ravine.catalogue import find, make, table
from ravine.engine.loop.halving import Halving
from ravine.engine.loop.stopping import Stopping
from ravine.optim.rows.planned_rates import Schedules
from ravine.report import overview, run_index, run_page
from ravine.rundir import RunDir
from ravine.study import measuring
from ravine.study.live import LiveTable
from ravine.study.search import figures as pictures
from ravine.study.search.study import Trial

REALS = ("mse", "rmse", "mae", "r2")
MATRIX = "confusion_matrix"
CATALOGUE = sorted(table("metric"))
ONES = ["confusion_matrix_0_0", "confusion_matrix_0_1"]
NAMES = [name for name in CATALOGUE if name != MATRIX] + ONES + ["loss", "head0_rmse"]
WATCHED = [f"{split}_{name}" for split in ("train", "val", "test") for name in NAMES] + [
    "grad_norm"
]
NEITHER = ("lr", MATRIX)


def measured(name: str) -> tuple[float, float]:
    """A metric of answers that are right, and of answers that are mostly wrong."""
    rng = np.random.default_rng(0)
    base = name.partition("_matrix")[0] + "_matrix" if name.startswith(MATRIX) else name
    function = find("metric", base).function()
    if base in REALS:
        target = torch.as_tensor(rng.normal(size=(60, 1)))
        outputs = target + 0.01, -target
    else:
        target = torch.as_tensor(rng.integers(0, 3, 60))
        right = 4 * torch.nn.functional.one_hot(target, 3).double()
        outputs = right, -right
    given = {"top_k": {"k": 1}, "mean_cost": {"costs": [[0, 1, 1], [1, 0, 1], [1, 1, 0]]}}
    kwargs = given.get(base, {})
    values = [function(output, target, **kwargs) for output in outputs]
    if base == MATRIX:
        i, j = map(int, name.split("_")[-2:])
        values = [value[i, j] for value in values]
    return float(values[0]), float(values[1])


def test_every_metric_of_the_catalogue_is_in_the_table():
    assert set(CATALOGUE) <= set(measures.MEASURES)


@pytest.mark.parametrize("name", [name for name in CATALOGUE if name != MATRIX] + ONES)
def test_right_answers_are_better_than_wrong_ones(name):
    good, bad = measured(name)
    assert measures.better_is(f"val_{name}") == ("min" if good < bad else "max")
    if measures.is_percent(name):
        assert 0 <= min(good, bad) <= max(good, bad) <= 1


def test_a_name_is_known_by_its_last_words_whatever_stands_before():
    assert {measures.better_is(f"{split}_perplexity") for split in ("train", "val", "test")} == {
        "min"
    }
    assert measures.better_is("head1_accuracy") == "max"
    assert measures.better_is("gap_error") == "min"  # an own metric that says so by its name
    assert measures.better_is("terror") == measures.better_is("dice") == "max"  # unknown
    assert {measures.find(name).better for name in NEITHER} == {None}
    assert measures.find("best_seconds").better == "min"
    assert measures.show("best_seconds", 12.3) == "12 s"


# --- the readers, each given a good value, a bad one and the better of both -----------------------


def pair(metric: str) -> tuple[float, float]:
    """A better and a worse value of a metric, by what the metric itself gives."""
    what = metric.removeprefix("train_").removeprefix("val_").removeprefix("test_")
    if what in ("loss", "grad_norm"):
        return 0.25, 0.75
    good, bad = measured(what.removeprefix("head0_"))
    return (0.25, 0.75) if good < bad else (0.75, 0.25)


@pytest.mark.parametrize("metric", WATCHED)
def test_a_plateau_schedule_falls_when_the_metric_gets_worse(metric):
    good, bad = pair(metric)
    part = make("schedule", {"kind": "on_plateau", "monitor": metric, "patience": "0ep"})

    def factor(values: list[float]) -> float:
        schedules = Schedules([part], epoch_steps=1, totals=[9])
        for value in values:
            schedules.observe({metric: np.array([value])})
        return float(schedules.factors(0, 1)[0, 0])

    assert factor([bad, good]) == 1.0
    assert factor([good, bad]) == pytest.approx(0.1)


class Steps:
    epoch_steps = 1

    def steps(self, duration, total=None):
        return int(duration.removesuffix("ep"))


@pytest.mark.parametrize("metric", WATCHED)
def test_early_stopping_and_the_best_weights(metric):
    good, bad = pair(metric)

    def judged(values: list[float]) -> Stopping:
        stop = {"after": "99ep", "monitor": metric, "patience": "1ep"}
        judge = Stopping(Recipe(stop=stop), Steps())
        for epoch, value in enumerate(values, 1):
            judge.observe(epoch, {metric: value}, 0.0)
        return judge

    better, worse = judged([bad, good]), judged([good, bad])
    assert (better.reason, better.best_step) == (None, 2)
    assert (bool(worse.reason), worse.best_step) == (True, 1)


@pytest.mark.parametrize("metric", WATCHED)
def test_halving_keeps_the_better(metric):
    good, bad = pair(metric)
    rule = Halving(metric, eta=2)
    assert rule.stays(good, [good, bad])
    assert not rule.stays(bad, [good, bad])


@pytest.mark.parametrize("metric", WATCHED)
def test_the_best_of_a_table_and_of_a_study(metric):
    good, bad = pair(metric)
    rows = [{metric: bad}, {metric: good}, {metric: math.nan}]
    assert measures.best(rows, metric) == {metric: good}
    assert sorted(rows, key=lambda row: measuring.score(row, metric))[0] == {metric: good}


@pytest.mark.parametrize("metric", [name for name in WATCHED if name.startswith("val_")])
def test_the_best_member_of_a_report(metric):
    good, bad = pair(metric)
    members = [{"member": i, metric: value} for i, value in enumerate((bad, good))]
    known = {"name": "r", "state": "finished", "created": "", "steps": 1, "epochs": 1.0}
    known |= {"total_epochs": 1.0, "seconds": 1.0, "varies": [], "members": members}
    seen = overview.Summary(**known, judged_by=metric.removeprefix("val_"))
    assert seen.best["member"] == 1
    assert run_page._better(metric) == ("min" if good < bad else "max")


@pytest.mark.parametrize("metric", WATCHED)
def test_the_live_table_shows_the_better_first(metric):
    good, bad = pair(metric)
    live = LiveTable("Search", metric, 1, quiet=True)
    rows = [{"member": i, "epoch": 1.0, metric: v} for i, v in enumerate((bad, good))]
    live.rows = {("round", row["member"]): row for row in rows}
    shown = list(live._table().columns[-1].cells)
    assert shown == [measures.show(metric, good), measures.show(metric, bad)]


@pytest.mark.parametrize("metric", WATCHED)
def test_the_pictures_of_a_search(metric):
    good, bad = pair(metric)
    rows = [{metric: [value, 0.0]} for value in (bad, good, math.nan)]
    assert [row[metric][0] for row in pictures._sorted(rows, metric)][:2] == [good, bad]
    trials = [
        Trial("random", 0, {"optimizer.lr": 0.1}, Recipe(), {metric: value}, value)
        for value in (bad, good, bad)
    ]
    (line,) = pictures.progress_figure(trials, metric).axes[0].lines
    scale = 100 if measures.is_percent(metric) else 1
    assert line.get_ydata().tolist() == [scale * bad, scale * good, scale * good]


def test_the_server_sends_titles_and_directions(tmp_path):
    names = [name for name in WATCHED if name.startswith("val_")] + ["grad_norm", "lr"]
    with RunDir.create(tmp_path / "run", [Recipe()], facts={}) as run:
        row = {"member": 0, "epoch": 1.0, "step": 1, "seconds": 1.0, "train_loss": 1.0}
        run.add_epochs([row | dict.fromkeys(names, 0.5)])
        sent = json.loads(json.dumps(run_index.row(run)))
    assert sent["headline"] == {"value": 0.5, "text": "50.00 % accuracy (val)"}
    for name in names:
        what = name.removeprefix("val_")
        found = sent["measures"][what]
        assert found["title"] == measures.find(what).title
        if what != "lr":
            good, bad = pair(name)
            assert found["better"] == ("min" if good < bad else "max")
    assert sent["measures"]["lr"]["better"] is None
    assert sent["measures"]["top_k"]["percent"]
    page = (run_page._WEB / "index.js").read_text(encoding="utf-8")
    assert "accuracy" not in page  # the page knows no metric of its own
