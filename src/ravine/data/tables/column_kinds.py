"""What each column of a table holds: one decision per column, made from all its values, shown to
the user, stored with the run, and overridden by the recipe. Their form: ``decisions.py``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ravine.data.tables import compounds, dates, hashed, numbers
from ravine.data.tables.column import COUNTED, Column, decision
from ravine.data.tables.file import Table
from ravine.data.tables.order import as_order
from ravine.data.tables.row_names import running_number
from ravine.data.tables.words import (
    FALSE,
    NAMES_A_DAY,
    NAMES_A_PLACE,
    NAMES_A_TIME,
    NAMES_SOMETHING,
    TRUE,
    UUID,
    are_codes,
    named_like_an_id,
)
from ravine.errors import InputError, nearest

MOST_CATEGORIES = 255  # the most frequent ones; the others count as one more, "other"
MOST_GROUPS = 20  # different texts that are taken for categories whatever they look like
MOST_WORDS = 50  # of a column of numbers that are kept
_PLAIN_MARKS: dict[str, Any] = {"decimal": ".", "thousands": "", "words": []}

_FORMS = {"number 1,234.5": (".", ","), "number 1.234,5": (",", ".")}  # decimal, thousands

_SINCE_1970 = {"unix": "seconds since 1970", "unix ms": "milliseconds since 1970"}
_AS_NUMBERS = (  # dates without marks: form, least, last, how many different ones at least
    ("Ymd", 18000101, 21991231, 3), ("Ymd", 180001010000, 219912312359, 3),
    ("Ymd", 18000101000000, 21991231235959, 3), ("Ym", 180001, 219912, 6),
)  # fmt: skip
_SENTINELS = (-99.0, -999.0, -9999.0, -99999.0, -999999.0)  # numbers that stand for "not known"
_COMES_AGAIN = 0.2  # different codes a row, up to which each says something of its rows
_RARE_ROWS = 30  # of thousands, that say something though they are few
_FAR = 5  # times all others that 999 is, where it stands for that
_NOT_A_NUMBER = 1e300  # and above: the largest that a program knows, where it has none


def decide_columns(
    table: Table, names: Sequence[str], wanted: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """The decisions for these columns; ``wanted`` are those that the recipe has made."""
    wanted = wanted or {}
    columns = [Column(table.columns[name]) for name in names]
    table.read_texts([c.name for c in columns if c.needs_texts])
    written = {c.name: c.number_marks() for c in columns if wanted.get(c.name, "number")[:6] == "number"}  # fmt: skip
    if any(m is not None and not m.sure for m in written.values()):  # others may tell: the target
        others = [Column(cells) for name, cells in table.columns.items() if name not in names]
        written |= {c.name: c.number_marks() for c in others if not c.needs_texts}
    comma, why = _habit(table, written)
    day_first = comma or table.separator == ";"
    decided = [
        _wanted(c, wanted[c.name], comma, why, day_first, table.where)
        if c.name in wanted
        else _decided(c, comma, why, day_first)
        for c in columns
    ]
    texts = [place for place, found in enumerate(decided) if found["kind"] == "text"]
    widths = hashed.widths([columns[place].cells for place in texts])
    for place, width in zip(texts, widths, strict=True):
        decided[place]["width"] = width
    return decided


def _habit(table: Table, written: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether a comma is decimal in this file, and what tells: columns that leave no doubt, else
    the separator."""
    sure = {name: m for name, m in written.items() if m is not None and m.sure}
    for name, marks in sure.items():
        if marks.decimal == "," or marks.thousands == ".":
            return True, f"as in column {name!r}"
        if marks.thousands == ",":
            return False, f"as in column {name!r}"
    dotted = next((name for name, m in sure.items() if m.why == "fraction"), None)
    if dotted is not None:
        return False, f"as in column {dotted!r}"
    if table.separator == ";":
        return True, "as usual in files with semicolons"
    return False, "as usual in files without semicolons"


def _decided(c: Column, comma: bool, why: str, day_first: bool) -> dict[str, Any]:
    """The kind of a column by the rules, the surest first."""
    cells = c.cells
    known = cells.size - int(cells.missing.sum())
    if not known:
        return decision(c, "constant", "empty")
    if cells.numbers is not None:
        return _compact_dates(c) or _numeric(c, cells.numbers, _PLAIN_MARKS, "numbers")
    flag = _flag(c)
    if flag is not None:
        return flag
    if len(cells.texts) == 1:
        return _constant(c, str(cells.texts[0]))
    found = _exact(c, comma) or (_number(c, comma, why) if c.marks is not None else None)
    if found is not None:
        return found
    found_dates = dates.dates_of(cells.texts, c.counts, day_first)
    if found_dates is not None:
        return _date(c, found_dates)
    return _clock(c) or _compound(c, comma) or _worded(c)


def _constant(c: Column, value: str) -> dict[str, Any]:
    """One value: says something where it is missing in some rows."""
    if _both_often(c.cells.missing):
        return decision(c, "flag", f"{value!r} or empty", true=[value.lower()], false=[])
    return decision(c, "constant", f"always {value!r}")


def _compact_dates(c: Column) -> dict[str, Any] | None:
    """Whole numbers such as 20200131 or 202001 that all name days or months; seconds or
    milliseconds since 1970, where the name says that they are times."""
    values = c.cells.numbers
    assert values is not None
    known = values[~np.isnan(values)]
    low, high = known.min(), known.max()
    if low > 20_000 and high < 80_000 and NAMES_A_DAY.search(c.name):
        times = bool((known != np.round(known)).any())
        return decision(c, "date", "days as a spreadsheet counts them", form="spreadsheet", times=times)  # fmt: skip
    for form, unit in (("unix", 1), ("unix ms", 1000)):
        if low > 3e8 * unit and high < 4.1e9 * unit and NAMES_A_TIME.search(c.name):
            return decision(c, "date", _SINCE_1970[form], form=form, times=True)
    if (known != np.round(known)).any() or low < 180001:
        return None
    for form, least, last, few in _AS_NUMBERS:
        different: Any = np.unique(known) if least <= low and high <= last else []
        texts = np.array([f"{value:.0f}" for value in different], dtype=object)
        if len(texts) >= few and not np.isnan(dates.parsed(texts, form)[0]).any():
            return decision(c, "date", form, form=form, times=least > 21991231)
    return None


def _clock(c: Column) -> dict[str, Any] | None:
    """Times of the day and durations, as hours."""
    values, counts = dates.hours(c.cells.texts), c.counts
    good = ~np.isnan(values)
    if counts[good].sum() < 0.9 * counts.sum():
        return None
    rows = c.cells.rows_of(values, np.nan)
    return _numeric(c, rows, {**_PLAIN_MARKS, "clock": True}, "times, in hours")


def _exact(c: Column, comma: bool) -> dict[str, Any] | None:
    """Numbers with fractions, amounts in several currencies: numbers however few differ."""
    found = compounds.fractions(c.cells.texts, c.counts)
    if found is None and c.written is not None and c.units.unit is None:
        found = compounds.amounts(c.written, comma)
    return None if found is None else _compound_decision(c, found)


def _compound(c: Column, comma: bool) -> dict[str, Any] | None:
    """Numbers in several units, ranges, several numbers a cell: where too many differ to be
    categories."""
    found = compounds.compound(c.cells.texts, c.counts, comma)
    if found is None or (len(c.cells.texts) <= MOST_GROUPS and found.form != "out of"):
        return None
    if found.values.shape[1] > 1 and named_like_an_id(c.name):
        return None
    return _compound_decision(c, found)


def _compound_decision(c: Column, found: compounds.Compound) -> dict[str, Any]:
    facts = {"form": found.form, "decimal": found.decimal, "thousands": "", "unit": found.unit}
    facts |= _words(c.cells.texts[np.isnan(found.values).any(1)].tolist())
    width = found.values.shape[1]
    if width == 1:
        return _numeric(c, c.cells.rows_of(found.values[:, 0], np.nan), facts, found.why)
    note = {"note": found.why} if found.form == "amounts" else {}
    return decision(c, "numbers", found.why, **facts, **note, width=width)


# --- numbers --------------------------------------------------------------------------------------


def _number(c: Column, comma: bool, why: str) -> dict[str, Any] | None:
    """A column of texts as numbers, where nearly all are: nine of ten rows, or all but a few
    different words."""
    marks = c.marks
    assert marks is not None
    if not marks.sure:
        marks = numbers.settled(marks, comma, why)
    values, counts = c.numbers_by(marks), c.counts
    good = ~np.isnan(values)
    share = counts[good].sum() / counts.sum()
    order = np.argsort(-counts)
    words = c.cells.texts[order[~good[order]]].tolist()
    few = len(words) <= max(2, good.sum() // 25)  # against many different numbers: marks of gaps
    if share < 0.9 and not (share >= 0.5 and few and good.sum() >= 8):
        return None
    said = []
    if marks.thousands:
        said.append(f"thousands {marks.thousands.replace(' ', 'space')}")
    if marks.decimal == ",":
        said.append("decimal ,")
    if c.units.unit:
        said.append(f"unit {c.units.unit}")
    if c.units.why:
        said.append(c.units.why)
    if marks.why:
        said.append(marks.why)
    if words:
        lost = int(counts[~good].sum())
        shown = ", ".join(map(repr, words[:3])) + (", …" if len(words) > 3 else "")
        said.append(f"{lost} {'cell' if lost == 1 else 'cells'} missing: {shown}")
    facts = {**marks.facts(), **c.units.facts(), **_words(words)}
    rows = c.cells.rows_of(values, np.nan)
    return _numeric(c, rows, facts, "; ".join(said) or "numbers")


def _words(words: list[str]) -> dict[str, Any]:
    """The cells that are missing values, so that others in a new file are named."""
    return {"words": words} if len(words) <= MOST_WORDS else {}


def _numeric(c: Column, rows: np.ndarray, facts: dict[str, Any], why: str) -> dict[str, Any]:
    """A column of numbers [N]: a number, unless it is constant, a flag, or names the rows."""
    gone = _sentinel(rows)
    if gone:
        rows = np.where(rows == gone, np.nan, rows)
        facts, why = facts | {"gone": gone}, f"{why}; {gone:g} taken as missing"
    missing = np.isnan(rows)
    different = pd.Series(rows[:COUNTED]).nunique()
    found = decision(c, "number", why, **facts, different=different)
    found["missing"] = int(missing.sum())
    low, high = np.nanmin(rows), np.nanmax(rows)
    if low == high:
        return found | _constant_number(low, missing)
    if low == 0 and high == 1 and ((rows == 0) | (rows == 1) | missing).all():
        return found | {"kind": "flag", "why": "0 and 1", "true": ["1"], "false": ["0"]}
    running = running_number(c.name, rows)
    if running:
        return found | {"kind": "identifier", "why": running}
    return _named_codes(c, rows, different) or found


def _constant_number(value: float, missing: np.ndarray) -> dict[str, Any]:
    if _both_often(missing):
        why = f"{value:g} or empty"
        return {"kind": "flag", "why": why, "true": [f"{value:g}"], "false": []}
    return {"kind": "constant", "why": f"always {value:g}"}


def _sentinel(rows: np.ndarray) -> float:
    """The number that stands for a missing one, such as -999 among numbers above 0, or 999, more
    than once, far above all others; 0 for none."""
    low, high = np.nanmin(rows), np.nanmax(rows)
    if max(-low, high) > _NOT_A_NUMBER:
        return float(high if high > _NOT_A_NUMBER else low)
    rest = rows[rows > low]
    if low in _SENTINELS and len(rest) and rest.min() >= 0:
        return float(low)
    rest = rows[rows < high]
    far = len(rest) and _FAR * np.abs(rest).max() < high and (rows == high).sum() > 1
    return float(high) if -high in _SENTINELS and far else 0.0


def _named_codes(c: Column, rows: np.ndarray, different: int) -> dict[str, Any] | None:
    """Whole numbers whose name says that they are identifiers, of something that comes again: a
    shop, a user."""
    known = rows[~np.isnan(rows)]
    postal = bool(NAMES_A_PLACE.search(c.name)) and known.min() >= 1000 and known.max() < 10**7
    if not (postal or NAMES_SOMETHING.search(c.name)) or (known != np.round(known)).any():
        return None
    counted = min(len(known), COUNTED)
    if different > 0.5 * counted and not postal:
        return decision(c, "identifier", "its name says so, and most rows have their own number")
    most = _COMES_AGAIN * counted  # as numbers, other postal codes say which places are near
    if different > (most if postal else max(MOST_CATEGORIES, most)):
        return None
    c.to_texts()
    return _category(c, f"{different} different numbers, which name something by its name")


# --- flags, dates, words --------------------------------------------------------------------------


def _flag(c: Column) -> dict[str, Any] | None:
    """Two values that mean yes and no, in however many spellings."""
    if len(c.cells.texts) > 20:
        return None
    texts = {str(text).lower() for text in c.cells.texts}
    true, false = sorted(texts & set(TRUE)), sorted(texts & set(FALSE))
    if len(true) + len(false) < len(texts) or not true or are_codes(texts):
        return None
    if false:
        return decision(
            c, "flag", f"{'/'.join(true)} and {'/'.join(false)}", true=true, false=false
        )
    if _both_often(c.cells.missing):
        return decision(c, "flag", f"{'/'.join(true)} or empty", true=true, false=[])
    return None


def _both_often(missing: np.ndarray) -> bool:
    """Whether cells are filled and empty often enough that it says something of the rows."""
    fewer = min(int(missing.sum()), int((~missing).sum()))
    return fewer >= min(_RARE_ROWS, 0.05 * len(missing))


def _date(c: Column, found: dates.Dates) -> dict[str, Any]:
    counts = c.counts
    lost = int(counts[np.isnan(found.days)].sum())
    said = [found.form + (" with times" if found.times else "")]
    if not found.sure and " or " in found.form:
        said.append("where a day could also be a month, the first is taken")
    elif not found.sure:
        said.append("day and month could be the other way round")
    if lost:
        said.append(f"{lost} cells missing that are not dates")
    rows = c.cells.rows_of(found.days, np.nan)
    gone = {"missing": int(np.isnan(rows).sum())}
    if len(np.unique(found.days[~np.isnan(found.days)])) == 1:
        return decision(c, "constant", "always the same day") | gone
    words = _words(c.cells.texts[np.isnan(found.days)].tolist())
    facts = {"form": found.form, "times": found.times, **words}
    return decision(c, "date", "; ".join(said), **facts) | gone


def _worded(c: Column) -> dict[str, Any]:
    """Texts: categories where they come again, else an identifier or words to be read."""
    texts, counts = c.cells.texts, c.counts
    known, different = int(counts.sum()), len(texts)
    if c.code and NAMES_A_PLACE.search(c.name) and different > max(MOST_GROUPS, 0.3 * known):
        rows = c.cells.rows_of(c.numbers_by(numbers.Marks(".", "", True)), np.nan)
        return _numeric(
            c, rows, dict(_PLAIN_MARKS), "postal codes, too many for categories: numbers"
        )
    probe = [str(text) for text in texts[:: max(1, different // 500)]]
    if sum(bool(UUID.fullmatch(text)) for text in probe) > 0.9 * len(probe):
        return decision(c, "identifier", "UUIDs")
    repeated = 1 - different / known
    named = {unit for unit in c.units.mixed.split(", ") if unit != "none" and len(unit) > 1}
    mixed = f" of numbers in several units ({c.units.mixed})" if named else ""  # not of 5a and 6b
    if repeated < 0.5 and len({re.sub(r"\d+", "#", text) for text in probe}) < 0.02 * len(probe):
        return decision(
            c, "identifier", f"{different:,} different texts, which differ in a number alone{mixed}"
        )
    words = hashed.words_a_cell(probe)
    if different <= MOST_GROUPS and repeated >= 0.25:
        return _category(c, f"{different} different texts{mixed}")
    if words >= 3 and repeated < 0.5:
        why = f"{words:.0f} words a cell, most of them different"
        return decision(c, "text", why)
    if repeated >= 0.05 and not (named_like_an_id(c.name) and repeated < 0.5):
        return _category(c, f"{different:,} different texts{mixed}")
    if words >= 2 and not any(any(map(str.isdigit, text)) for text in probe):
        why = "names of several words, nearly all different"
        return decision(c, "text", why)
    return decision(c, "identifier", f"{different:,} different texts in {known:,} rows{mixed}")


def _category(c: Column, why: str) -> dict[str, Any]:
    texts, counts = c.cells.texts, c.counts
    order = np.lexsort((texts.astype(str), -counts))[:MOST_CATEGORIES]
    categories = sorted(str(texts[place]) for place in order)
    if len(texts) > MOST_CATEGORIES:
        why += f", of which the {MOST_CATEGORIES} most frequent count"
    return decision(c, "category", why, categories=categories)


# --- what the recipe says -------------------------------------------------------------------------


def _wanted(
    c: Column, kind: str, comma: bool, why: str, day_first: bool, where: str
) -> dict[str, Any]:
    """A column as the recipe wants it."""
    said = "set in the recipe"
    place = f"{where}: column {c.name}, which the recipe has as {kind!r}"
    if kind in ("identifier", "constant", "group"):
        return decision(c, "group" if kind == "group" else "identifier", said)
    if kind == "order":
        return as_order(_decided(c, comma, why, day_first), place)
    if kind == "numbers":
        return _wanted_numbers(c, comma, place) | {"why": said}
    if kind.startswith("number"):
        return _wanted_number(c, kind, comma, why, place) | {"why": said}
    if kind.startswith("date"):
        return _wanted_date(c, kind, day_first, place) | {"why": said}
    c.to_texts()
    if kind == "category":
        return _category(c, said)
    if kind == "text":
        return decision(c, "text", said)
    texts = sorted(str(text).lower() for text in c.cells.texts)
    true = [text for text in texts if text in TRUE] or texts[-1:]
    false = [text for text in texts if text not in true]
    if len(false) > 1 and not set(false) <= set(FALSE):
        raise InputError(place, got=f"{len(texts)} different texts", expected="two, for a flag")
    return decision(c, "flag", said, true=true, false=false)


def _wanted_numbers(c: Column, comma: bool, place: str) -> dict[str, Any]:
    c.to_texts()
    found = compounds.compound(c.cells.texts, c.counts, comma)
    if found is None:
        got = str(c.cells.texts[0]) if len(c.cells.texts) else "no value"
        raise InputError(place, got=got, expected="as many numbers in each cell, such as 120/80")
    return _compound_decision(c, found)


def _wanted_number(c: Column, kind: str, comma: bool, why: str, place: str) -> dict[str, Any]:
    chosen = _FORMS.get(kind)
    if chosen is None and c.cells.numbers is not None and not c.code:
        return decision(c, "number", "", decimal=".", thousands="")
    c.to_texts()
    if chosen is None and c.marks is not None:
        marks = c.marks if c.marks.sure else numbers.settled(c.marks, comma, why)
    else:
        marks = numbers.Marks(*(chosen or (".", "")), sure=True)
    c.written = c.written or numbers.taken_apart(c.cells.texts, c.counts)
    values = c.numbers_by(marks)
    if np.isnan(values).all():
        form, first = kind.removeprefix("number").strip(), next(iter(c.cells.texts), "no value")
        others = [one for one in _FORMS if one != kind]
        reads = [one for one in others if not np.isnan(c.numbers_by(numbers.Marks(*_FORMS[one], sure=True))).all()]  # fmt: skip
        expected = f"numbers written as {form}" if form else "numbers"
        raise InputError(place, got=str(first), expected=expected, repair=nearest(kind, reads))
    rows = c.cells.rows_of(values, np.nan)
    facts = {**marks.facts(), **c.units.facts()}
    return decision(c, "number", "", **facts) | {"missing": int(np.isnan(rows).sum())}


def _wanted_date(c: Column, kind: str, day_first: bool, place: str) -> dict[str, Any]:
    c.to_texts()
    form = kind.removeprefix("date").strip()
    found = dates.dates_of(c.cells.texts, c.counts, day_first)
    if form:
        days, times = dates.parsed(c.cells.texts, form)
        found = None if np.isnan(days).all() else dates.Dates(days, form, times)
    if found is None:
        first = next(iter(c.cells.texts), "no value")
        expected = f"dates written as {form}" if form else "dates"
        raise InputError(place, got=str(first), expected=expected)
    return decision(c, "date", "", form=found.form, times=found.times)
