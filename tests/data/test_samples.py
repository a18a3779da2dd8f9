"""``ravine data`` and ``ravine show``: what is in the data, in numbers and in pictures, before
anything is trained."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from ravine.app.cli import app
from ravine.data.inspect import examples
from ravine.data.pipeline import Pipeline
from ravine.recipe import Data

RNG = np.random.default_rng(0)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> tuple[dict, str]:
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1]), result.stderr


def picture(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("L"), dtype=float)


def write_houses(path):
    rows = [
        f"{'' if i % 10 == 3 else 50 + i % 40};{['Köln', 'Bonn; Süd'][i % 2]!r};7;{1000.5 * i}"
        for i in range(60)
    ]
    path.write_text(
        "Größe;Stadt;fest;Preis\n" + "\n".join(rows).replace("'", '"') + "\n", encoding="utf-8"
    )


# --- ravine data ----------------------------------------------------------------------------------


def test_images_are_shown_by_class(place):
    found, said = run("data", "digits")
    assert sum(part["samples"] for part in found["parts"].values()) == 1797
    assert found["parts"]["train"]["constant_features"] > 0
    assert sum(found["parts"]["train"]["class_counts"]) == found["parts"]["train"]["samples"]
    assert found["samples"] == "digits-samples.png"
    assert picture("digits-samples.png").std() > 50
    assert "1,294" in said
    assert "constant features" in said


def test_the_sheet_holds_samples_of_each_class():
    pipeline = Pipeline(Data(source="digits", validation=0.0))
    groups = examples.by_class(pipeline, each=6, most=20)
    assert [group.title for group in groups] == list("0123456789")
    x, y = pipeline.raw("train", pipeline.size("train"))
    for k, group in enumerate(groups):
        assert group.x.shape == (6, 1, 8, 8)
        of_class = x[y == k].numpy()
        assert all((of_class == image).all((1, 2, 3)).any() for image in group.x)


def test_a_rare_class_is_on_the_sheet():
    x = RNG.integers(0, 255, (5000, 4, 4)).astype("uint8")
    y = np.zeros(5000, dtype=int)
    y[[7, 4000]] = 1
    pipeline = Pipeline(Data(validation=0.0, test=0.0), arrays=(x, y))
    assert [len(group.x) for group in examples.by_class(pipeline, each=5, most=9)] == [5, 2]


def test_tables_show_columns_and_first_rows(place):
    write_houses(place / "houses.csv")
    found, said = run("data", "csv:houses.csv")
    columns = {column["name"]: column for column in found["columns"]}
    train = found["parts"]["train"]
    assert columns["Größe"]["missing"] == train["missing"] > 0
    assert columns["Größe"]["min"] >= 50
    assert columns["Stadt"]["kind"] == "category"
    assert sum(columns["Stadt"]["most"].values()) == train["samples"]
    decisions = {decision["name"]: decision["kind"] for decision in found["decisions"]}
    assert decisions == {"Größe": "number", "Stadt": "category", "fest": "constant"}
    assert train["min"] >= 50  # the codes of categories are not numbers
    assert found["task"] == "regression"
    assert train["target"]["max"] > 1000
    assert "Bonn; Süd" in said
    assert "the first rows" in said
    assert found["samples"] == "houses-samples.png"
    assert picture("houses-samples.png").std() > 10


def test_first_rows_are_whole_columns_in_any_terminal(place):
    """As many as fit, no word cut; the target always."""
    names = [f"a_long_column_name_{i}" for i in range(9)]
    rows = [
        ",".join(map(str, row)) + f",kind {i % 2}"
        for i, row in enumerate(RNG.integers(0, 99, (40, 9)))
    ]
    (place / "wide.csv").write_text("\n".join([",".join([*names, "answer"]), *rows]))
    _, said = run("data", "csv:wide.csv", "--target", "answer")
    (head,) = [line for line in said.splitlines() if "answer" in line and "┃" in line]
    assert head.replace("┃", " ").split() == [*names[:3], "answer"]
    assert "the first rows (6 columns more)" in said
    assert "…" not in said.replace("loading PyTorch …", "")


def test_texts_show_their_first_lines(place):
    (place / "faust.txt").write_text(
        "Habe nun, ach! Philosophie,\nGröße und Bemühn.\n" * 60, encoding="utf-8"
    )
    found, said = run("data", "text:faust.txt")
    assert "Größe und Bemühn." in said
    assert found["task"] == "sequence"
    assert "ö" in found["classes"]
    assert picture(found["samples"]).std() > 10


@pytest.mark.parametrize("source", ["spirals", "adding", "copying", "parity", "characters"])
def test_every_kind_of_data_has_a_sheet(source, place):
    found, _ = run("data", source)
    assert picture(found["samples"]).std() > 10


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (RNG.normal(size=(60, 3, 9, 7)), RNG.normal(size=(60, 2))),  # images, two targets
        (
            RNG.integers(0, 255, (60, 9, 7)).astype("uint8"),
            RNG.integers(0, 2, (60, 4)),
        ),  # bytes, several labels
        (RNG.normal(size=(60, 70)), RNG.integers(0, 30, 60) % 30),  # many columns, many classes
        (RNG.normal(size=(60, 2, 3, 4, 5)), np.arange(60) % 2),  # videos
        (RNG.normal(size=(60, 1)), np.arange(60) % 2),
        (RNG.normal(size=(60, 5, 6, 6)), np.arange(60) % 3),  # five channels
        (np.ones((60, 4)), np.arange(60) % 2),  # nothing but constants
        (RNG.integers(0, 9, (60, 12)), np.arange(60) % 2),  # tokens
    ],
)
def test_arrays_of_every_shape_have_a_sheet(x, y):
    from ravine.app.data import _sheet

    y = np.concatenate([np.arange(30), np.arange(30)]) if x.shape[1:] == (70,) else y
    figure = _sheet(Pipeline(Data(validation=0.0, test=0.0), arrays=(x, y)), "arrays")
    assert figure.axes or figure.texts


def test_streams_have_a_sheet():
    from ravine.app.data import _sheet

    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter([(torch.full((3, 4, 4), float(i)), i % 2) for i in range(50)])

    figure = _sheet(Pipeline(Data(validation=0.0, test=0.0), arrays=Stream()), "stream")
    assert len(figure.axes) > 4


# --- ravine show ----------------------------------------------------------------------------------


def test_show_draws_originals_beside_their_augmentations(place):
    found, _ = run("show", "--set", 'data.augment=["flip", {kind = "rotate", degrees = 20}]')
    assert found == {
        "sheet": "digits-augmented.png",
        "samples": 8,
        "draws": 7,
        "augment": ["flip", "rotate"],
    }
    assert picture("digits-augmented.png").std() > 50


def test_draws_are_those_of_training():
    """A flip upside down of probability one turns every original over."""
    pipeline = Pipeline(
        Data(source="digits", augment=[{"kind": "flip", "axis": "vertical", "p": 1.0}])
    )
    groups, _ = examples.augmented(pipeline, 5, 3)
    assert len(groups) == 5
    for group in groups:
        original, *draws = group.x
        for draw in draws:
            np.testing.assert_array_equal(draw, original[:, ::-1])


def test_mixed_targets_are_named():
    pipeline = Pipeline(Data(source="digits", augment=[{"kind": "mixup", "alpha": 5.0}]))
    groups, _ = examples.augmented(pipeline, 6, 4)
    captions = [caption for group in groups for caption in group.captions[1:]]
    assert any("%" in caption and "," in caption for caption in captions)


def test_the_sheet_shows_what_the_network_sees(place):
    pipeline = Pipeline(Data(source="digits", augment=["shift"], preprocess=["standardize"]))
    groups, seen = examples.augmented(pipeline, 4, 2)
    last = torch.as_tensor(np.stack([group.x[-1] for group in groups]))
    np.testing.assert_allclose(seen, pipeline.transform(last), atol=1e-5)


@pytest.mark.parametrize(
    ("source", "augment"),
    [("spirals", "noise"), ("adding", "time_shift"), ("copying", "time_mask")],
)
def test_tables_sequences_and_tokens_are_shown_augmented(source, augment, place):
    found, _ = run("show", "--set", f"data.source={source}", "--set", f"data.augment={augment}")
    assert found["samples"] == 8
    assert found["sheet"] == f"{source}-augmented.png"
    assert picture(found["sheet"]).std() > 10


# --- never over a file ----------------------------------------------------------------------------


def test_no_file_is_overwritten(place):
    (place / "spirals-samples.png").write_text("precious")
    found, _ = run("data", "spirals")
    assert found["samples"] == "spirals-samples-2.png"
    assert (place / "spirals-samples.png").read_text() == "precious"
    refused = CliRunner().invoke(app, ["data", "spirals", "--out", "spirals-samples.png"])
    assert refused.exit_code == 2
    assert "does not exist yet" in refused.output
    assert (place / "spirals-samples.png").read_text() == "precious"
    assert run("data", "spirals", "--out", "new/sheet.pdf")[0]["samples"] == "new/sheet.pdf"
    assert run("data", "spirals", "--out", "folder")[0]["samples"] == "folder/spirals-samples.png"


@pytest.mark.parametrize(
    ("arguments", "holds"),
    [
        (["show", "--set", "data.augment=[]"], ["data.augment", "shift"]),
        (["data", "spirals", "--out", "sheet.txt"], ["--out", ".png"]),
        (["show", "none.toml"], ["none.toml"]),
    ],
)
def test_bad_input(arguments, holds, place):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    assert all(part in result.output for part in holds)
    assert not list(place.iterdir())
