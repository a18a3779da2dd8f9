"""What studies print and draw: tables around the best row, legends off the data, axes that fit what
was drawn."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.text import Text
from rich.console import Console

from ravine.study.advise import figures as advice
from ravine.study.gradcheck.figures import errors_figure
from ravine.study.landscape import figures as landscape
from ravine.study.live import LiveTable
from ravine.study.page import PageTable, _printed
from ravine.study.panels import legend, panels, style
from ravine.study.search import figures as search
from ravine.study.signals import figures as signals


def printed(table: PageTable, width: int = 80) -> str:
    console = Console(width=width)
    with console.capture() as captured:
        console.print(_printed(table, width))
    return captured.get()


def test_a_long_table_shows_the_rows_around_the_best():
    rows = [{"optimizer.lr": 10.0**-i, "final loss": float(i + 1)} for i in range(30)]
    said = printed(PageTable("Rates", rows, best=20))
    assert "1e-20" in said
    assert "1e-05" not in said
    assert "18 further rows" in said
    assert "further" not in printed(PageTable("Rates", rows[:12]))


def test_columns_that_say_nothing_are_left_to_the_report_and_words_stay_whole():
    row = {
        "variant": "momentum",
        "optimizer.lr": 0.31622776,
        "val_accuracy": [0.9045, 0.0143],
        "test_accuracy": [0.9234, 0.0053],
    }
    row |= {
        "p against the best": 0.518,
        "reached": "2 of 4",
        "epochs to target": 4.5,
        "seconds to target": 0.02,
        "diverged": 0,
    }
    said = printed(PageTable("In the end", [row, {**row, "p against the best": None}]))
    assert "iverged" not in said
    for word in (
        "momentum",
        "0.3162",
        "Validation",
        "accuracy",
        "against",
        "Reached",
        "target",
        "90.45 ± 1.43 %",
        "92.34 ± 0.53 %",
    ):
        assert word.lower() in said.lower()
    assert "seconds" not in said.lower()  # what does not fit into 80 columns


FIELDS = {
    "optimizer.lr": 0.1851,
    "model.hidden": [256, 256, 256],
    "optimizer.weight_decay": 0.000826,
    "loss.label_smoothing": 0.0757,
}


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_search_shows_the_result_whatever_the_width_and_cuts_no_word(width):
    row = {"method": "random", **FIELDS, "val_accuracy": [0.9282, 0.0145], "seeds": 3}
    said = printed(PageTable("The best", [row]), width)
    assert "92.82 ± 1.45 %" in said
    live = LiveTable("search of odd", "val_accuracy", 4, quiet=True)
    live._console.width = width
    reporting = live.stage("random-1", [], [FIELDS])
    rows = [{"member": 0, "epoch": 1.0, "val_accuracy": 1.0}]
    reporting(SimpleNamespace(step=1, total=2, rows=rows))
    screen = Console(width=width)
    with screen.capture() as captured:
        screen.print(live._table())
    said += captured.get()
    assert "100.00 %" in captured.get()
    words = said.replace("│", " ").replace("┃", " ").replace("[", " ").replace(",", " ").split()
    whole = ("Method", "random", "hidden", "stage", "epoch", "Validation", "accuracy", "random-1")
    pieces = {w[:i] for w in whole for i in range(2, len(w))} - {"random"}
    assert not pieces & set(words)
    assert ("0.000826" in said) == (width > 60)
    assert all(len(line) <= width for line in said.splitlines())


@pytest.mark.parametrize("length", [4, 30, 70, 150])
def test_a_legend_neither_leaves_the_figure_nor_squeezes_the_axes(length):
    with style():
        figure, (axes,) = panels(1, 1, 5.6, 3.4)
        for i in range(4):
            axes.plot([0, 1], [i, i], label=f"{i} " + "word " * (length // 5))
        legend(axes)
        figure.draw_without_rendering()
    whole, box = figure.bbox, axes.get_legend().get_window_extent()
    assert box.x1 <= whole.x1 + 1
    assert box.y1 <= whole.y1 + 1
    assert box.y0 >= axes.get_window_extent().y1 - 1
    assert axes.get_window_extent().width > 0.7 * whole.width


@pytest.mark.parametrize(
    ("said", "values", "scale"),
    [
        ("loguniform:0.0003:0.03", [0.0003, 0.01, 0.02], "log"),
        ("uniform:0:0.6", [0.001, 0.3, 0.59], "linear"),
        ("choice:0.001,0.01,1", [0.001, 0.01, 1.0], "log"),
        ("choice:16,32", [16, 32, 16], "linear"),
        ("choice:0,0.001,1", [0.0, 0.001, 1.0], "linear"),
        ("choice:sgd,adam", ["sgd", "adam", "sgd"], "linear"),
    ],
)
def test_an_axis_is_logarithmic_where_draws_were(said, values, scale):
    trials = [
        SimpleNamespace(
            method="random",
            round=0,
            values={"optimizer.x": value},
            result={"val_accuracy": 0.5 + 0.1 * i},
        )
        for i, value in enumerate(values)
    ]
    found = search.field_figures(trials, "val_accuracy", {"random": [[f"optimizer.x={said}"]]})
    ((_, figure),) = found.values()
    assert figure.axes[0].get_xscale() == scale


def test_limits_of_gradients_differ_by_more_than_colour():
    table = [{"tensor": "w", "point": "initial", "relative error": 1e-9, "median error": 1e-10}]
    lines = errors_figure(table, 1e-7, 1e-4).axes[0].get_lines()[-2:]
    assert lines[0]._unscaled_dash_pattern != lines[1]._unscaled_dash_pattern


def surface(name: str, roughness: float) -> dict:
    x = np.linspace(-1, 1, 5)
    measured = {"loss": 1 + x[None] ** 2, "accuracy": [list(1 - x**2 / 2)], "roughness": roughness}
    return {"name": name, "x": x, "y": np.zeros(1), **measured}


def test_two_profiles_differ_by_more_than_colour():
    axes = landscape.profile_figure([surface("one", 0.0), surface("two", 0.0)], "line").axes[0]
    one, two = axes.get_lines()[:2]
    assert (one.get_linestyle(), one.get_marker()) != (two.get_linestyle(), two.get_marker())


@pytest.mark.parametrize(("other", "claimed"), [(0.0, False), (0.1, True)])
def test_the_rougher_surface_is_named_only_if_there_is_one(other, claimed):
    found = [surface("one", 0.0), surface("two", other)]
    names = {
        "evaluated": "one at a time",
        "seconds a point": 0.1,
        "seconds a point, one at a time": 0.1,
    }
    surfaces = [{"name": one["name"], "roughness": one["roughness"], **names} for one in found]
    summary = {"landscape": "plane", "surfaces": surfaces, "samples": 5, "split": "train"}
    study = SimpleNamespace(recipe=SimpleNamespace(name="r"))
    said = landscape.page_of(study, summary, found, ()).sentences
    assert any("rougher" in sentence for sentence in said) == claimed


def test_errors_that_were_stored_are_drawn_in_per_cent():
    names = ("optimal", "train", "train_dev", "validation", "test")
    found = dict.fromkeys(names) | {"optimal": 0.01, "train": 0.03, "validation": 0.07}
    stored = json.loads(json.dumps({"errors": {**found, "unit": "error"}}))
    (axes,) = advice.errors_figure(stored).axes
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([1, 3, 7])


def test_the_worst_mistakes_are_shown_row_by_row():
    rows = [{"target": i, "predicted": i + 1, "loss": 9.0 - i} for i in range(3)]
    figure = advice.mistakes_figure(rows, np.zeros((3, 1, 4, 4)), columns=2)
    texts = [text.get_text() for text in figure.findobj(Text)]
    assert [text for text in texts if ">" in text] == ["0 > 1", "1 > 2", "2 > 3"]


def test_a_network_that_vanishes_keeps_its_size_worst(monkeypatch):
    for name in ("depth_figure", "histogram_figure"):
        monkeypatch.setattr(signals, name, lambda *_: None)
    table = [
        {
            **{"activation": name, "initializer": "normal"},
            **{"signal, last / first layer": size, "gradient, first / last layer": None},
        }
        for name, size in (("sigmoid", 1e-9), ("relu", 0.9), ("tanh", 1e-2))
    ]
    study = SimpleNamespace(recipe=SimpleNamespace(name="a table"))
    (said, _) = signals.page_of(study, {"table": table, "networks": []}).sentences
    assert "best by normal with relu" in said
    assert "worst by normal with sigmoid" in said


def test_a_variance_that_is_nothing_has_no_place_on_a_logarithmic_axis():
    layers = [{"z variance": size} for size in (1.0, 0.0, None)]
    network = {"activation": "relu", "initializer": "normal", "layers": layers, "theory": None}
    (axes,) = signals.depth_figure([network], "z variance").axes
    np.testing.assert_array_equal(axes.get_lines()[0].get_ydata(), [1.0, np.nan, np.nan])


def test_every_second_method_of_a_search_is_drawn_hollow():
    trial = SimpleNamespace(values={"optimizer.lr": 0.1}, result={"val_accuracy": 0.5})
    with style():
        _, (axes,) = panels(1, 1, 3.0, 2.0)
    for i in range(3):
        search._cloud(axes, "optimizer.lr", [trial], [trial], "val_accuracy", i, None)
    hollow = [line.get_markerfacecolor() == "none" for line in axes.get_lines()]
    assert hollow == [False, True, False]
