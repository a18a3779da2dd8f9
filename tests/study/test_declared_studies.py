"""A study is declared once: a new one is a command, is stored, and is resumed, by its signature
alone."""

from __future__ import annotations

import inspect
import json
import re
import sys
import typing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

import ravine
import ravine.study
from ravine import InputError, Recipe
from ravine.app import studies
from ravine.app.cli import app
from ravine.app.studies import resume_command
from ravine.study.declare import Common, OfRecipe, resume_study
from ravine.study.signature import declarations

RUNNER = CliRunner()
BLOBS = Recipe(data={"source": "blobs"}, model="softmax", stop={"after": "1ep"})
MADE_UP = '''"""A study that is made up."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Unpack

from ravine.catalogue import Count, Positive
from ravine.recipe import Recipe
from ravine.app.studies import resume_command
from ravine.study.declare import Common, Conclusion, study
from ravine.study.directory import Study
from ravine.study.signature import Names, Numbers
from ravine.study.page import Page


@study
def widths(
    study: Study,
    recipe: Recipe,
    *,
    times: Count = 2,
    scale: Positive = 1.5,
    how: Literal["up", "down"] = "up",
    names: Names = ("a", "b"),
    numbers: Numbers | None = None,
    within: str | None = "all",
    plainly: bool = False,
    **common: Unpack[Common],
) -> Conclusion:
    """Made up for a test.

    Args:
        times: How often.
        scale: How much,
            said on two lines.
        how: Up or down.
        names (--label): Names by commas.
        numbers: Numbers by commas.
        within: Where.
        plainly: Or not.
    """
    recipes = [recipe.edit({"seed": i}) for i in range(times)]
    runs = study.train("runs", recipes)
    if Path("stop").exists():
        raise KeyboardInterrupt
    marks = study.once("marks", lambda: Path("marks").open("a").write("x"))
    options = [times, scale, how, list(names), numbers, within, plainly]
    summary = {"losses": [run.result["val_loss"] for run in runs], "options": options, "marks": marks}
    return {**summary, "failure": "it went down." if how == "down" else None}, Page("Made up", ["Done."])
'''


@pytest.fixture
def made_up(tmp_path, monkeypatch):
    """The package with one more file, and a command line made anew."""
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "widths.py").write_text(MADE_UP, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        ravine.study, "__path__", [*ravine.study.__path__, str(tmp_path / "package")]
    )
    app = typer.Typer()
    for command in studies.commands():
        app.command(command.__name__)(command)
    yield app
    sys.modules.pop("ravine.study.widths", None)


WORDS = ["--set", "data={source='blobs'}", "--set", "model=softmax", "--set", "stop.after=1ep"]


def test_one_file_is_a_command_is_stored_and_is_resumed(made_up, tmp_path, monkeypatch, capsys):
    shown = RUNNER.invoke(made_up, ["widths", "--help"], terminal_width=200).output
    for text in (
        "How much, said on two lines.",
        "--label",
        "up|down",
        "--no-within",
        "Made up for",
    ):
        assert text in shown
    words = [
        "widths",
        *WORDS,
        "--times",
        "3",
        "--label",
        "c,d",
        "--numbers",
        "1,2.5",
        "--no-within",
    ]
    (tmp_path / "stop").touch()
    out = tmp_path / "out"
    killed = RUNNER.invoke(made_up, [*words, "--plainly", "--out", str(out), "--quiet"])
    assert killed.exit_code != 0
    assert not (out / "summary.json").exists()
    stored = json.loads((out / "study.json").read_text(encoding="utf-8"))
    assert stored["kind"] == "widths"
    expected = {"times": 3, "scale": 1.5, "how": "up", "names": ["c", "d"], "numbers": [1.0, 2.5]}
    assert stored["options"] == {**expected, "within": None, "plainly": True}
    (tmp_path / "stop").unlink()
    found = resume_study(out, quiet=True)
    assert found["options"] == [3, 1.5, "up", ["c", "d"], [1.0, 2.5], None, True]
    assert len(found["losses"]) == 3
    resume_command(out, None, quiet=False, json_=False, open_=False)
    assert f"{out} is finished: nothing was trained\n" in capsys.readouterr().err
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or True)
    again = RUNNER.invoke(made_up, [*words, "--plainly", "--out", str(out), "--json", "--open"])
    assert opened == [Path(found["report"]).resolve().as_uri()]
    assert json.loads(again.stdout.strip().splitlines()[-1]) == found
    assert (tmp_path / "marks").read_text(encoding="utf-8") == "x"  # computed once


def test_it_is_public_in_python_and_its_failure_is_an_exit_code(made_up, tmp_path):
    found = ravine.widths(BLOBS, times=1, out=tmp_path / "a", quiet=True)
    assert found["options"][0] == 1
    went = RUNNER.invoke(
        made_up, ["widths", *WORDS, "--how", "down", "--quiet", "--out", str(tmp_path / "b")]
    )
    assert went.exit_code == 1
    assert "it went down." in str(went.exception)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"times": 0}, "--times: got 0; expected a whole number of at least 1"),
        ({"times": 1.5}, "--times: got 1.5"),
        ({"how": "upp"}, "--how: got 'upp'; expected one of up, down; did you mean 'up'?"),
        ({"numbers": "1,x"}, "--numbers: got 'x'; expected numbers by commas"),
        ({"scale": -1}, "--scale: got -1; expected a number greater than 0"),
        ({"tims": 3}, "did you mean 'times'"),
    ],
)
def test_wrong_options_get_one_message_and_nothing_is_written(options, text, made_up, tmp_path):
    with pytest.raises(InputError) as caught:
        ravine.widths(BLOBS, **options, out=tmp_path / "out", quiet=True)
    assert text in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", declarations())
def test_every_study_is_public_with_keywords_that_an_editor_completes(name):
    assert name in ravine.__all__
    parameters = inspect.signature(getattr(ravine, name)).parameters
    declared = declarations()[name]
    names = [*(subject.name for subject in declared.subjects), *declared.options]
    common = Common if declared.of_runs else OfRecipe
    assert set(parameters) == {*names, *common.__annotations__}
    source = inspect.getsource(ravine)
    static = rf"from ravine\.study\.{name}\.study import (\w+, )?{name}\n"  # what editors complete
    assert re.search(static, source)
    assert typing.get_type_hints(Common)
    assert declared.summary
    assert all(option.help for option in declared.options.values())


@pytest.mark.parametrize(
    "line",
    [
        "lr --rates 100000000",
        "compare --over optimizer=adam,sgd --seeds 1000000000",
        "ensemble --members 1000000000",
        "search --members 1000000000",
        "lottery --rounds 1000000000",
        "train --seeds 1000000000",
        "signals --depth 1000000000",
    ],
)
def test_a_slip_of_the_key_is_not_waited_for(line, tmp_path, monkeypatch):
    """Recipes without end would be made before the first is trained."""
    monkeypatch.chdir(tmp_path)
    done = RUNNER.invoke(app, [*line.split(), "--set", "data.source=blobs", "--out", "there"])
    assert done.exit_code == 2
    assert re.search(r"(to|<=)\s*10000?\D", done.output)
    assert list(tmp_path.iterdir()) == []


def test_a_network_without_layers_to_follow_is_refused(tmp_path):
    """That of tables: its layers hold several members, and take no other inputs than theirs."""
    recipe = BLOBS.edit({"model": {"kind": "tabular", "members": 3}})
    with pytest.raises(InputError, match="a network without layers whose signals are followed"):
        ravine.signals(recipe, depth=0, samples=8, out=tmp_path / "there", quiet=True)
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize("given", [(), (ravine.Recipe(), "houses.csv")])
def test_a_call_without_its_subject_says_how_to_call(given):
    with pytest.raises(InputError, match=r"recipe first, then options by name; call ravine.lr\("):
        ravine.lr(*given)


def houses(place: Path) -> Path:
    rng = np.random.default_rng(0)
    size, kind = rng.normal(50, 10, 200), rng.choice(list("abc"), 200)
    frame = pd.DataFrame({"size": size, "kind": kind, "price": 3 * size + 20 * (kind == "a")})
    frame.to_csv(place / "houses.csv", index=False)
    return place / "houses.csv"


def test_a_study_of_ones_own_table_in_one_call(tmp_path, monkeypatch):
    """The same recipe as the command of the same words makes."""
    path = houses(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    options = {
        "rates": 3,
        "after": "2it",
        "target": "price",
        "batch": 32,
        "seed": 3,
        "epochs": 2,
        "quiet": True,
    }
    ravine.lr(path, **options, out=tmp_path / "path")
    ravine.lr(pd.read_csv(path), **options, out=tmp_path / "frame")
    words = ["--rates=3", "--after=2it", "--target=price", "--batch=32", "--seed=3", "--epochs=2"]
    RUNNER.invoke(app, ["lr", str(path), *words, "--quiet", "--out", str(tmp_path / "typed")])
    path, frame, typed = (
        json.loads((tmp_path / place / "study.json").read_text())["recipe"]
        for place in ("path", "frame", "typed")
    )
    assert path == typed
    assert path["data"]["source"]["target"] == "price"
    assert (path["data"]["batch"], path["seed"]) == (32, 3)
    for recipe in (path, frame):
        recipe["data"]["source"].pop("path")
        recipe.pop("name")
    assert path == frame


def test_a_targets_text_is_a_column_beside_a_number_to_reach(tmp_path):
    path, words = houses(tmp_path), {"seeds": 2, "tune": None, "quiet": True, "steps": 2}
    ravine.compare(path, ["optimizer.lr=0.1,0.01"], target="price", **words, out=tmp_path / "a")
    stored = json.loads((tmp_path / "a" / "study.json").read_text())
    assert stored["recipe"]["data"]["source"]["target"] == "price"
    assert stored["options"]["target"] is None


def test_keywords_change_a_recipe_too_and_a_models_name_is_a_field(tmp_path):
    ravine.lr(BLOBS, rates=3, after="1it", lr=0.5, model="mlp", quiet=True, out=tmp_path / "there")
    stored = json.loads((tmp_path / "there" / "study.json").read_text())
    assert stored["recipe"]["optimizer"]["lr"] == 0.5
    assert stored["recipe"]["model"]["kind"] == "mlp"
    assert stored["given"] == []


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"taget": "price"}, "did you mean 'target'"),
        ({"target": "pric"}, "did you mean 'price'"),
        ({"target": "price", "epochs": 2, "steps": 3}, "one of them"),
        ({"target": "price", "epochs": "x"}, "got 'xep'"),
    ],
)
def test_a_wrong_keyword_of_a_study_is_refused(tmp_path, given, told):
    with pytest.raises(InputError, match=told):
        ravine.lr(houses(tmp_path), **given, quiet=True, out=tmp_path / "there")
    assert not (tmp_path / "there").exists()
