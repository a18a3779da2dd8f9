"""Tables that are no text: spreadsheets, Parquet and Arrow files, DataFrames in Python."""

from __future__ import annotations

import datetime
import gzip
import io
import json
import re
import zipfile
from pathlib import Path

import numpy as np
import openpyxl
import pandas
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some

import ravine
from ravine.data.pipeline import Pipeline
from ravine.data.tables import file
from ravine.data.tables.as_text import MOST_CELLS, of_frame
from ravine.data.tables.load import from_csv, rows_by
from ravine.errors import InputError
from ravine.recipe import Data
from ravine.starters.frames import source_of
from ravine.starters.guess import guess


def houses(count: int = 120) -> pandas.DataFrame:
    draw = np.random.default_rng(0)
    size = draw.normal(80, 20, count).round(3)
    frame = pandas.DataFrame(
        {
            "size": np.where(draw.random(count) < 0.1, np.nan, size),
            "rooms": np.where(draw.random(count) < 0.1, np.nan, draw.integers(1, 9, count)),
            "town": draw.choice(["Ulm", "Köln", "Bonn, Süd"], count),
            "post": draw.choice(["01067", "10115"], count),
            "sold": pandas.Timestamp("2023-01-01") + pandas.to_timedelta(draw.integers(0, 700, count), "D"),
            "garden": draw.choice([True, False], count),
        }
    )  # fmt: skip
    frame["price"] = (3000 * size + 50_000 * (frame.town == "Köln")).round(2)
    return frame


def write(frame: pandas.DataFrame, place) -> None:
    {
        ".csv": lambda: frame.to_csv(place, index=False),
        ".xlsx": lambda: frame.to_excel(place, index=False),
        ".parquet": lambda: frame.to_parquet(place),
        ".feather": lambda: frame.to_feather(place),
        ".jsonl": lambda: frame.assign(sold=frame.sold.astype(str)).to_json(
            place, orient="records", lines=True, double_precision=15
        ),
    }[place.suffix]()


FORMS = [".xlsx", ".jsonl", ".parquet", ".feather", "frame"]


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_read_as_its_csv_file_is(tmp_path, form):
    frame = houses()
    write(frame, tmp_path / "t.csv")
    if form == "frame":
        place = source_of(frame)["path"]
    else:
        place = tmp_path / f"t{form}"
        write(frame, place)
        assert guess(place).source == {"kind": "csv", "path": str(place)}
    wanted = from_csv(tmp_path / "t.csv", "price", "auto", "one_hot", (), {})
    found = from_csv(type(tmp_path)(place), "price", "auto", "one_hot", (), {})
    kinds = {column["name"]: column["kind"] for column in found.facts["decisions"]}
    assert kinds == {
        "size": "number", "rooms": "number", "town": "category", "post": "category",
        "sold": "date", "garden": "flag",
    }  # fmt: skip
    assert found.facts["columns"] == wanted.facts["columns"]
    x, y = found.parts["train"].x, found.parts["train"].y
    assert torch.equal(x.nan_to_num(-9), wanted.parts["train"].x.nan_to_num(-9))
    assert torch.equal(y, wanted.parts["train"].y)


def test_objects_within_objects_are_columns_of_their_own(tmp_path):
    place = tmp_path / "t.ndjson"
    lines = [
        {"size": {"width": i, "depth": 0.5}, "town": None if i % 2 else "Köln", "y": 2 * i}
        for i in range(30)
    ]
    place.write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    assert list(file.read(place).columns) == ["size.width", "size.depth", "town", "y"]
    packed = tmp_path / "t.jsonl.gz"
    packed.write_bytes(gzip.compress(place.read_bytes()))
    assert list(file.read(packed).columns) == list(file.read(place).columns)
    assert guess(packed).source["kind"] == "csv"


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ('{"a": 1}\n{"a": 2', "line 2: got \"Expecting ',' delimiter at character 8"),
        ('{"a": ' * 100_000, "line 1: got 'maximum recursion"),
        ('{"a": 1}\n\n[1, 2]', "line 3: got"),
        ('{"a": [1, 2]}', "column 'a': got 'a cell that holds a list'"),
        ("", "at least one of each"),
    ],
)
def test_lines_that_are_no_objects_are_refused(tmp_path, lines, told):
    place = tmp_path / "t.jsonl"
    place.write_text(lines, encoding="utf-8")
    with pytest.raises(InputError) as refused:
        file.read(place)
    assert told in str(refused.value)


@settings(deadline=None, max_examples=60)
@given(
    some.lists(
        some.tuples(some.floats(allow_nan=False, allow_infinity=False), some.integers(-(2**62), 2**62)),
        min_size=3, max_size=30,
    )
)  # fmt: skip
def test_numbers_of_a_frame_come_back(rows):
    frame = pandas.DataFrame(rows, columns=["a", "b"])
    table = file.read(frame, texts=True, header=None)
    decisions = [
        {"name": name, "kind": "number", "decimal": ",", "thousands": ".", "unit": ""}
        for name in frame  # even where a German file was decided upon
    ]
    from ravine.data.tables.matrix import matrix

    found = matrix(table, decisions).numpy()
    np.testing.assert_allclose(found[:, 0], frame.a.to_numpy(float), rtol=1e-15)
    np.testing.assert_allclose(found[:, 1], frame.b.to_numpy(float), rtol=1e-15)


@pytest.mark.parametrize(
    ("cells", "text"),
    [
        ([1.0, 2.0, np.nan], ["1", "2", ""]),
        ([0.5, 2.0, np.nan], ["0.5", "2.0", ""]),
        (pandas.to_datetime(["2024-01-31", None, "2024-02-01"]), ["2024-01-31", "", "2024-02-01"]),
        (pandas.to_datetime(["2024-01-31 10:30", None]), ["2024-01-31 10:30:00", ""]),
        (pandas.to_timedelta(["12h", "2D"]), ["0.5", "2.0"]),
        ([True, False], ["True", "False"]),
        (["a,b", 'say "x"', None], ["a,b", 'say "x"', ""]),
        (pandas.array([1, None], "Int64"), ["1", ""]),
        (pandas.Categorical(["x", "y"]), ["x", "y"]),
    ],
)
def test_cells_of_a_frame_as_people_write_them(cells, text):
    frame = pandas.DataFrame({"k": range(len(text)), "a": cells})
    lines = of_frame(frame, "it").decode().split("\n", 1)
    assert lines[0] == "sep=,"
    read = pandas.read_csv(io.StringIO(lines[1]), dtype=str, keep_default_na=False)
    assert list(read.a) == text


def test_names_of_columns_that_are_no_texts():
    frame = pandas.DataFrame([[1, 2, 3.5]] * 4, columns=[0, "1", ("a", "b")])
    assert list(file.read(frame).columns) == ["column 0", "column 1", "a b"]


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (pandas.DataFrame({"a": []}), "0 rows and 1 columns"),
        (pandas.DataFrame(index=[1, 2]), "2 rows and 0 columns"),
        (pandas.DataFrame({"a": [[1, 2], [3]], "y": [1, 2]}), "column 'a': got 'a cell that holds a list"),
        (pandas.DataFrame({"a": [np.ones(2)] * 2, "y": [1, 2]}), "holds a ndarray"),
        (pandas.DataFrame([[1, 2], [3, 4]], columns=["a", "a"]), "two columns called 'a'"),
    ],
)  # fmt: skip
def test_frames_that_are_no_table(frame, said):
    with pytest.raises(InputError, match=re.escape(said)):
        ravine.train(frame, quiet=True)


# --- spreadsheets ---------------------------------------------------------------------------------


def report(place, *, sheets: int = 1) -> None:
    """A spreadsheet as people make them: titles above, an empty column before, a total below."""
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "Sales"
    sheet["B2"] = "Sales of 2024"
    for place_, name in enumerate(("shop", "day", "opened", "worked", "share", "sold")):
        sheet.cell(5, 2 + place_, name)
    draw = np.random.default_rng(0)
    for i, (day, hours, share, sold) in enumerate(draw.integers(1, 99, (40, 4)).tolist()):
        row = [
            f"shop {i % 3}", datetime.datetime(2024, 1, 1) + datetime.timedelta(day),
            datetime.time(8 + i % 3, 30), datetime.timedelta(hours=30 + hours), share / 7,
            "#DIV/0!" if i == 7 else sold,
        ]  # fmt: skip
        for place_, value in enumerate(row):
            sheet.cell(6 + i, 2 + place_, value)
    sheet.cell(47, 2, "Total")
    sheet.cell(47, 7, 4780)
    hidden = book.create_sheet("old", 0)
    hidden.append(["a", "b"])
    hidden.append([1, 2])
    hidden.sheet_state = "hidden"
    book.create_sheet("notes").append(["only a line"])
    for i in range(1, sheets):
        more = book.create_sheet(f"more {i}")
        more.append(["x", "y"])
        more.append([1, 2])
    book.save(place)


@pytest.mark.filterwarnings("ignore:report.xlsx")
def test_a_spreadsheet_as_people_make_them(tmp_path):
    report(tmp_path / "report.xlsx")
    table = file.read(tmp_path / "report.xlsx")
    assert list(table.columns) == ["shop", "day", "opened", "worked", "share", "sold"]
    assert table.size == 40
    found = from_csv(tmp_path / "report.xlsx", "sold", "auto", "one_hot", (), {})
    kinds = [column["kind"] for column in found.facts["decisions"]]
    assert kinds == ["category", "date", "number", "number", "number"]
    x, y = found.parts["train"].x, found.parts["train"].y
    assert len(y) == 39  # the error of a formula is a missing target
    day, hours, share, sold = np.random.default_rng(0).integers(1, 99, (40, 4))[1]
    since = (datetime.date(2024, 1, 1) - datetime.date(1970, 1, 1)).days
    assert x[1].tolist() == pytest.approx([1, since + day, 9.5, 30 + hours, share / 7], rel=1e-14)
    assert float(y[1]) == sold


def test_other_sheets_are_named(tmp_path):
    report(tmp_path / "report.xlsx", sheets=3)
    with pytest.warns(UserWarning, match="its sheet 'Sales' is read, 'more 1', 'more 2' not"):
        file.read(tmp_path / "report.xlsx")


def archive(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members.items():
            packed.writestr(name.replace("__", "/").replace("_xml", ".xml"), content)
    return out.getvalue()


def sheet_of(rows: bytes) -> bytes:
    """A spreadsheet with the given XML as its rows."""
    made = io.BytesIO()
    openpyxl.Workbook().save(made)
    out = io.BytesIO()
    with zipfile.ZipFile(made) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("sheet1.xml"):
                start = content.index(b"<sheetData")
                content = content[:start] + b"<sheetData>" + rows + b"</sheetData></worksheet>"
            new.writestr(name, content)
    return out.getvalue()


FAR = b'<row r="%d"><c r="%s%d"><v>1</v></c></row>'


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xd0\xcf\x11\xe0" + bytes(600), "a spreadsheet of Excel before 2007"),
        (archive(a=b"x"), "got 'a zip file'"),
        (archive(mimetype=b"opendocument", content_xml=b"<x/>"), "save it as .xlsx or as CSV"),
        (archive(xl__workbook_xml=b"<not a workbook"), "a damaged spreadsheet"),
        (b"PK\x03\x04" + bytes(50), "a damaged spreadsheet (it is cut off)"),
        (sheet_of(b""), "no sheet with rows"),
        (sheet_of(b'<row r="1"><c r="A1"><v>1</v></c></row>'), "no sheet with rows"),
        (sheet_of(FAR % (1, b"A", 1) + FAR % (10**15, b"A", 10**15)), "more than 1,048,576 rows"),
        (sheet_of(b"".join(FAR % (i, b"ZZZ", i) for i in range(1, 3000))), "cells far from the table"),
    ],
    ids=["old", "zip", "ods", "broken", "damaged", "empty", "one", "far below", "far right"],
)  # fmt: skip
def test_what_is_no_spreadsheet_is_said(tmp_path, content, said):
    (tmp_path / "t.xlsx").write_bytes(content)
    with pytest.raises(InputError, match=re.escape(said)):
        file.read(tmp_path / "t.xlsx")


@pytest.mark.parametrize("ending", [".xls", ".ods"])
def test_other_spreadsheets_are_told_how_to_be_saved(tmp_path, ending):
    (tmp_path / f"t{ending}").write_bytes(b"\xd0\xcf\x11\xe0" + bytes(600))
    with pytest.raises(InputError, match=re.escape(f"{ending}'; expected") + ".*save it as .xlsx"):
        guess(tmp_path / f"t{ending}")


def test_a_long_text_in_every_cell_is_refused(tmp_path):
    """It is stored once, in a file of some kilobytes, and stands in 2,500 cells."""
    book = openpyxl.Workbook()
    for _ in range(500):
        book.active.append(["x" * 30_000] * 5)
    book.save(tmp_path / "t.xlsx")
    with pytest.raises(InputError, match="that unpacks to more than"):
        file.read(tmp_path / "t.xlsx")


# --- Parquet --------------------------------------------------------------------------------------


def test_the_index_of_a_parquet_file_is_no_column(tmp_path):
    houses().sample(frac=1, random_state=0).to_parquet(tmp_path / "t.parquet")
    assert list(file.read(tmp_path / "t.parquet").columns) == list(houses().columns)


def test_which_parquet_files_are_tables(tmp_path):
    """Lists, and what is too large to be read as text, stay with their own reader."""
    pandas.DataFrame({"x": [[1.0, 2.0]] * 4, "y": [0, 1, 0, 1]}).to_parquet(tmp_path / "l.parquet")
    wide = np.zeros((MOST_CELLS // 1000 + 1, 1000), np.int8)
    pandas.DataFrame(wide).rename(columns=str).to_parquet(tmp_path / "w.parquet")
    (tmp_path / "d.parquet").write_bytes(b"PAR1 and nothing else")
    for name in ("l", "w", "d"):
        assert guess(tmp_path / f"{name}.parquet").source["kind"] == "parquet"
    with pytest.raises(InputError, match="lists or bytes in column 'x'"):
        file.read(tmp_path / "l.parquet")


# --- in Python ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("frames") / "run"
    return ravine.train(houses(), target="price", model="linear", epochs=2, quiet=True, out=place)


def test_a_frame_is_trained_as_its_file_and_resumed_from_it(run, tmp_path):
    place = run.recipe.data.source.arguments["path"]
    again = ravine.train(
        place, target="price", model="linear", epochs=2, quiet=True, out=tmp_path / "again"
    )
    assert again.result["val_loss"] == run.result["val_loss"]
    assert source_of(houses())["path"] == place
    (more,) = ravine.resume(again.directory, after="3ep", quiet=True)
    assert more.result["epochs"] == 3


def test_predictions_for_what_a_person_has(run, tmp_path):
    frame = houses()
    wanted = run.predict(frame)
    assert np.corrcoef(wanted[:, 0], frame.price)[0, 1] > 0.5
    for end in (".csv", ".xlsx", ".parquet"):
        write(frame, tmp_path / f"t{end}")
        np.testing.assert_array_equal(run.predict(tmp_path / f"t{end}"), wanted)
    np.testing.assert_array_equal(run.predict(str(tmp_path / "t.csv")), wanted)
    polars = pytest.importorskip("polars")
    np.testing.assert_array_equal(run.predict(polars.from_pandas(frame)), wanted)
    rows = frame.drop(columns="price").to_dict("records")
    np.testing.assert_array_equal(run.predict(rows), wanted)
    np.testing.assert_array_equal(run.predict(rows[3]), wanted[3:4])
    told = run.evaluate(data=(frame, frame.price))
    assert told["rmse"] == pytest.approx(float(((wanted[:, 0] - frame.price) ** 2).mean() ** 0.5))


def test_numbers_are_not_taken_for_thousands_of_a_german_file(tmp_path):
    """What a file of "1.234,5" has decided holds for texts, not for numbers."""
    frame = houses()
    frame.to_csv(tmp_path / "g.csv", index=False, sep=";", decimal=",")
    source = from_csv(tmp_path / "g.csv", "price", "auto", "one_hot", (), {})
    assert source.facts["columns"][0]["decimal"] == ","
    wanted = source.parts["train"].x[:, 0]
    assert torch.equal(rows_by(frame, source.facts)[:, 0].nan_to_num(), wanted.nan_to_num())


def test_columns_of_the_type_category_stay_categories():
    frame = houses().assign(rooms=lambda f: f.rooms.astype("category"))
    assert source_of(frame)["columns"] == {"rooms": "category"}


def test_a_last_row_that_is_empty_is_predicted_too():
    texts = [f"the {word} parcel came {i} days late" for i in range(30) for word in ("red", "blue")]
    frame = pandas.DataFrame({"text": texts, "label": ["a", "b"] * 30})
    facts = from_csv(Path(source_of(frame)["path"]), "label", "auto", "one_hot", (), {}).facts
    assert len(rows_by(pandas.DataFrame({"text": ["red parcel", "", None]}), facts)) == 3


def test_texts_and_labels_in_python_are_a_table_of_texts(tmp_path):
    texts = [f"the {word} parcel {i}" for i in range(30) for word in ("red", "blue")]
    labels = ["stop", "go"] * 30
    given = {"epochs": 1, "quiet": True, "doctor": False, "baselines": False, "batch": 16}
    run = ravine.train(data=(texts, labels), out=tmp_path / "pair", **given)
    assert run.recipe.data.source.arguments["columns"] == {"text": "text"}
    several = run.predict_proba(["a red one", "", "https://a.example/b?c=d"])
    assert several.shape == (3, 2)
    np.testing.assert_allclose(run.predict_proba("a red one"), several[:1], rtol=1e-5)
    np.testing.assert_allclose(run.predict_proba(np.array(["a red one"])), several[:1], rtol=1e-5)
    frame = pandas.DataFrame({"text": texts, "label": labels})
    columns = source_of((frame.text, frame.label))
    assert columns == source_of((tuple(texts), np.array(labels)))
    by_name = ravine.train(data=frame, target="label", out=tmp_path / "frame", **given)
    assert by_name.pipeline.classes == run.pipeline.classes
    with pytest.raises(InputError, match="59 targets for 60 inputs"):
        ravine.train(data=(texts, labels[1:]), quiet=True)


@pytest.mark.parametrize("form", ["table", "folder"])
def test_words_that_tell_the_class_are_named(tmp_path, form, recwarn):
    """A line that says the class, and the same texts without it."""
    draw = np.random.default_rng(0)
    for said in ("", "sender: {} . "):
        rows = [
            (f"{said.format(k)}{' '.join(draw.choice(list('abcdefgh'), 9))}", k)
            for k in ("ham", "spam") * 30
        ]
        if form == "table":
            frame = pandas.DataFrame(rows, columns=["text", "label"])
            from_csv(Path(source_of(frame)["path"]), "label", "auto", "one_hot", (), {})
        else:
            for i, (text, kind) in enumerate(rows):
                (tmp_path / f"t{len(said)}" / kind).mkdir(parents=True, exist_ok=True)
                (tmp_path / f"t{len(said)}" / kind / f"{i}.txt").write_text(text)
            Pipeline(Data(source=f"texts:{tmp_path / f't{len(said)}'}"))
        told = [str(one.message) for one in recwarn if "tell the classes" in str(one.message)]
        assert len(told) == bool(said)
    assert "'ham', 'spam'" in told[0]


def test_texts_by_class_need_no_ending(tmp_path):
    for name in ("dark", "light"):
        (tmp_path / "news" / name).mkdir(parents=True)
        for i in range(3):
            (tmp_path / "news" / name / f"{i}").write_text(f"{name} sky")
    assert guess(tmp_path / "news").source["kind"] == "texts"
    assert len(Pipeline(Data(source=f"texts:{tmp_path / 'news'}", test=0)).batch(0).x) > 0
    (tmp_path / "news" / "dark" / "0").write_bytes(bytes(range(256)) * 9)
    with pytest.raises(InputError, match="neither images nor texts"):
        guess(tmp_path / "news")
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "a.txt").write_text("dark sky")
    with pytest.raises(InputError, match=r"texts without classes.*CLASS/\*.txt"):
        guess(tmp_path / "flat")


def test_texts_and_pictures_are_predicted_from_python(tmp_path):
    draw = np.random.default_rng(0)
    from PIL import Image

    for name, level in (("dark", 0), ("light", 200)):
        (tmp_path / "pics" / name).mkdir(parents=True)
        (tmp_path / "texts" / name).mkdir(parents=True)
        for i in range(12):
            pixels = draw.integers(level, level + 55, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pics" / name / f"{i}.png")
            (tmp_path / "texts" / name / f"{i}.txt").write_text(f"{name} sky number {i}")
    words = ravine.train(tmp_path / "texts", epochs=2, quiet=True, out=tmp_path / "t")
    both = words.predict_proba(["a light sky", "a dark sky"])
    assert both.shape == (2, 2)
    np.testing.assert_array_equal(words.predict_proba("a dark sky"), both[1:])
    (tmp_path / "n.txt").write_text("a light sky")
    np.testing.assert_array_equal(words.predict_proba(tmp_path / "n.txt"), both[:1])
    seen = ravine.train(
        tmp_path / "pics", model="softmax", epochs=2, quiet=True, out=tmp_path / "p"
    )
    paths = sorted((tmp_path / "pics" / "dark").iterdir())
    folder = seen.predict_proba(tmp_path / "pics" / "dark")
    np.testing.assert_allclose(seen.predict_proba(paths), folder, rtol=1e-5)
    with pytest.raises(InputError, match=r"nowhere.png.*exists"):
        seen.predict("nowhere.png")
