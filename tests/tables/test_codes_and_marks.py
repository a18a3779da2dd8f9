"""Columns that are easily taken for something else: letters, years, postal codes, marks of gaps."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from ravine.data.pipeline import Pipeline
from ravine.data.read.encoding import MIXED, decoded
from ravine.data.tables.load import from_csv, rows_by
from ravine.errors import InputError
from ravine.recipe import Data
from ravine.starters.rules import TIED
from ravine.starters.start import start

N = 600
R = np.random.default_rng(5)
NOISE = R.normal(size=N).round(3)
DAYS = (pd.Timestamp("2021-01-01") + pd.to_timedelta(R.integers(0, 900, N), "D")).strftime(
    "%Y-%m-%d"
)
STAMPS = pd.Timestamp("2021-01-01") + pd.to_timedelta(R.integers(0, 9_000_000, N), "s")


def often(value, other, share):
    """``other``, a value or one for each row, and in a share of the rows ``value``."""
    other = other if hasattr(other, "__len__") and not isinstance(other, str) else [other] * N
    return np.where(R.random(N) < share, value, np.asarray(other, dtype=object))


def stamps(form):
    return STAMPS.strftime(form)


COLUMNS = {  # name of the column, its cells, the kind
    "axes are no yes": ("axis", R.choice(["X", "Y"], N), "category"),
    "three codes with yes and no": ("insured", R.choice(["Y", "N", "X"], N), "category"),
    "true, false and none": ("state", R.choice(["T", "F", "N"], N), "category"),
    "a cross or nothing": ("recalled", R.choice(["x", ""], N), "flag"),
    "yes in two spellings": ("paid", R.choice(["y", "yes", "No"], N), "flag"),
    "a mark in 4 % of the rows": ("recalled", often("x", "", 0.07), "flag"),
    "a mark in one row": ("recalled", ["x", *[""] * (N - 1)], "constant"),
    "years, a row each": ("year", np.arange(1500, 1500 + N), "number"),
    "seconds, a row each": ("time_s", np.arange(N), "number"),
    "ranks, each once": ("world_rank", R.permutation(N) + 1, "number"),
    "numbers, a row each": ("nr", np.arange(N) + 1, "identifier"),
    "an identifier that looks like years": ("id", np.arange(1500, 1500 + N), "identifier"),
    "postal codes that come again": ("zipcode", R.choice([98001, 98103, 98199, 98052], N), "category"),
    "postal codes that hardly do": ("zip", R.integers(10_000, 99_999, N), "number"),
    "days, and never": ("last", often("never", DAYS, 0.4), "date"),
    "days, and days of zeros": ("last", often("0000-00-00", DAYS, 0.15), "date"),
    "a server's log": ("at", stamps("%d/%b/%Y:%H:%M:%S +0000"), "date"),
    "ISO 8601 without marks": ("at", stamps("%Y%m%dT%H%M%SZ"), "date"),
    "digits alone": ("at", stamps("%Y%m%d%H%M%S"), "date"),
    "a statistics program": ("at", stamps("%d%b%Y:%H:%M:%S"), "date"),
    "mails": ("at", stamps("%a, %d %b %Y %H:%M:%S GMT"), "date"),
    "a zone by name": ("at", stamps("%Y-%m-%d %H:%M:%S Europe/Berlin"), "date"),
    "Korean days": ("day", stamps("%Y. %-m. %-d."), "date"),
    "hours with an h": ("opens", [f"{h:02}h{m:02}" for h, m in R.integers(0, 24, (N, 2))], "number"),
    "the largest double": ("level", often("1.7976931348623157e+308", NOISE, 0.02), "number"),
}  # fmt: skip


def read(place, **columns):
    pd.DataFrame(columns).to_csv(place, index=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return from_csv(place, "target", "auto", "one_hot", (), {})


@pytest.mark.parametrize("case", COLUMNS)
def test_what_a_column_is(tmp_path, case):
    name, cells, kind = COLUMNS[case]
    found = read(tmp_path / "t.csv", **{name: cells}, noise=NOISE, target=NOISE[::-1])
    assert found.facts["decisions"][0]["kind"] == kind


@pytest.mark.parametrize(
    "case", ["a server's log", "ISO 8601 without marks", "digits alone", "mails"]
)
def test_times_are_these(tmp_path, case):
    name, cells, _ = COLUMNS[case]
    found = read(tmp_path / "t.csv", **{name: cells}, noise=NOISE, target=NOISE[::-1])
    days = (STAMPS - pd.Timestamp(0)) / pd.Timedelta(days=1)
    np.testing.assert_allclose(found.parts["train"].x[:, 0], days, rtol=0, atol=1e-9)


def test_a_number_that_is_none_is_missing(tmp_path):
    name, cells, _ = COLUMNS["the largest double"]
    x = read(tmp_path / "t.csv", **{name: cells}, noise=NOISE, target=NOISE[::-1]).parts["train"].x
    assert int(x[:, 0].isnan().sum()) == sum(str(cell).endswith("308") for cell in cells) > 3
    assert bool((x[:, 0].nan_to_num().abs() < 9).all())


@pytest.mark.parametrize(("mark", "rest"), [(99, 5), (-99, 50), (999, 90), (-999, 900)])
def test_marks_among_whole_numbers_are_missing(tmp_path, mark, rest):
    cells = often(mark, R.integers(0, rest + 1, N), 0.1)
    x = read(tmp_path / "t.csv", answer=cells, noise=NOISE, target=NOISE[::-1]).parts["train"].x
    assert x[:, 0].isnan().tolist() == (cells == mark).tolist()


def test_losses_in_brackets_after_their_currency(tmp_path):
    gains = R.integers(-9000, 9000, N)
    cells = [f"$({-gain:,})" if gain < 0 else f"${gain:,}" for gain in gains]
    x = read(tmp_path / "t.csv", gain=cells, noise=NOISE, target=NOISE[::-1]).parts["train"].x
    np.testing.assert_array_equal(x[:, 0], gains)


def test_the_target_tells_how_numbers_are_written(tmp_path):
    """5.095 in a file with semicolons, where the target alone has numbers such as 15.3."""
    weight = R.uniform(1, 9, N).round(3)
    lines = [f"{w:.3f};{y:.1f}\n" for w, y in zip(weight, R.uniform(10, 99, N), strict=True)]
    (tmp_path / "t.csv").write_text("weight;target\n" + "".join(lines))
    found = from_csv(tmp_path / "t.csv", "target", "auto", "one_hot", (), {})
    np.testing.assert_array_equal(found.parts["train"].x[:, 0], weight)


def test_an_empty_row_between_a_title_and_the_header(tmp_path):
    rows = "".join(f"north,{i},{i % 7}.5\n" for i in range(30))
    (tmp_path / "t.csv").write_text("Sales 2023,,\n,,\nregion,qty,price\n" + rows)
    found = from_csv(tmp_path / "t.csv", "price", "auto", "one_hot", (), {})
    assert len(found.parts["train"].y) == 30


@pytest.mark.parametrize(
    ("first", "told"), [("r{i}", False), ("{i}", False), ("{j}", True), ("{i}.5", True)]
)
def test_a_header_with_a_name_less(tmp_path, first, told):
    """Names of rows, as R writes them; anything else before the first name is said."""
    lines = [f"{first.format(i=i, j=i % 9)},{i * 7 % 13},{i % 2}\n" for i in range(30)]
    (tmp_path / "t.csv").write_text("a,y\n" + "".join(lines))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        from_csv(tmp_path / "t.csv", "y", "auto", "one_hot", (), {})
    assert any("a cell more than the header" in str(one.message) for one in caught) == told


@pytest.mark.parametrize(
    ("filled", "said"),
    [
        (lambda sick: sick, "only rows of one class have a value"),
        (lambda sick: sick & (R.random(N) < 0.5), "only rows of one class have a value"),
        (lambda sick: ~sick | (R.random(N) < 0.5), "only rows of one class lack a value"),
        (lambda sick: R.random(N) < 0.5, ""),
    ],
    ids=["all", "some", "gaps", "chance"],
)  # fmt: skip
def test_gaps_that_give_the_target_away_are_named(tmp_path, filled, said):
    sick = R.random(N) < 0.5
    days = np.where(filled(sick), NOISE, np.nan)
    frame = pd.DataFrame(
        {"days": days, "age": NOISE[::-1], "target": np.where(sick, "sick", "well")}
    )
    frame.to_csv(tmp_path / "t.csv", index=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = from_csv(tmp_path / "t.csv", "target", "auto", "one_hot", (), {})
    assert [d["kind"] for d in found.facts["decisions"]] == ["number", "number"]  # kept, and named
    assert (said in str([str(one.message) for one in caught])) if said else not caught


def test_classes_in_several_spellings_are_named(tmp_path):
    frame = pd.DataFrame({"a": NOISE, "target": R.choice(["Yes", "yes", "No", "A+", "a+"], N)})
    frame.to_csv(tmp_path / "t.csv", index=False)
    with pytest.warns(UserWarning, match="'Yes' and 'yes'"):
        from_csv(tmp_path / "t.csv", "target", "auto", "one_hot", (), {})


# --- new files ------------------------------------------------------------------------------------


def test_a_new_file_with_other_capitals_and_codes_with_fractions(tmp_path):
    store = R.integers(20, 60, N)
    found = read(tmp_path / "t.csv", store_id=store, Size=NOISE, target=NOISE[::-1])
    assert found.facts["decisions"][0]["kind"] == "category"
    pd.DataFrame({"STORE ID": store.astype(float), "size": NOISE}).to_csv(
        tmp_path / "n.csv", index=False
    )
    with pytest.warns(UserWarning, match="column 'STORE ID' is taken for 'store_id'"):
        assert torch.equal(rows_by(tmp_path / "n.csv", found.facts), found.parts["train"].x)


# --- encodings ------------------------------------------------------------------------------------


def test_lines_of_several_encodings_in_one_file():
    data = "Größe,Farbe\n1,grün\n".encode() * 5 + "2,weiß\n".encode("cp1252")
    text, encoding = decoded(data, "a.csv")
    assert encoding == MIXED
    assert text == "Größe,Farbe\n1,grün\n" * 5 + "2,weiß\n"


@pytest.mark.parametrize("encoding", ["cp1251", "gbk", "iso8859-7"])
def test_another_alphabet_is_not_read_as_latin(encoding):
    cells = {
        "gbk": "颜色,大小\n红色,1\n",
        "cp1251": "цена,цвет\n1,синий\n",
        "iso8859-7": "τιμή,χρώμα\n1,μπλε\n",
    }
    with pytest.raises(InputError, match="no text in a known encoding"):
        decoded(("a,b,c,d,e\n" * 40 + cells[encoding]).encode(encoding), "a.csv")


@pytest.mark.parametrize(
    "text", ["où est l'été, à côté; ÄÖ 5", "Straße;Größe;öffnet", "señor, año, él"]
)
def test_latin_letters_stay_latin(text):
    assert decoded(text.encode("cp1252"), "a.csv") == (text, "cp1252")


# --- targets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("zeros", [0.0, 0.5])
def test_targets_of_which_many_are_one_number_are_not_bent(tmp_path, zeros):
    spent = np.where(R.random(N) < zeros, 0.0, np.exp(5 + NOISE)).round(2)
    pd.DataFrame({"a": NOISE, "b": R.normal(size=N), "target": spent}).to_csv(
        tmp_path / "t.csv", index=False
    )
    recipe = start(tmp_path / "t.csv", {"stop.after": "2ep"}).recipe
    kinds = [step.kind for step in recipe.data.preprocess if step.arguments.get("of") == "targets"]
    assert kinds == (["standardize"] if zeros >= TIED else ["yeo_johnson", "standardize"])
    assert len(Pipeline(Data(source=recipe.data.source)).raw_shape) == 1
