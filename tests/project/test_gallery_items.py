"""The gallery of the lectures' claims: its contract, and its scripts in quick mode."""

from __future__ import annotations

import ast
import json
import re
import xml.etree.ElementTree as tree
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ravine.app.cli import app
from ravine.errors import InputError
from ravine.gallery.collection import chosen, code, read, run, run_all, scripts
from ravine.gallery.drawing import COLOURS, in_both_themes
from ravine.gallery.item import Item, plain

SCRIPTS = scripts()
QUICK = {"ravine", "gradient_check"}  # a few seconds together
PAGES = Path(__file__).parents[2] / "docs" / "gallery"


# --- claims ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "bounds", "holds"),
    [
        (2.0, {"above": 1}, True),
        (2.0, {"above": 2}, False),
        (2.0, {"above": 1, "below": 1.5}, False),
        ([2.0, 2.1, 1.9], {"above": 1, "below": 3}, True),
        ([1.0, 3.0, 2.0], {"above": 1}, False),  # the mean is above, its interval is not
        ([1.0, np.nan, 2.0], {"above": 0}, False),
        (np.inf, {"below": 1e9}, False),
    ],
)
def test_a_claim_is_held_against_its_interval(values, bounds, holds):
    item = Item(Path())
    assert item.claim("number", values, **bounds) is holds
    assert item.numbers[0].true is holds


def test_the_interval_is_students():
    item = Item(Path())
    item.claim("number", [1.0, 2.0, 4.0], above=0)
    from scipy import stats

    low, high = stats.t.interval(0.95, 2, np.mean([1, 2, 4]), stats.sem([1, 2, 4]))
    assert item.numbers[0].low == pytest.approx(low)
    assert item.numbers[0].high == pytest.approx(high)


def test_a_time_is_judged_at_full_size_alone():
    quick, full = Item(Path(), quick=True), Item(Path())
    for item in (quick, full):
        assert not item.claim("a ratio of times", 0.5, above=1, timed=True)
    assert [quick.numbers[0].judged, full.numbers[0].judged] == [False, True]
    assert quick.numbers[0].shown() == "0.5 > 1 (a time: not judged in quick mode)"


def test_sizes_and_places(tmp_path):
    assert Item(tmp_path).size(10, 2) == 10
    assert Item(tmp_path, quick=True).size(10, 2) == 2
    assert Item(tmp_path).out("a") == tmp_path / "a"
    assert plain([]) == []


# --- scripts as they lie --------------------------------------------------------------------------


def test_scripts_are_numbered_and_named_once():
    assert [s.number for s in SCRIPTS] == sorted({s.number for s in SCRIPTS})
    assert len({s.name for s in SCRIPTS}) == len(SCRIPTS)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.name)
def test_a_script_has_a_title_a_claim_and_what_makes_it_fail(script):
    assert len(script.title) < 80
    assert len(script.claim) > 30
    assert len(script.to_fail) > 30
    parsed = ast.parse(script.path.read_text(encoding="utf-8"))
    (draw,) = [n for n in parsed.body if isinstance(n, ast.FunctionDef) and n.name == "draw"]
    called = ast.unparse(draw)
    assert "item.claim(" in called
    assert "item.size(" in called, "quick mode asks for smaller sizes"
    named = {n.id for n in ast.walk(parsed) if isinstance(n, ast.Name)}
    for word in re.findall(r"``(\w+) = ", script.to_fail):
        assert word in named, f"{word}: no such name to change"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.name)
def test_its_page_and_its_figure_are_in_the_docs(script):
    page = (PAGES / f"{script.path.stem}.md").read_text(encoding="utf-8")
    assert code(script) in page
    figure = (PAGES / "figures" / f"{script.path.stem}.svg").read_text(encoding="utf-8")
    assert "prefers-color-scheme:dark" in figure


def test_a_docstring_without_a_claim_is_refused(tmp_path):
    (tmp_path / "01_x.py").write_text('"""A title."""\n')
    with pytest.raises(InputError, match="without Claim and To see it fail"):
        read(tmp_path / "01_x.py")


# --- running --------------------------------------------------------------------------------------

SCRIPT = '''"""A title.

Claim: {claim}

To see it fail: take another number.
"""

from ravine.gallery.drawing import panels


def draw(item):
    item.claim("number", {number}, above=1)
    figure, axes = panels(1, 1)
    item.animate(figure, lambda k: axes[0].plot([k], [k], "o"), 2)
    return figure
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for i, number in enumerate(("2.0", "0.5", "1 / 0")):
        text = SCRIPT.format(claim="a claim of some length", number=number)
        (tmp_path / f"0{i + 1}_item{i}.py").write_text(text)
    monkeypatch.setattr("ravine.gallery.collection.folder", lambda: tmp_path)
    return tmp_path


def test_items_run_and_the_others_go_on(folder, tmp_path):
    found = list(run_all([], tmp_path / "out", quick=True))
    assert [f["true"] for f in found] == [True, False, False]
    assert found[1]["shown"] == ["number: 0.5 > 1"]
    assert "ZeroDivisionError" in found[2]["error"]
    stored = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert [i["name"] for i in stored["items"]] == ["item0", "item1", "item2"]
    assert stored["quick"] is True
    figures = {p.name for p in (tmp_path / "out" / "figures").iterdir()}
    assert [i["quick"] for i in stored["items"]] == [True, False, True]
    assert figures == {f"0{i}_item{i - 1}.{e}" for i in (1, 2) for e in ("svg", "png", "gif")}
    assert not (tmp_path / "out" / "runs" / "01_item0").exists()


def test_what_quick_sizes_do_not_show_is_run_at_full_size(folder, tmp_path):
    path = folder / "02_item1.py"
    path.write_text(path.read_text().replace("0.5", "item.size(3.0, 0.5)"))
    result = CliRunner().invoke(app, ["gallery", "2", "--quick", "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert re.search(r"2 item1 +true .* s, at full size", result.stderr)


def test_the_command(folder, tmp_path):
    result = CliRunner().invoke(app, ["gallery", "1", "--out", str(tmp_path / "a"), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout.splitlines()[-1])["items"][0]["true"] is True
    result = CliRunner().invoke(app, ["gallery", "item1", "--out", str(tmp_path / "b")])
    assert result.exit_code == 1
    assert "number: 0.5 [0.5, 0.5], not > 1" in result.stderr
    result = CliRunner().invoke(app, ["gallery", "item9", "--out", str(tmp_path / "c")])
    assert result.exit_code == 2
    assert "item9" in result.stderr
    assert not (tmp_path / "c").exists()
    listed = CliRunner().invoke(app, ["gallery", "--list"])
    assert listed.stdout.count("A title") == 3


def test_names_and_numbers(folder):
    assert [s.name for s in chosen(["02", "item0", "03_item2"])] == ["item1", "item0", "item2"]


def test_figures_follow_the_theme():
    svg = f'<svg xmlns="http://www.w3.org/2000/svg"><path style="stroke: {COLOURS[0]}"/></svg>'
    found = in_both_themes(svg)
    tree.fromstring(found)
    assert "stroke: var(--c0)" in found
    assert f"--c0:{COLOURS[0]}" in found


@pytest.mark.parametrize("script", [s for s in SCRIPTS if s.name in QUICK], ids=lambda s: s.name)
def test_quick(script, tmp_path):
    found = run(script, tmp_path, quick=True)
    assert found["true"], found


@pytest.mark.slow
@pytest.mark.parametrize(
    "script", [s for s in SCRIPTS if s.name not in QUICK], ids=lambda s: s.name
)
def test_quick_of_the_others(script, tmp_path):
    found = run(script, tmp_path, quick=True)
    assert found["true"], found
