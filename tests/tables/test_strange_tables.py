"""Tables as strangers have them: other languages, odd headers, marks, dates and units. Of each
file the kinds of its columns are stated, and some values."""

# ruff: noqa: E501  (a file a line)

import gzip
import warnings

import numpy as np
import pytest

from ravine.errors import InputError
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


AB = {"a": "number", "b": "category"}

# name -> (bytes, kinds, a column and its values)
FILES = {
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
        (b"PK\x03\x04" + b"x" * 99, "spreadsheet of Excel.*save it as CSV"),
        (b"PAR1" + b"x" * 99, "Parquet"),
        (b"\x1f\x8b" + b"x" * 99, "gzip"),
    ],
)
def test_other_formats_are_named(tmp_path, content, said):
    with pytest.raises(InputError, match=said):
        read(tmp_path / "t.csv", content)
