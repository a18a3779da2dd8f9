"""Columns whose cells are written in more than one way, and lines that are no rows: of each the kind is
stated, and what its numbers are."""

# ruff: noqa: E501  (a column a line)

import warnings

import numpy as np
import pandas as pd
import pytest

from ravine.data.tables.file import read as read_file
from ravine.errors import InputError
from test_table_reader import (  # fmt: skip
    CITIES,
    DAYS,
    EVERY,
    FLOATS,
    N,
    Y,
    file,
    kinds,
    point,
    read,
    some,
    values,
)

R = np.random.default_rng(21)
A, B, K = R.integers(1, 95, N), R.integers(100, 9000, N), R.integers(0, 4, N)
BIG = R.integers(1000, 99_999_999, N)
P = R.uniform(2, 98, N).round(1)
WEEKS = [d.isocalendar() for d in DAYS]
SINCE_1970 = (DAYS - pd.Timestamp(0)) / pd.Timedelta(days=1)
WIDE = str.maketrans("0123456789.,%-", "０１２３４５６７８９．，％－")
NA = np.nan
SPANISH = [
    "enero",
    "febrero",
    "marzo",
    "abril",
    "mayo",
    "junio",
    "julio",
    "agosto",
    "septiembre",
    "octubre",
    "noviembre",
    "diciembre",
]
RUSSIAN = [
    "января",
    "февраля",
    "марта",
    "апреля",
    "мая",
    "июня",
    "июля",
    "августа",
    "сентября",
    "октября",
    "ноября",
    "декабря",
]


def turns(every, one, other):
    """One form in every so many rows, else the other."""
    return [(one if i % every == 0 else other)(i) for i in EVERY]


def indian(v):
    return f"{v:,}" if v < 10**5 else f"{indian_head(v // 1000)},{v % 1000:03d}"


def indian_head(v):
    return str(v) if v < 100 else f"{indian_head(v // 100)},{v % 100:02d}"


def of(*options):
    return R.choice(options, N)


# name of the column -> (cells, kind, numbers)
CELLS = {
    "per cent beside fractions": (turns(3, lambda i: f"{P[i] / 100:.3f}", lambda i: f"{P[i]} %"), "number", P / 100),
    "few fractions": (turns(20, lambda i: f"{P[i] / 100:.3f}", lambda i: f"{P[i]}%"), "number", P / 100),
    "sign forgotten": (turns(3, lambda i: f"{P[i]}", lambda i: f"{P[i]}%"), "number", P),
    "nobody knows": (turns(15, lambda i: ["0.5", "40"][i // 15 % 2], lambda i: f"{P[i]}%"), "number", [NA if i % 15 == 0 else p for i, p in enumerate(P)]),
    "dollars and euros": (turns(3, lambda i: f"{B[i]} €", lambda i: f"${B[i]}"), "numbers", B),
    "one currency": (turns(3, lambda i: f"{B[i]} €", lambda i: f"{B[i]} EUR"), "number", B),
    "one unit": ([f"{v} {('kg', 'KG', 'Kg')[i % 3]}" for i, v in enumerate(B)], "number", B),
    "credit and debit": (turns(3, lambda i: f"{B[i]}.00 DR", lambda i: f"{B[i]}.00 CR"), "number", turns(3, lambda i: -B[i], lambda i: B[i])),
    "credit beside bare": (turns(4, lambda i: f"{B[i]}.50 CR", lambda i: f"{B[i]}.50"), "number", turns(4, lambda i: -B[i] - 0.5, lambda i: B[i] + 0.5)),
    "credit in dollars": (turns(3, lambda i: f"${B[i]}Dr", lambda i: f"${B[i]}Cr"), "number", turns(3, lambda i: -B[i], lambda i: B[i])),
    "lakhs and crores": (turns(2, lambda i: f"₹{A[i]} L", lambda i: f"₹{A[i] / 10} Cr"), "number", turns(2, lambda i: A[i] * 1e5, lambda i: A[i] * 1e6)),
    "12 1/2": ([f"{a}{('', ' 1/4', ' 1/2', ' 3/4')[k]}" for a, k in zip(A, K, strict=True)], "number", A + K / 4),
    "12½": ([f"{a}{('', '¼', '½', '¾')[k]}" for a, k in zip(A, K, strict=True)], "number", A + K / 4),
    "inches": ([f'{a}-1/2"' if k else f'{a}"' for a, k in zip(A, K, strict=True)], "number", A + (K > 0) / 2),
    "Indian": ([indian(v) for v in BIG], "number", BIG),
    "Swiss": ([f"{point(v + 0.5, '’', '.')} Fr." for v in BIG], "number", BIG + 0.5),
    "no cents": ([f"CHF {v}.-" for v in B], "number", B),
    "no cents, German": ([f"{v},- €" for v in B], "number", B),
    "no cents, two dashes": ([f"{v},--" for v in B], "number", B),
    "full width": ([f"{v}.5".translate(WIDE) for v in B], "number", B + 0.5),
    "full width, per cent": ([f"{p}%".translate(WIDE) for p in P], "number", P),
    "k and M": (turns(2, lambda i: f"{A[i] / 10:.1f}M", lambda i: f"{A[i] / 10:.1f}k"), "number", turns(2, lambda i: A[i] * 1e5, lambda i: A[i] * 100)),
    "minutes and seconds": ([f"{a}:{b % 60:02d}.5" for a, b in zip(A, B, strict=True)], "number", A / 60 + (B % 60 + 0.5) / 3600),
    "degrees": ([f"{a}°{b % 60:02d}'{k}0\"S" for a, b, k in zip(A, B, K, strict=True)], "number", -(A + B % 60 / 60 + K / 360)),
    "ISO days of weeks": ([f"{y}-W{w:02d}-{d}" for y, w, d in WEEKS], "date", SINCE_1970),
    "start date": ((SINCE_1970 + 25569).astype(int), "date", SINCE_1970),
    "words for yes": (of("Ναι", "Όχι"), "flag", None),
    "words for no": (of("da", "nu"), "flag", None),
    "see note": (some(list(map(str, FLOATS)), "N/A (see note)"), "number", some(list(FLOATS), NA)),
    "notes": (turns(9, lambda i: f"{B[i]}*", lambda i: f"{B[i]} [1]" if i % 7 == 0 else f"{B[i]}"), "number", B),
    "kept as text": ([f'="{v}"' for v in B], "number", B),
    "kept as text, codes": ([f'="{v:05d}"' for v in A % 7], "category", None),
    "an apostrophe": ([f"'{v}" for v in B], "number", B),
    "powers of ten": ([f"{a / 10}×10^3" for a in A], "number", A * 100.0),
    "plus or minus": ([f"{v} ± 0.{1 + i % 7}" for i, v in enumerate(FLOATS)], "numbers", FLOATS),
    "underscores": ([f"{v:_}" for v in BIG], "number", BIG),
    "years and months": ([f"{a // 12} yrs {a % 12} mos" for a in A], "number", A),
    "feet and inches": ([f"{a} ft {b % 12} in" for a, b in zip(A, B, strict=True)], "number", A * 0.3048 + B % 12 * 0.0254),
    "lists": ([f"[{a}, {b}]" for a, b in zip(A, B, strict=True)], "numbers", A),
    "grades": (of("A+", "A", "B-"), "category", None),
    "addresses of machines": ([f"10.0.{a}.{b % 255}" for a, b in zip(A, B, strict=True)], "identifier", None),
    "Haben and Soll": (turns(3, lambda i: f"{B[i]},00 H", lambda i: f"{B[i]},00 S"), "number", turns(3, lambda i: B[i], lambda i: -B[i])),
    "zeros without a unit": (turns(2, lambda i: "0", lambda i: f"{B[i] / 10} mm"), "number", turns(2, lambda i: 0, lambda i: B[i] / 10)),
    "one and several": ([f"{1 + a % 5} beds" if a % 5 else "1 bed" for a in A], "number", 1 + A % 5),
    "ranks": ([f"#{a}" for a in A], "number", A),
    "out of ten": ([f"{a % 11}/10" for a in A], "number", A % 11),
    "ranges of thousands": ([f"${a}k-${a + 10}k" for a in A], "number", 1000 * (A + 5)),
    "from day to day": ([f"{d:%d/%m/%Y} - {d + pd.Timedelta(days=i % 20):%d/%m/%Y}" for i, d in enumerate(DAYS)], "numbers", SINCE_1970),
    "from day to day, American": ([f"{d:%m/%d/%Y} to {d + pd.Timedelta(days=i % 20):%m/%d/%Y}" for i, d in enumerate(DAYS)], "numbers", SINCE_1970),
    "from day to day, ISO": ([f"{d:%Y-%m-%d}/{d + pd.Timedelta(days=i % 20):%Y-%m-%d}" for i, d in enumerate(DAYS)], "numbers", SINCE_1970),
    "ranges of km": ([f"{a}-{a + 10} km" for a in A], "number", A + 5),
    "estimates": (turns(9, lambda i: f"{B[i]} (est.)", lambda i: f"{B[i]}"), "number", B),
    "ten thousands": (turns(2, lambda i: f"{A[i]}万", lambda i: f"{A[i]}00"), "number", turns(2, lambda i: A[i] * 1e4, lambda i: A[i] * 100)),
    "weekdays before": ([f"{d:%a} {d:%d/%m/%Y}" for d in DAYS], "date", SINCE_1970),
    "Spanish": ([f"{d.day} de {SPANISH[d.month - 1]} de {d.year}" for d in DAYS], "date", SINCE_1970),
    "Portuguese": ([f"{d.day:02d}/{['jan', 'fev', 'mar', 'abr', 'mai', 'jun', 'jul', 'ago', 'set', 'out', 'nov', 'dez'][d.month - 1]}/{d.year}" for d in DAYS], "date", SINCE_1970),
    "Russian": ([f"{d.day} {RUSSIAN[d.month - 1]} {d.year}" for d in DAYS], "date", SINCE_1970),
    "time": ((SINCE_1970 * 86400 + 0.5).map("{:.1f}".format), "date", SINCE_1970 + 0.5 / 86400),
    "updated": (A + 40_000, "number", A + 40_000),
}  # fmt: skip


@pytest.mark.parametrize("name", CELLS)
def test_cells_are_read_as_people_mean_them(tmp_path, name):
    """And a file of one row alone is read as that row was."""
    cells, kind, numbers = CELLS[name]
    content = file(**{name: cells}, zz=FLOATS + 1, y=[f"k{i % 3}" for i in EVERY])
    pipeline = read(tmp_path / "t.csv", content, target="y")
    assert kinds(pipeline)[name] == kind
    if numbers is not None:
        np.testing.assert_allclose(values(pipeline, name), np.asarray(numbers, float), rtol=1e-9)
    (tmp_path / "new.csv").write_bytes(b"\n".join(content.splitlines()[:2]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        row, _ = pipeline.read(tmp_path / "new.csv")
    np.testing.assert_array_equal(row, pipeline.raw("train", 1)[0])


def said_of(act):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = act()
    return found, [str(w.message) for w in caught]


def test_mixtures_are_named(tmp_path):
    from ravine.data.pipeline import Pipeline
    from ravine.recipe import Data

    (tmp_path / "t.csv").write_bytes(
        file(price=CELLS["dollars and euros"][0], paid=CELLS["credit and debit"][0], b=FLOATS)
    )
    data = Data(source={"kind": "csv", "path": str(tmp_path / "t.csv")}, validation=0, test=0)
    pipeline, said = said_of(lambda: Pipeline(data))
    assert any("'price': amounts in several currencies ($, €), not added up" in s for s in said)
    assert any("'paid': CR is plus, DR is minus" in s for s in said)
    amount, dollars, euros = pipeline.raw("train", N)[0][:, :3].T.numpy()
    np.testing.assert_array_equal(amount, B)
    np.testing.assert_array_equal(euros, [i % 3 == 0 for i in EVERY])
    np.testing.assert_array_equal(dollars, 1 - euros)


def test_amounts_in_several_currencies_are_no_target(tmp_path):
    with pytest.raises(InputError, match=r"amounts in \$ and €.*one currency"):
        read(tmp_path / "t.csv", file(a=FLOATS, y=CELLS["dollars and euros"][0]), target="y")


def test_new_cells_in_another_unit_are_turned_into_the_columns_or_missing(tmp_path):
    """Met as 900 g among new rows of a column in kg, read as 900 kg."""
    pipeline = read(tmp_path / "t.csv", file(m=[f"{v} kg" for v in B], p=[f"${v}" for v in B]), target="y")  # fmt: skip
    (tmp_path / "new.csv").write_text("m,p\n5 kg,$5\n900 g,5 €\n7,7\n3 l,8 USD\n")
    (rows, _), said = said_of(lambda: pipeline.read(tmp_path / "new.csv"))
    np.testing.assert_allclose(rows[:, 0], [5, 0.9, 7, NA])
    np.testing.assert_allclose(rows[:, 1], [5, NA, 7, 8])
    assert sum("taken as missing: the others are in" in s for s in said) == 2


def test_new_cells_that_are_no_numbers_are_named(tmp_path):
    """Those that training had, too, are missing values without a word."""
    columns = {"d": some(list(DAYS.strftime("%Y-%m-%d")), "open"), "a": some(list(FLOATS), "unknown"), "b": FLOATS + 1, "t": [f"{v % 24}:30" for v in A],
               "w": turns(2, lambda i: f"{B[i]} g", lambda i: f"{B[i]} kg")}  # fmt: skip
    pipeline = read(tmp_path / "t.csv", file(**columns), target="y")
    (tmp_path / "new.csv").write_text(
        "d,a,b,t,w\n2020-01-01,unknown,1,6:30,5 kg\nlater,broken,n.b.,noon,5\n"
    )
    (rows, _), said = said_of(lambda: pipeline.read(tmp_path / "new.csv"))
    assert rows.isnan().sum() == 6
    for name, word in (("a", "broken"), ("b", "n.b."), ("t", "noon"), ("w", "5")):
        assert any(f"column {name!r}: no numbers, taken as missing: {word!r}" in s for s in said)
    assert any("column 'd': no dates, taken as missing: 'later'" in s for s in said)
    assert len(said) == 5


ROWS = [f"{a},{b},{c},{y}" for a, b, c, y in zip(A, FLOATS, CITIES, Y, strict=True)]
LINES = {  # name -> (lines, how many of them are rows)
    "units": (["m²,km,,", *ROWS], N),
    "units in brackets": (["[m²],[km],-,-", *ROWS], N),
    "types": (["float,float,str,str", *ROWS], N),
    "questions": (["How old are you?,How tall are you?,Where do you live?,Do you smoke?", *ROWS], N),
    "words for missing": (["unknown,unknown,Bonn,no", *ROWS], N + 1),
    "missing": (["NA,n/a,Bonn,no", *ROWS], N + 1),
    "the header again": ([*ROWS[:9], "a,b,c,y", *ROWS[9:20], "a,b,c,y", *ROWS[20:]], N),
    "notes with commas": ([*ROWS, "", "* preliminary", "Source: the town hall, 2021"], N),
    "single quotes": ([f"{a},{b},'{c}, west',{y}" for a, b, c, y in zip(A, FLOATS, CITIES, Y, strict=True)], N),
}  # fmt: skip


@pytest.mark.parametrize("name", LINES)
def test_lines_that_are_no_rows_are_left_out_and_said(tmp_path, name):
    lines, rows = LINES[name]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,c,y", *lines]) + "\n", encoding="utf-8")
    found, said = said_of(lambda: read_file(tmp_path / "t.csv"))
    assert found.size == rows
    assert bool(said) == (rows < len(lines))
    assert set(found.columns["y"].texts) == {"no", "yes"}
    again, _ = said_of(lambda: read_file(tmp_path / "t.csv", texts=True))
    assert again.size == rows
