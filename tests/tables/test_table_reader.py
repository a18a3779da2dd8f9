"""Tables as people have them: of each small file the kinds of its columns are stated, and some of
its values; a reader that guesses wrong anywhere fails."""

# ruff: noqa: E501  (a file a line)

import json
import os
import re
import uuid
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from ravine.data.pipeline import Pipeline
from ravine.data.tables import column_kinds, hashed, matrix, numbers
from ravine.data.tables.arrangement import is_header
from ravine.data.tables.column import Column
from ravine.data.tables.words import FALSE, named_like_an_id
from ravine.errors import InputError
from ravine.recipe import Data, Recipe

N = 60
RNG = np.random.default_rng(5)
FLOATS = RNG.normal(50, 20, N).round(2)
INTS = RNG.integers(1000, 90_000, N)
SMALL = RNG.integers(1001, 1999, N) / 1000
DAYS = pd.to_datetime("2019-03-01") + pd.to_timedelta(RNG.integers(0, 900, N), "D")
CITIES = RNG.choice(["Bonn", "Köln", "Ulm", "Essen"], N)
Y = RNG.choice(["no", "yes"], N)
ADJECTIVES = RNG.choice(["quiet", "sunny", "noisy", "old", "modern", "small"], (N, 3))
NOTES = [
    f"a {a} and {b} flat near the {c} park, number {i}" for i, (a, b, c) in enumerate(ADJECTIVES)
]
EVERY = range(N)


def point(x, thousands="", decimal=".", digits=2):
    text = f"{x:,.{digits}f}"
    return text.replace(",", "\0").replace(".", decimal).replace("\0", thousands)


def file(*, sep=",", encoding="utf-8", end="\n", quote=True, y=Y, **columns):
    """The bytes of a file with these columns and the target y."""
    columns["y"] = y

    def cell(value):
        text = str(value)
        if quote and (sep in text or '"' in text or "\n" in text):
            return '"' + text.replace('"', '""') + '"'
        return text

    rows = [columns, *zip(*columns.values(), strict=True)]
    return end.join(sep.join(map(cell, row)) for row in rows).encode(encoding)


def some(values, other, every=30):
    """About 3 % of the values replaced."""
    return [other if i % every == 7 else value for i, value in enumerate(values)]


def iso(form):
    return list(DAYS.strftime(form))


EARLY = pd.to_datetime([f"2020-{1 + i % 12:02d}-{1 + (i * 7) % 12:02d}" for i in EVERY])

# name -> (bytes, kinds, values of a column that are checked)
FILES = {
    "plain numbers": (file(a=FLOATS, b=INTS), {"a": "number", "b": "number"}, ("a", FLOATS)),
    "thousands in quotes": (file(a=[point(v, ",", ".", 0) for v in INTS]), {"a": "number"}, ("a", INTS)),
    "thousands and decimals": (file(a=[point(v + 0.25, ",") for v in INTS]), {"a": "number"}, ("a", INTS + 0.25)),
    "European": (file(sep=";", a=[point(v + 0.25, ".", ",") for v in INTS]), {"a": "number"}, ("a", INTS + 0.25)),
    "dots are thousands by all values": (
        file(sep=";", a=["1.004", "12.500", "850", *[point(v, ".", ",", 0) for v in INTS[3:]]]),
        {"a": "number"}, ("a", [1004, 12500, 850, *INTS[3:]]),
    ),
    "dots are decimal by one value": (
        file(sep=";", a=["1.004", "12.500", "7.5", *[f"{v:.3f}" for v in FLOATS[3:]]]),
        {"a": "number"}, ("a", [1.004, 12.5, 7.5, *FLOATS[3:]]),
    ),
    "dots are decimal as in another column": (
        file(sep=";", a=[f"{v:.3f}" for v in SMALL], b=FLOATS),
        {"a": "number", "b": "number"}, ("a", SMALL),
    ),
    "commas are decimal as in another column": (
        file(sep=";", a=[f"{v:.3f}".replace(".", ",") for v in SMALL], b=[point(v, "", ",") for v in FLOATS]),
        {"a": "number", "b": "number"}, ("a", SMALL),
    ),
    "three decimals in a comma file": (
        file(a=[f"{v:.3f}" for v in SMALL]), {"a": "number"}, ("a", SMALL),
    ),
    "apostrophes and spaces": (
        file(a=[point(v, "'", ".", 0) for v in INTS], b=[point(v, " ", ".", 0) for v in INTS], c=[point(v, "\u202f", ",", 1) for v in INTS]),
        {"a": "number", "b": "number", "c": "number"}, ("b", INTS),
    ),
    "unknown": (file(a=some(FLOATS, "unknown"), b=some(INTS, "n/a"), c=some(FLOATS, "?")), dict.fromkeys("abc", "number"), ("a", some(FLOATS, np.nan))),
    "unknown among thousands": (file(a=some([point(v, ",", ".", 0) for v in INTS], "unknown")), {"a": "number"}, ("a", some(INTS, np.nan))),
    "currency": (
        file(a=[f"${point(v, ',', '.', 0)}" for v in INTS], b=[f"{point(v, '.', ',')} €" for v in INTS], c=[f"CHF {v}" for v in INTS]),
        dict.fromkeys("abc", "number"), ("b", INTS),
    ),
    "units": (file(a=[f"{v} km" for v in FLOATS], b=[f"{v}m²" for v in INTS]), {"a": "number", "b": "number"}, ("a", FLOATS)),
    "per cent": (file(a=[f"{v}%" for v in FLOATS], b=[f"{v} %" for v in FLOATS]), {"a": "number", "b": "number"}, ("a", FLOATS)),
    "accounting": (file(a=[f"({v})" if i % 3 else str(v) for i, v in enumerate(INTS)]), {"a": "number"}, ("a", [-v if i % 3 else v for i, v in enumerate(INTS)])),
    "units that differ": (file(a=[f"{v} {'kg' if i % 2 else 'g'}" for i, v in enumerate(INTS % 9)]), {"a": "category"}, None),
    "ISO": (file(a=iso("%Y-%m-%d")), {"a": "date"}, ("a", DAYS)),
    "ISO with times": (file(a=iso("%Y-%m-%dT12:30:00Z"), b=iso("%Y-%m-%d 06:15")), {"a": "date", "b": "date"}, ("b", DAYS + pd.Timedelta(hours=6.25))),
    "d.m.Y": (file(a=iso("%d.%m.%Y"), b=iso("%-d.%-m.%y")), {"a": "date", "b": "date"}, ("b", DAYS)),
    "m/d/Y": (file(a=iso("%m/%d/%Y"), b=iso("%-m/%-d/%Y 3:05 PM")), {"a": "date", "b": "date"}, ("a", DAYS)),
    "d/m/Y": (file(a=iso("%d/%m/%Y"), b=iso("%d-%m-%Y")), {"a": "date", "b": "date"}, ("a", DAYS)),
    "d/m/Y by the file": (file(sep=";", a=list(EARLY.strftime("%d/%m/%Y"))), {"a": "date"}, ("a", EARLY)),
    "3 Jan 2020": (file(a=iso("%-d %b %Y"), b=iso("%B %-d, %Y"), c=iso("%a, %d %b %Y")), dict.fromkeys("abc", "date"), ("a", DAYS)),
    "dates with gaps": (file(a=some(iso("%d.%m.%Y"), "unknown"), b=some(iso("%Y-%m-%d"), "")), {"a": "date", "b": "date"}, None),
    "not dates": (file(a=[f"{i % 3}.{i % 2}.5.1" for i in EVERY], b=[f"{12 + i % 3}" + "h" * (i % 2) for i in EVERY]), {"a": "category", "b": "category"}, None),
    "flags": (
        file(a=Y, b=RNG.choice(["true", "False"], N), c=RNG.integers(0, 2, N), d=RNG.choice(["Y", "N"], N), y=FLOATS),
        dict.fromkeys("abcd", "flag"), ("a", [float(v == "yes") for v in Y]),
    ),
    "flags in several spellings": (file(a=RNG.choice(["yes", "no", "true", "1", "0"], N), b=RNG.choice(["x", ""], N), y=FLOATS), {"a": "flag", "b": "flag"}, None),
    "flags with gaps": (file(a=some(RNG.choice(["ja", "nein"], N), ""), b=some(RNG.choice(["True", "False"], N), "")), {"a": "flag", "b": "flag"}, None),
    "categories": (file(a=CITIES, b=RNG.choice(["m", "f"], N), c=RNG.choice(["A", "B", "unknown"], N)), dict.fromkeys("abc", "category"), None),
    "codes with zeros in front": (file(a=RNG.choice(["00123", "04109", "80331"], N), b=[f"{7 * i:07d}" for i in EVERY]), {"a": "category", "b": "identifier"}, None),
    "identifiers": (
        file(customer=[70001 + i for i in EVERY], key=[str(uuid.UUID(int=int(v) << 64)) for v in RNG.integers(1, 2**62, N)], code=[f"AX-{v}" for v in RNG.permutation(10**5)[:N]], PassengerId=RNG.permutation(10**6)[:N], a=FLOATS),
        {**dict.fromkeys(["customer", "key", "code", "PassengerId"], "identifier"), "a": "number"}, ("a", FLOATS),
    ),
    "constants": (file(a=[3] * N, b=["DE"] * N, c=[""] * N, d=FLOATS), {"a": "constant", "b": "constant", "c": "constant", "d": "number"}, None),
    "texts": (file(a=NOTES, b=CITIES), {"a": "text", "b": "category"}, None),
    "quotes, line breaks, blank lines": (
        b"\n\n" + file(a=[f'say "{n}",\nplease' for n in NOTES], b=FLOATS, end="\n\n"),
        {"a": "text", "b": "number"}, ("b", FLOATS),
    ),
    "Latin-1 with tabs": (file(sep="\t", encoding="latin-1", a=CITIES, b=FLOATS), {"a": "category", "b": "number"}, ("b", FLOATS)),
    "UTF-16 with bars": (file(sep="|", encoding="utf-16", a=CITIES, b=FLOATS), {"a": "category", "b": "number"}, ("b", FLOATS)),
    "Excel": (b"sep=;\r\n" + file(sep=";", end=";\r\n", a=CITIES, b=[point(v, "", ",") for v in FLOATS]) + b";", {"a": "category", "b": "number"}, ("b", FLOATS)),
    "leaks": (
        file(a=FLOATS, price_with_tax=(FLOATS * 119).round() / 100, same=FLOATS, b=INTS, y=FLOATS),
        {"a": "leak", "same": "leak", "price_with_tax": "leak", "b": "number"}, ("b", INTS),
    ),
    "named with a number": (file(a=[f"Lot {i}, new" for i in EVERY], b=FLOATS), {"a": "identifier", "b": "number"}, None),
    "too good to be true": (
        file(score=FLOATS, city=CITIES, b=INTS, y=["yes" if v > 50 else "no" for v in FLOATS]),
        {"score": "number", "city": "category", "b": "number"}, ("score", FLOATS),
    ),
    "a copy of the classes": (
        file(same=[f"{v}!" for v in Y], noisy=[(v == "yes") + 1e-3 * w for v, w in zip(Y, FLOATS % 1, strict=True)], b=INTS),
        {"same": "leak", "noisy": "leak", "b": "number"}, ("b", INTS),
    ),
    "everything mixed": (
        file(sep=";", encoding="cp1252", id=[i + 1 for i in EVERY], Preis=some([f"{point(v, '.', ',')} €" for v in INTS], "auf Anfrage"), Datum=iso("%d.%m.%Y"), Stadt=CITIES, Garten=RNG.choice(["ja", "nein"], N), Anteil=[f"{v % 7},{v % 10} %" for v in INTS], Notiz=NOTES, Land=["DE"] * N),
        {"id": "identifier", "Preis": "number", "Datum": "date", "Stadt": "category", "Garten": "flag", "Anteil": "number", "Notiz": "text", "Land": "constant"},
        ("Preis", some(INTS, np.nan)),
    ),
}  # fmt: skip


def read(path, content, **settings):
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = Data(source={"kind": "csv", "path": str(path), **settings}, validation=0.0, test=0.0)
        return Pipeline(data)


def kinds(pipeline):
    return {d["name"]: d["kind"] for d in pipeline.preparation.facts["decisions"]}


def values(pipeline, name):
    """A column's raw numbers."""
    columns = pipeline.preparation.facts["columns"]
    start = 0
    for column in columns:
        if column["name"] == name:
            return pipeline.raw("train", N)[0][:, start].numpy()
        start += column.get("width", 1)
    raise AssertionError(f"{name} is no input")


def check(path, content, stated, checked):
    """The kinds of a file's columns are those stated, and the values of one are as expected."""
    pipeline = read(path, content, target="y")
    assert kinds(pipeline) == stated
    if checked:
        column, expected = checked
        if isinstance(expected, pd.DatetimeIndex):
            expected = (expected - pd.Timestamp(0)) / pd.Timedelta(days=1)
        found = values(pipeline, column)
        np.testing.assert_allclose(found, np.asarray(expected, dtype=float), rtol=1e-12, atol=1e-9)


def test_forty_files_are_stated():
    assert len(FILES) >= 40


@pytest.mark.parametrize("name", FILES)
def test_kinds_and_values(tmp_path, name):
    check(tmp_path / "t.csv", *FILES[name])


@pytest.mark.parametrize("name", FILES)
def test_a_single_new_row_is_read_by_the_decisions(tmp_path, name):
    """A file of one row tells nothing of marks and orders; the stored decisions do."""
    content, _, _ = FILES[name]
    pipeline = read(tmp_path / "t.csv", content, target="y")
    tensors, facts = pipeline.state()
    again = Pipeline.from_state(pipeline.data, tensors, json.loads(json.dumps(facts)))
    lines = content.lstrip(b"\n").splitlines(keepends=True)
    if name in ("quotes, line breaks, blank lines", "UTF-16 with bars"):
        lines = [content]  # a row is more than a line: the whole file again
    (tmp_path / "new.csv").write_bytes(b"".join(lines[: 3 if name == "Excel" else 2]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows, _ = again.read(tmp_path / "new.csv")
    trained = pipeline.raw("train", N)[0][: len(rows)]
    np.testing.assert_allclose(rows.numpy(), trained.numpy(), rtol=1e-12)
    assert torch.isfinite(again.transform(rows)).all()


TARGETS = {
    "texts": ([*"abc"] * 20, {}, "classification", ("a", "b", "c")),
    "flags": (["yes", "no"] * 30, {}, "classification", ("no", "yes")),
    "few whole numbers": ([3, 4, 8] * 20, {}, "classification", ("3", "4", "8")),
    "many whole numbers": (range(0, 120, 2), {}, "regression", ()),
    "few rows of whole numbers": ([i % 30 // 2 for i in range(30)] * 2, {}, "classification", tuple(map(str, range(15)))),
    "fractions": ([1.5, 2.5] * 30, {}, "regression", ()),
    "numbers set as classes": ([1.5, 2.5] * 30, {"task": "classification"}, "classification", ("1.5", "2.5")),
    "classes set as numbers": ([3, 4, 8] * 20, {"task": "regression"}, "regression", ()),
    "prices": ([f"{1000 + 7 * i:,} €" for i in range(60)], {}, "regression", ()),
    "gaps are left out": (["a", "b", "", "a", "b", "a"] * 10, {}, "classification", ("a", "b")),
}  # fmt: skip


@pytest.mark.parametrize("name", TARGETS)
def test_targets(tmp_path, name):
    cells, settings, task, classes = TARGETS[name]
    pipeline = read(tmp_path / "t.csv", file(a=FLOATS, b=INTS, y=list(cells)), **settings)
    assert (pipeline.task, pipeline.classes) == (task, classes)
    assert pipeline.preparation.facts["target_why"]


def test_the_recipe_decides(tmp_path):
    content = file(sep=";", id=[70000 + i for i in EVERY], a=[f"1.{v % 900 + 100}" for v in INTS], day=list(EARLY.strftime("%d/%m/%Y")), b=FLOATS, y=FLOATS)  # fmt: skip
    wanted = {"id": "number", "a": "number 1,234.5", "day": "date m/d/Y", "b": "number"}
    pipeline = read(tmp_path / "t.csv", content, target="y", columns=wanted)
    assert kinds(pipeline) == {"id": "number", "a": "number", "day": "date", "b": "number"}
    np.testing.assert_allclose(values(pipeline, "a"), 1 + (INTS % 900 + 100) / 1000)
    swapped = pd.to_datetime(EARLY.strftime("%Y-%d-%m"))
    np.testing.assert_allclose(values(pipeline, "day"), (swapped - pd.Timestamp(0)) / pd.Timedelta(days=1))  # fmt: skip
    text = f'[data.source]\nkind = "csv"\npath = "{tmp_path / "t.csv"}"\ncolumns.price = "number"\n'
    recipe = Recipe.from_toml(text)
    assert recipe.data.source.columns == {"price": "number"}
    edited = recipe.edit({"data.source.columns.a.b": "date"})
    assert edited.get("data.source.columns.a.b") == "date"
    assert Recipe.from_toml(edited.to_toml()) == edited
    with pytest.raises(InputError, match=r"columns\.price: got 'numbr'; expected 'number'"):
        recipe.edit({"data.source.columns.price": "numbr"})
    with pytest.raises(InputError, match="columns: got 'prise'"):
        read(tmp_path / "t.csv", content, columns={"prise": "number"})


UNREAD = {
    "number 1,234.5": "got '7.876,63'; expected numbers written as 1,234.5; did you mean 'number 1.234,5'?",
    "date d/m/Y": "got '7.876,63'; expected dates written as d/m/Y",
    "date": "got '7.876,63'; expected dates",
}


@pytest.mark.parametrize("kind", UNREAD)
def test_a_form_that_no_cell_has_is_named(tmp_path, kind):
    prices = [f"{7 + i}.876,63" for i in range(len(INTS))]
    content = file(sep=";", price=prices, y=FLOATS)
    message = f"t.csv: column price, which the recipe has as {kind!r}: {UNREAD[kind]}"
    with pytest.raises(InputError, match=re.escape(message) + "$"):
        read(tmp_path / "t.csv", content, target="y", columns={"price": kind})


def test_what_is_new_gets_one_warning_each(tmp_path):
    pipeline = read(tmp_path / "t.csv", file(a=FLOATS, b=CITIES, c=CITIES), target="y")
    new = tmp_path / "new.csv"
    new.write_text("b,a\nRom,1.5\nPisa,2.5\nBonn,\n", encoding="utf-8")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows, _ = pipeline.read(new)
    said = [str(w.message) for w in caught]
    assert len(said) == 2
    assert any("column 'b': values that training did not have: 'Rom', 'Pisa'" in s for s in said)
    assert any("no column 'c': taken as missing" in s for s in said)
    assert torch.isfinite(pipeline.transform(rows)).all()


def test_dates_become_their_parts(tmp_path):
    pipeline = read(tmp_path / "t.csv", file(day=iso("%Y-%m-%d 18:30"), b=FLOATS), target="y")
    names = pipeline.preparation.inputs[0].names
    assert names == ("day year", "day month", "day weekday", "day days", "day hour", "b")
    rows = pipeline.transform(pipeline.raw("train", N)[0]).double().numpy()
    for column, expected in enumerate((DAYS.year, DAYS.month, DAYS.day_of_week)):
        assert rows[:, column].tolist() == list(expected)
    np.testing.assert_allclose(rows[:, 4], 18.5, atol=1e-2)


def test_days_of_all_years_have_the_parts_of_the_calendar():
    from ravine.data.tables.encoder import _date_parts

    days = torch.arange(-200_000, 200_000, 37, dtype=torch.float64)
    stamps = days.numpy().astype("int64").astype("datetime64[D]")
    months = stamps.astype("datetime64[M]").astype("int64")
    weekdays = (stamps.astype("int64") - np.datetime64("1969-12-29", "D").astype("int64")) % 7
    expected = np.stack([months // 12 + 1970, months % 12 + 1, weekdays, days.numpy()], 1)
    np.testing.assert_array_equal(_date_parts(days, False).numpy(), expected)


HOSTILE = {
    "a folder": (None, "no regular file"),
    "a pipe": ("pipe", "no regular file"),
    "an unclosed quote": (b'a,b\n1,2\n3,"4\n' + b"5,6\n" * 50, "never closed"),
    "a huge cell": (b'a,b\n1,2\n3,"' + b"x" * (1 << 21) + b'"\n', "characters"),
    "a huge first cell": (b'"' + b"x" * (1 << 21) + b'",b\n1,2\n', "characters"),
    "rows that are too long": (b"a,b\n" + b"1,2\n" * 300 + b"1,2,3\n", "3 values in row 302"),
    "rows that are too short": (b"a,b\n" + b"1,2\n" * 300 + b"1\n", "1 values in row 302"),
    "bytes": (bytes(range(256)) * 40, "no text"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + os.urandom(3000), "text"),
    "zeros": (b"\0" * 5000, "no text"),
    "blank lines": (b"\n\n \n", "empty file"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_get_one_clear_error(tmp_path, name):
    content, said = HOSTILE[name]
    path = tmp_path / "t.csv"
    if content == "pipe":
        os.mkfifo(path)
    elif content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    from ravine.data.tables.file import read as read_file

    with pytest.raises(InputError, match=said):
        read_file(path)


def test_marks_are_never_guessed_silently():
    """Where the column cannot tell, the decision says by what it was read."""
    assert numbers.marks_of(["1.004", "12.500"]).sure is False
    assert numbers.marks_of(["1.004", "12.5"]) == numbers.Marks(".", "", True)
    assert numbers.marks_of(["1.004.000", "12.500"]) == numbers.Marks(",", ".", True)
    assert numbers.marks_of(["1,004.5", "1.004,5"]) is None


def test_a_column_of_ambiguous_marks_says_so(tmp_path):
    pipeline = read(tmp_path / "t.csv", file(sep=";", a=["1.004", "12.500"] * 30), target="y")
    (decision,) = pipeline.preparation.facts["decisions"]
    assert "thousands ." in decision["why"]
    assert "semicolons" in decision["why"]


def test_rare_categories_are_none_of_them(tmp_path):
    """Of many categories those get a column that come five times or more in the training part."""
    cells = [f"c{i % 25}" if i < 300 else f"rare {i // 3}" for i in range(360)]
    content = "\n".join(["a,b,y", *(f"{c},{i % 7},{i % 2}" for i, c in enumerate(cells))])
    pipeline = read(tmp_path / "t.csv", content.encode())
    names = [name for name in pipeline.preparation.inputs[0].names if name.startswith("a=")]
    assert set(names) == {f"a=c{i}" for i in range(25)}
    few = "\n".join(["a,b,y", *(f"c{i % 9 if i else 10},{i % 7},{i % 2}" for i in range(90))])
    pipeline = read(tmp_path / "few.csv", few.encode())
    names = [name for name in pipeline.preparation.inputs[0].names if name.startswith("a=")]
    assert len(names) == 10  # of a few each


def test_a_target_with_marks_for_missing_values_is_refused(tmp_path):
    rows = [f"{i % 17}.5,{-999 if i % 20 == 3 else i / 8}" for i in range(200)]
    (tmp_path / "t.csv").write_text("\n".join(["a,y", *rows]) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"target y: got '-999 in 10 rows"):
        Pipeline(Data(source={"kind": "csv", "path": str(tmp_path / "t.csv")}))


@pytest.mark.parametrize(
    ("name", "is_id"),
    [
        *((name, True) for name in ("id", "ID", "customer_id", "customerId", "CustomerNo", "PassengerId",
          "order number", "Kunden-Nr", "userid", "gameid", "Unnamed: 0", "index", "no", "ISBN", "row id",
          "Rechnungsnummer", "invoice.ref", "phone")),
        *((name, False) for name in ("paid", "bid", "grid", "humid", "fixed acid", "amount_paid", "void",
          "stock_index", "body mass index", "number of rooms", "rooms no", "casino", "volcano", "heat idx",
          "keyboard", "idle", "row width", "mean phone minutes")),
    ],
)  # fmt: skip
def test_names_of_quantities_are_no_identifiers(name, is_id):
    """Met as whole amounts in a column 'paid', left out since the name ends in 'id'."""
    assert named_like_an_id(name) is is_id


def test_a_flag_is_the_same_with_a_decimal_point():
    cells = SimpleNamespace(texts=np.array(["1.0", "0", "0.0", "1"]))
    column = {"kind": "flag", "true": ["1"], "false": ["0"]}
    assert matrix._flags(cells, column, "t.csv: column a").tolist() == [1, 0, 0, 1]


def test_a_flag_may_be_said_by_every_word_for_no():
    def wanted(*texts):
        cells = SimpleNamespace(name="a", texts=np.array(texts), numbers=None, missing=np.zeros(1))
        return column_kinds._wanted(Column(cells), "flag", False, "", False, "t.csv")

    assert sorted(wanted("yes", *FALSE)["false"]) == sorted(FALSE)
    assert wanted("yes", "no", "0")["false"] == ["0", "no"]
    with pytest.raises(InputError, match="3 different texts"):
        wanted("yes", "no", "perhaps")


def test_a_row_whose_words_come_again_in_the_next_two_is_no_header():
    rows = [["red", "big", "soft"], ["red", "big", "hard"], ["red", "big", "cold"]]
    assert not is_header(rows)
    assert is_header([["colour", "size", "feel"], *rows])


@pytest.mark.parametrize(("mark", "other"), [(".", ","), (",", ".")])
def test_a_mark_that_may_be_either_is_what_the_rest_of_the_file_says(mark, other):
    marks = numbers.Marks(mark, "", sure=False)
    decimal, thousands = (numbers.settled(marks, comma, "") for comma in (mark == ",", mark != ","))
    assert (decimal.decimal, decimal.thousands) == (mark, "")
    assert (thousands.decimal, thousands.thousands) == (other, mark)


@pytest.mark.parametrize(
    ("words", "rows", "widths"),
    [
        ((3,), 100, [128]),
        ((7,), 100, [128]),
        ((8,), 100, [2048]),
        ((40,), 4096, [2048]),
        ((40,), 4097, [1024]),
        ((40,), 10**6, [128]),
        ((40, 3, 40), 100, [1024, 128, 1024]),
        ((40, 40, 40), 100, [512, 512, 512]),
        ((40,) * 30, 100, [128] * 30),
    ],
)
def test_sentences_share_as_many_features_as_their_rows_allow(words, rows, widths):
    columns = [
        SimpleNamespace(
            texts=np.array([f"{i} " + "word " * (count - 1) for i in range(30)], dtype=object),
            codes=np.zeros(rows, np.int64),
        )
        for count in words
    ]
    assert hashed.widths(columns) == widths
