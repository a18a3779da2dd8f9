"""Tables as strangers have them: other languages, odd headers, marks, dates and units. Of each
file the kinds of its columns are stated, and some values."""

# ruff: noqa: E501  (a file a line)

import gzip
import warnings

import numpy as np
import pandas as pd
import pytest

from ravine.data.pipeline import Pipeline
from ravine.data.tables.file import read as read_file
from ravine.errors import InputError
from ravine.recipe import Data
from test_table_reader import (
    CITIES,
    DAYS,
    EVERY,
    FLOATS,
    INTS,
    NOTES,
    N,
    Y,
    check,
    file,
    iso,
    kinds,
    point,
    read,
    some,
)  # fmt: skip

R = np.random.default_rng(11)
SMALL = R.integers(1, 900, N)
HOURS, MINUTES = R.integers(0, 24, N), R.integers(0, 60, N)
MONTHS = [
    "Januar",
    "Februar",
    "März",
    "April",
    "Mai",
    "Juni",
    "Juli",
    "August",
    "September",
    "Oktober",
    "November",
    "Dezember",
]


def of(*options):
    return R.choice(options, N)


def rows(line, *columns, end="\n"):
    return end.join(line.format(*cells) for cells in zip(*columns, strict=True)) + end


BIG = R.integers(10, 9000, N)
LOW = R.integers(1, 90, N)
WIDTH = R.integers(1, 400, N)
LINES = file(sep=";", a=[point(v, "", ",") for v in FLOATS], b=CITIES, y=Y) + b"\n"
BELOW = {  # name -> (lines under a table of a; b; y, whether they are left out)
    "a sum": ("Summe;;\n", True),
    "a sum with values": ("Total:;x;yes\n", True),
    "notes": ("\nSource: the town hall, 2021;;\n(60 rows)\n", True),
    "empty rows": (";;\n;;\n", True),
    "a row like the others": ("1,5;Bonn;no\n", False),
    "a row with gaps": ("1,5;;no\n", False),
}

AB = {"a": "number", "b": "category"}

# name -> (bytes, kinds, a column and its values)
FILES = {
    "several units": (
        file(a=[f"{v} g" if v < 1000 else f"{v / 1000} kg" for v in BIG], b=[f"{v} min" if v < 60 else f"{v / 60:.4f} h" for v in WIDTH]),
        {"a": "number", "b": "number"}, ("a", BIG / 1000 if (BIG >= 1000).sum() > N / 2 else BIG),
    ),
    "limits of detection": (file(a=[f"<{v}" if i % 4 == 0 else f"{v}" for i, v in enumerate(FLOATS)], b=of("<5", "5", "6", "7", ">7")), {"a": "number", "b": "category"}, ("a", FLOATS)),
    "halves of the earth": (file(a=[f"{abs(v - 50):.2f}° {'S' if v < 50 else 'N'}" for v in WIDTH], b=[f"{abs(v - 99):.1f} °{'W' if v < 99 else 'E'}" for v in WIDTH]), {"a": "number", "b": "number"}, ("a", WIDTH - 50)),
    "durations": (file(a=[f"{v // 60}h {v % 60:02d}m" for v in WIDTH], b=[f"{v // 60} Std. {v % 60} min" for v in WIDTH]), {"a": "number", "b": "number"}, ("b", WIDTH / 60)),
    "ranges": (file(a=[f"{v} - {v + 10}" if i % 2 else f"{v}" for i, v in enumerate(BIG)], b=[f"{v}-{v + 4} km" for v in BIG]), {"a": "number", "b": "number"}, ("a", [v + 5 * (i % 2) for i, v in enumerate(BIG)])),
    "ranges as groups": (file(a=of("18-24", "25-34", "35-44", "65+"), b=of("<20k", "20k-40k", ">40k")), dict.fromkeys("ab", "category"), None),
    "several numbers": (file(a=[f"{v}/{w}" for v, w in zip(BIG, LOW, strict=True)], b=[f"{v} x {w} x {w + 1} cm" for v, w in zip(BIG, LOW, strict=True)], c=[f"{v}'{w % 12}\"" for v, w in zip(4 + LOW % 3, WIDTH, strict=True)]), dict.fromkeys("abc", "numbers"), ("a", BIG)),
    "places": (file(a=[f"{47 + v / 1000:.4f}, {v / 100:.3f}" for v in BIG], b=[f"({v / 100:.2f} {-v / 70:.3f})" for v in BIG]), dict.fromkeys("ab", "numbers"), ("a", 47 + BIG / 1000)),
    "days that no calendar has": (file(a=some(iso("%Y-%m-%d"), "9999-12-31"), b=some(iso("%d.%m.%Y"), "31.12.9999")), dict.fromkeys("ab", "date"), ("b", some((DAYS - pd.Timestamp(0)) / pd.Timedelta(days=1), np.nan))),
    "out of five": (file(a=[f"{v / 20:.2f}/5" for v in LOW], b=[f"{v} of 100" for v in LOW]), {"a": "number", "b": "number"}, ("b", LOW)),
    "about": (file(a=[f"~{v} cm" for v in BIG], b=[f"ca. {v}" if v % 2 else f"{v}" for v in BIG], c=some([f"{v}" for v in BIG], ">9000")), dict.fromkeys("abc", "number"), ("a", BIG)),
    "months and quarters": (
        file(a=[f"{d.year}-Q{d.quarter}" for d in DAYS], b=iso("%b-%y"), c=[f"{d.isocalendar()[0]}-W{d.isocalendar()[1]:02d}" for d in DAYS], d=iso("%Y%m"), changed_at=[int((d - DAYS[0].__class__(0)).total_seconds()) for d in DAYS]),
        {**dict.fromkeys("abcd", "date"), "changed_at": "date"}, ("changed_at", DAYS),
    ),
    "errors of a spreadsheet": (file(a=[f"{v}" if i % 4 else ("#DIV/0!", "#VALUE!", "#REF!")[i % 3] for i, v in enumerate(FLOATS)], b=[f"{v}" if i % 5 else ("nd", "n.d.")[i % 2] for i, v in enumerate(FLOATS)]), {"a": "number", "b": "number"}, None),
    "999 is no number": (file(a=[999 if i % 9 == 3 else v % 30 for i, v in enumerate(LOW)], b=np.minimum(BIG, 999)), {"a": "number", "b": "number"}, ("a", [np.nan if i % 9 == 3 else v % 30 for i, v in enumerate(LOW)])),
    "postal codes": (file(zip_code=[f"{(7919 * i) % 90000 + 501:05d}" for i in EVERY], plz=of("01067", "04109", "20095")), {"zip_code": "number", "plz": "category"}, ("zip_code", [(7919 * i) % 90000 + 501 for i in EVERY])),
    "flags of other languages": (
        file(a=of("tak", "nie"), b=of("да", "нет"), c=of("sim", "não"), d=of("j", "n"), e=of("Sí", "No"), f=of("gut", "schlecht"), y=FLOATS),
        {**dict.fromkeys("abcde", "flag"), "f": "category"}, None,
    ),
    "flags in Latin-1": (file(encoding="latin-1", sep=";", a=of("oui", "non"), b=of("évident", "délicat"), y=FLOATS), {"a": "flag", "b": "category"}, None),
    "one value or empty": (
        file(a=["pool" if i % 3 == 0 else "" for i in EVERY], b=[1 if i % 4 == 0 else "" for i in EVERY], c=["DE" if i != 3 else "" for i in EVERY], y=FLOATS),
        {"a": "flag", "b": "flag", "c": "constant"}, ("a", [float(i % 3 == 0) for i in EVERY]),
    ),
    "currencies": (
        file(a=[f"-${v}" if i % 9 == 0 else f"${v}" for i, v in enumerate(INTS)], b=[f"€ {point(v + 0.5, '.', ',')}" for v in INTS], c=[f"{point(v + 0.5, ' ', ',')} €" for v in INTS], d=[f"Rs. {v}" for v in INTS], e=[f"{v} zł" for v in INTS], f=[f"£{point(v, ',')}" for v in INTS], g=[f"{v} USD" for v in INTS], h=[f"₺{v}" for v in INTS]),
        dict.fromkeys("abcdefgh", "number"), ("b", INTS + 0.5),
    ),
    "days without marks": (file(a=iso("%Y%m%d"), b=some(iso("%Y%m%d"), "")), {"a": "date", "b": "date"}, ("a", DAYS)),
    "months": (file(a=iso("%Y-%m"), b=iso("%b %Y"), c=iso("%m/%Y")), dict.fromkeys("abc", "date"), ("c", DAYS.to_period("M").to_timestamp())),
    "days by name": (file(a=iso("%d-%b-%y"), b=iso("%d-%b-%Y"), c=iso("%A, %B %d, %Y")), dict.fromkeys("abc", "date"), ("c", DAYS)),
    "days in German": (file(a=[f"{d.day}. {MONTHS[d.month - 1]} {d.year}" for d in DAYS]), {"a": "date"}, ("a", DAYS)),
    "days in several forms": (
        file(a=[d.strftime("%Y-%m-%d" if i % 2 else "%d.%m.%Y") for i, d in enumerate(DAYS)]), {"a": "date"}, ("a", DAYS),
    ),
    "days with zones and times": (
        file(a=iso("%Y-%m-%dT00:00:00+00:00"), b=iso("%Y/%m/%d %H:%M:%S"), c=iso("%Y-%m-%d 00:00:00.000")), dict.fromkeys("abc", "date"), ("a", DAYS),
    ),
    "times of the day": (
        file(t=[f"{h:02d}:{m:02d}" for h, m in zip(HOURS, MINUTES, strict=True)], u=[f"{h % 3}:{m:02d}:30" for h, m in zip(HOURS, MINUTES, strict=True)]),
        {"t": "number", "u": "number"}, ("t", HOURS + MINUTES / 60),
    ),
    "postcodes": (file(zip=[f"{z:05d}" for z in of(1067, 4109, 80331, 501)]), {"zip": "category"}, None),
    "ways to reach people": (
        file(phone=[f"+49 170 {v:07d}" for v in R.integers(1, 9999999, N)], home=[f"0{v}" for v in R.integers(10**9, 10**10, N)], mail=[f"{c.lower()}{i * 7 % 61}@mail.org" for i, c in enumerate(CITIES)], b=FLOATS),
        {**dict.fromkeys(["phone", "home", "mail"], "identifier"), "b": "number"}, None,
    ),
    "names of shops and users": (
        file(store_id=R.integers(1, 9, N), userId=R.integers(10**6, 10**7, N), nr=np.cumsum(R.integers(1, 3, N)) + 5000, b=FLOATS),
        {"store_id": "category", "userId": "identifier", "nr": "identifier", "b": "number"}, None,
    ),
    "sorted numbers stay": (file(t=np.sort(FLOATS), u=range(0, 2 * N, 2), v=range(0, 50 * N, 50)), dict.fromkeys("tuv", "number"), None),
    "few whole numbers": (file(a=R.integers(0, 2, N), b=R.integers(1, 6, N), c=R.integers(1990, 2021, N), d=of("1.0", "0.0"), y=FLOATS), {"a": "flag", "b": "number", "c": "number", "d": "flag"}, None),
    "powers of ten": (file(sep=";", a=[f"{v:.3e}" for v in FLOATS], b=[f"{v:.2E}".replace(".", ",") for v in FLOATS]), {"a": "number", "b": "number"}, None),
    "decimal commas in a comma file": (file(a=[point(v, "", ",") for v in FLOATS]), {"a": "number"}, ("a", FLOATS)),
    "Indian thousands": (file(a=["1,23,456", "12,34,567", "98,765"] * 20), {"a": "number"}, ("a", [123456, 1234567, 98765] * 20)),
    "thousands and millions": (
        file(a=[f"{v}M" if i % 3 == 0 else f"{v}K" if i % 3 == 1 else str(v) for i, v in enumerate(SMALL)], b=[f"€{v / 10}M" if i % 3 else f"€{v}K" for i, v in enumerate(SMALL)]),
        {"a": "number", "b": "number"}, ("a", [v * (1e6, 1e3, 1)[i % 3] for i, v in enumerate(SMALL)]),
    ),
    "-999 is missing": (file(a=some(np.abs(FLOATS), -999), b=some(FLOATS - 50, -999)), {"a": "number", "b": "number"}, ("a", some(np.abs(FLOATS), np.nan))),
    "words for missing": (
        file(a=some(FLOATS, "."), b=some(FLOATS, "k.A."), c=some(INTS, "missing"), d=some(INTS, "N.A."), e=some(INTS, "—"), f=some(INTS, "not available"), g=some(some(INTS, "unknown"), "n/a", 20)),
        dict.fromkeys("abcdefg", "number"), ("f", some(INTS, np.nan)),
    ),
    "signs": (file(a=[f"+{v}" if v > 0 else f"−{-v}" for v in (FLOATS - 50).round(2)], b=[f"{v}-" if i % 2 else str(v) for i, v in enumerate(INTS)]), {"a": "number", "b": "number"}, ("b", [-v if i % 2 else v for i, v in enumerate(INTS)])),
    "units": (file(a=[f"{v}°C" for v in FLOATS], b=[f"{v} kg" for v in FLOATS], c=[f"{v}km/h" for v in INTS]), dict.fromkeys("abc", "number"), ("a", FLOATS)),
    "lonely points": (file(a=[f".{v % 90 + 10}" for v in INTS], b=[f"{v}." for v in INTS]), {"a": "number", "b": "number"}, ("b", INTS)),
    "places on the earth": (file(sep=";", lat=[f"{v:.3f}".replace(".", ",") for v in R.uniform(47, 55, N)], lon=[f"{v:.3f}".replace(".", ",") for v in R.uniform(6, 15, N)]), {"lat": "number", "lon": "number"}, None),
    "words and numbers": (file(a=[v if i % 3 else CITIES[i] for i, v in enumerate(R.integers(1, 6, N))], b=of("0-10", "10-20", "30+"), c=of("1st", "2nd", "3rd"), d=of("<5", "5-9", ">9")), dict.fromkeys("abcd", "category"), None),
    "spaces around": (
        ("a , b ,c,y \n" + rows(" {} ,{} , {} ,{}  ", FLOATS, CITIES, of("yes", "no "), of("p", "q"))).encode(), {**AB, "c": "flag"}, ("a", FLOATS),
    ),
    "between carets": (file(sep="^", a=FLOATS, b=[f"{c}, {c[0]}" for c in CITIES]), AB, ("a", FLOATS)),
    "between colons": (file(sep=":", a=FLOATS, b=CITIES), AB, ("a", FLOATS)),
    "columns of nothing": (file(a=[""] * N, b=["  "] * N, c=["NA"] * N, d=FLOATS), {**dict.fromkeys("abc", "constant"), "d": "number"}, ("d", FLOATS)),
    "comments above": (b"# exported 2020-01-01, by me\n# units: SI\n" + file(a=FLOATS, b=CITIES), AB, ("a", FLOATS)),
    "a title above": (b"Report on flats\nmade in 2020\n\n" + file(a=FLOATS, b=CITIES), AB, ("a", FLOATS)),
    "a title with empty cells": (b"Report;;\n" + file(sep=";", a=FLOATS, b=CITIES), AB, ("a", FLOATS)),
    "rows that end with a separator": (("a,b,y\n" + rows("{},{},{},", FLOATS, CITIES, Y)).encode(), AB, ("a", FLOATS)),
    "names of rows, as R writes them": (
        ('"a" "b" "y"\n' + rows('"{}" {} "{}" "{}"', range(1, N + 1), FLOATS, CITIES, Y)).encode(), {"row": "identifier", **AB}, ("a", FLOATS),
    ),
    "columns between spaces": (("  a     b      y\n" + rows("  {:8.2f}   {:6s}  {}", FLOATS, CITIES, Y)).encode(), AB, ("a", FLOATS)),
    "carriage returns": (file(end="\r", a=FLOATS, b=CITIES), AB, ("a", FLOATS)),
    "UTF-16 without a mark": (file(encoding="utf-16-le", a=FLOATS, b=CITIES), AB, ("a", FLOATS)),
    "UTF-8 with a mark": (file(encoding="utf-8-sig", a=FLOATS, b=CITIES), AB, ("a", FLOATS)),
    "packed": (gzip.compress(file(a=FLOATS, b=CITIES)), AB, ("a", FLOATS)),
    "quoted numbers": (('"a";"b";"y"\n' + rows('"{}";"{}";"{}"', [point(v + 0.5, ".", ",") for v in INTS], CITIES, Y)).encode(), AB, ("a", INTS + 0.5)),
    "separators in quotes": (file(sep="|", a=FLOATS, b=[f"x|{n}" for n in NOTES]), {"a": "number", "b": "text"}, ("a", FLOATS)),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_kinds_and_values(tmp_path, name):
    check(tmp_path / "t.csv", *FILES[name])


@pytest.mark.parametrize("name", FILES)
def test_the_same_file_is_read_again_by_the_decisions(tmp_path, name):
    pipeline = read(tmp_path / "t.csv", FILES[name][0], target="y")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again, _ = pipeline.read(tmp_path / "t.csv")
    np.testing.assert_allclose(again.numpy(), pipeline.raw("train", N)[0].numpy(), rtol=1e-12)


def test_a_table_without_a_header(tmp_path):
    """Words that come again below are no names; a new file of the same form has none either."""
    content = rows("{},{},{}", CITIES, of("low", "high"), of("good", "bad")).encode()
    pipeline = read(tmp_path / "t.csv", content)
    assert kinds(pipeline) == {"column1": "category", "column2": "category"}
    (tmp_path / "new.csv").write_text("Ulm,low,good\n")
    assert len(pipeline.read(tmp_path / "new.csv")[0]) == 1


def test_both_orders_of_day_and_month_are_named(tmp_path):
    cells = [d.strftime("%m/%d/%Y" if i % 2 else "%d/%m/%Y") for i, d in enumerate(DAYS)]
    pipeline = read(tmp_path / "t.csv", file(a=cells), target="y")
    (decision,) = pipeline.preparation.facts["decisions"]
    assert decision["kind"] == "date"
    assert "could also be a month" in decision["why"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"PK\x03\x04" + b"x" * 99, "a damaged spreadsheet"),
        (b"PAR1" + b"x" * 99, "Parquet"),
        (b"\x1f\x8b" + b"x" * 99, "gzip"),
    ],
)
def test_other_formats_are_named(tmp_path, content, said):
    with pytest.raises(InputError, match=said):
        read(tmp_path / "t.csv", content)


@pytest.mark.parametrize("name", BELOW)
def test_what_lies_under_a_table_is_left_out_and_said(tmp_path, name):
    below, gone = BELOW[name]
    (tmp_path / "t.csv").write_bytes(LINES + below.encode())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = read_file(tmp_path / "t.csv")
    assert found.size == N + (not gone)
    said = any("no rows of the table" in str(w.message) for w in caught)
    assert said == (gone and bool(below.strip(";\n")))


def test_a_word_that_comes_again_sums_nothing_up(tmp_path):
    rows = [f"{('mean', 'max', 'total')[i % 3]},{i % 7},{i}" for i in EVERY]
    (tmp_path / "t.csv").write_text("how,b,y\n" + "\n".join(rows) + "\n")
    assert read_file(tmp_path / "t.csv").size == N


def test_columns_of_one_name_are_told_apart(tmp_path):
    (tmp_path / "t.csv").write_text("a,b,a,y\n" + rows("{},{},{},{}", FLOATS, CITIES, BIG, Y))
    with pytest.warns(UserWarning, match=r"columns of one name: 'a'; the next is called a \(2\)"):
        found = read_file(tmp_path / "t.csv")
    assert list(found.columns) == ["a", "b", "a (2)", "y"]
    with pytest.raises(InputError, match="a twice"):
        read(tmp_path / "t.csv", (tmp_path / "t.csv").read_bytes(), target="a")


def test_words_among_the_targets_are_no_targets(tmp_path):
    prices = ["on request" if i % 11 == 2 else f"{v * 100:,} €" for i, v in enumerate(BIG)]
    (tmp_path / "t.csv").write_bytes(file(a=FLOATS, y=prices))
    data = Data(source={"kind": "csv", "path": str(tmp_path / "t.csv")}, validation=0, test=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = Pipeline(data)
    assert any("'on request': no numbers" in str(w.message) for w in caught)
    assert found.task == "regression"
    assert found.size("train") == sum(p != "on request" for p in prices)


def test_numbers_of_one_cell_become_features(tmp_path):
    pressure = [f"{100 + v}/{w}" for v, w in zip(LOW, WIDTH, strict=True)]
    content = file(pressure=some(pressure, ""), b=FLOATS)
    pipeline = read(tmp_path / "t.csv", content, target="y")
    encoder = pipeline.preparation.inputs[0]
    assert encoder.names == ("pressure #0", "pressure #1", "pressure missing", "b")
    assert encoder.groups == (("number", 2), ("flag", 1), ("number", 1))
    features = pipeline.transform(pipeline.raw("train", N)[0])
    gone = np.array([not p for p in some(pressure, "")])
    for k, column in enumerate((100 + LOW, WIDTH)):
        np.testing.assert_allclose(features[~gone, k], column[~gone])
        np.testing.assert_allclose(features[gone, k], np.median(column[~gone]))
    wanted = read(tmp_path / "t.csv", file(a=["3:1", "4:2"] * 30, b=FLOATS), target="y", columns={"a": "numbers"})  # fmt: skip
    assert kinds(wanted)["a"] == "numbers"


def test_numbered_shops_are_categories_where_each_comes_again(tmp_path):
    """Not where most come a few times: then their numbers are kept, as they may say something."""
    draw, row = np.random.default_rng(3), np.arange(2000)
    shops, users = draw.permutation(9000)[:300], draw.permutation(9000)[:900]
    y = draw.normal(size=2000)
    content = file(shop_id=shops[row % 300], user_id=users[row % 900], y=y)
    found = kinds(read(tmp_path / "t.csv", content, target="y"))
    assert found == {"shop_id": "category", "user_id": "number"}


def test_names_are_texts_where_no_other_column_is_an_input(tmp_path):
    """A table of names and their classes was refused: each name is another."""
    draw = np.random.default_rng(4)
    letters = [*"abcdefghijklmnop"]
    names = ["".join(draw.choice(letters, 7)) + end for end in ("ova", "sson") for _ in range(60)]
    land = ["a"] * 60 + ["b"] * 60
    running = range(1, 121)
    place = tmp_path / "t.csv"
    assert kinds(read(place, file(name=names, y=land), target="y")) == {"name": "text"}
    both = kinds(read(place, file(id=running, name=names, y=land), target="y"))
    assert both == {"id": "identifier", "name": "text"}
    beside = file(name=names, size=draw.normal(size=120), y=land)
    assert kinds(read(place, beside, target="y")) == {"name": "identifier", "size": "number"}
    codes = [f"{name}{i}" for i, name in enumerate(names)]
    for columns, settings in (({"code": codes}, {}), ({"name": names}, {"name": "identifier"})):
        with pytest.raises(InputError, match="no usable input column"):
            read(place, file(**columns, y=land), target="y", columns=settings)


def test_none_among_classes_is_a_class(tmp_path):
    """A file was refused since a third of its rows had no target: "none" was read as missing."""
    pain = ["none" if i % 3 == 0 else "mild" if i % 3 == 1 else "severe" for i in EVERY]
    (tmp_path / "t.csv").write_bytes(file(a=FLOATS, y=pain))
    source = {"kind": "csv", "path": str(tmp_path / "t.csv"), "target": "y"}
    with pytest.warns(UserWarning, match=f"'none' in {pain.count('none')} rows is a class"):
        pipeline = Pipeline(Data(source=source, validation=0, test=0))
    assert pipeline.classes == ("mild", "none", "severe")
    assert pipeline.size("train") == N
    unknown = [pain[i] if i % 2 else "?" for i in EVERY]
    with pytest.raises(InputError, match=r"missing value\(s\) \('\?'.*first in data row 1"):
        read(tmp_path / "t.csv", file(a=FLOATS, y=unknown), target="y")


def test_the_target_in_other_units_and_rounded_is_a_leak(tmp_path):
    """Seconds beside minutes were kept, and named only. Whole numbers that are close to it stay."""
    close = np.round(60 * FLOATS + np.arange(N) % 7)
    content = file(seconds=np.round(60 * FLOATS), close=close, b=INTS, y=FLOATS)
    found = kinds(read(tmp_path / "t.csv", content, target="y"))
    assert found == {"seconds": "leak", "close": "number", "b": "number"}


def test_grades_with_letters_are_no_numbers_in_units(tmp_path):
    pipeline = read(
        tmp_path / "t.csv", file(grade=of("5a", "5c", "6a", "6b"), b=FLOATS), target="y"
    )
    assert pipeline.preparation.facts["decisions"][0]["why"] == "4 different texts"
