"""Decisions and cells -> the raw matrix [N, columns] in float64; texts as hashed n-grams."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ravine.data.tables import compounds, dates, hashed, numbers
from ravine.data.tables.decisions import places_of, width_of
from ravine.data.tables.file import Cells, Table
from ravine.data.tables.units import Units
from ravine.errors import InputError

OTHER = -1.0  # the code of a category that is not among the decision's


def matrix(table: Table, columns: Sequence[Mapping[str, Any]]) -> Tensor:
    """The raw matrix [N, widths]: numbers, days since 1970, 0 and 1, codes of categories (-1 where
    another), hashed texts; NaN where missing. Warns, once each, of columns that are missing and of
    categories and cells that training did not have."""
    _rename_alike(table, columns)
    absent = [c["name"] for c in columns if c["name"] not in table.columns]
    if len(absent) == len(columns):
        raise InputError(
            table.where,
            got=f"columns {', '.join(list(table.columns)[:12])}",
            expected=f"at least one of {', '.join(absent[:12])}",
        )
    total = sum(width_of(column) for column in columns)
    raw = torch.full((table.size, total), torch.nan, dtype=torch.float64)
    for column, place in places_of(columns):
        name = column["name"]
        if name in absent:
            warnings.warn(f"{table.where}: no column {name!r}: taken as missing", stacklevel=2)
            continue
        where = f"{table.where}: column {name!r}"
        values = _values(table.columns[name], column, where, table.typed)
        raw[:, place] = torch.tensor(values).view(table.size, -1)
    return raw


def _rename_alike(table: Table, columns: Sequence[Mapping[str, Any]]) -> None:
    """Columns of a new file that differ from those of training in capitals or spaces alone are these."""
    free = [name for name in table.columns if name not in {c["name"] for c in columns}]
    for column in columns:
        name = column["name"]
        alike = [other for other in free if _bare(other) == _bare(name)]
        if name not in table.columns and len(alike) == 1:
            warnings.warn(f"{table.where}: column {alike[0]!r} is taken for {name!r}", stacklevel=3)
            table.columns[name] = table.columns[alike[0]]


def _bare(name: str) -> str:
    return "".join(filter(str.isalnum, name)).casefold()


def _values(cells: Cells, column: Mapping[str, Any], where: str, typed: bool) -> np.ndarray:
    kind = column["kind"]
    if cells.numbers is not None:
        if kind == "flag" and not column["false"]:
            return np.where(np.isnan(cells.numbers), 0.0, 1.0)  # an empty cell says no
        if kind in ("number", "flag") and not column.get("thousands"):
            return _known(_finite(cells.numbers, where), column)
        cells = cells.raw()
    if column.get("form") and kind in ("number", "numbers"):
        return _compound(cells, column, where)
    if kind == "number":
        found = _finite(cells.rows_of(_numbers(cells, column, where, typed), np.nan), where)
        return _known(found, column)
    if kind == "flag":
        return cells.rows_of(_flags(cells, column, where), np.nan if column["false"] else 0.0)
    if kind == "date":
        return cells.rows_of(_days(cells, column, where), np.nan)
    if kind == "text":
        return hashed.features(cells, width_of(column))
    return cells.rows_of(_codes(cells, column, where), np.nan)


def _compound(cells: Cells, column: Mapping[str, Any], where: str) -> np.ndarray:
    """The numbers of each row [N, width]."""
    width = width_of(column)
    of_text = compounds.values_of(
        cells.texts, column["form"], column["decimal"], column["unit"], parts=width
    )
    _warn_of_words(cells.texts, np.isnan(of_text).any(1), column, where)
    return np.concatenate([of_text, np.full((1, width), np.nan)])[cells.codes]


def _known(values: np.ndarray, column: Mapping[str, Any]) -> np.ndarray:
    """NaN for the number that stands for a missing one."""
    return np.where(values == column["gone"], np.nan, values) if "gone" in column else values


def _finite(values: np.ndarray, where: str) -> np.ndarray:
    infinite = int(np.isinf(values).sum())
    if infinite:
        raise InputError(
            where.replace("'", ""),
            got=f"{infinite} infinite value(s)",
            expected="finite numbers, or empty cells where a value is missing",
        )
    return values


def _numbers(
    cells: Cells, column: Mapping[str, Any], where: str, typed: bool = False
) -> np.ndarray:
    """The number of each different text, by the marks of the decision; where these do not fit a new
    file, by its own. ``typed``: what is a number with a decimal point is that number."""
    if column.get("clock"):
        values = dates.hours(cells.texts)
        _warn_of_words(cells.texts, np.isnan(values), column, where)
        return values
    counts = np.bincount(cells.codes[cells.codes >= 0], minlength=len(cells.texts))
    written = numbers.taken_apart(cells.texts, counts)
    units = Units.of(column)
    strange = units.apply(written)
    if strange:
        shown = ", ".join(repr(one) if one else "without a unit" for one in sorted(strange)[:3])
        rest = f"in {units.unit}" if units.unit else "of another kind"
        warnings.warn(
            f"{where}: cells {shown} taken as missing: the others are {rest}", stacklevel=2
        )
    marks = numbers.Marks(column["decimal"], column["thousands"], True)
    values = numbers.values_of(written, marks)
    if typed:
        plain = numbers.values_of(written, numbers.Marks(".", "", True))
        values = np.where(np.isnan(plain), values, plain)
    if np.isnan(values).mean() > 0.5 and len(values):
        own = numbers.marks_of([core for core in written.cores if core])
        again = values if own is None else numbers.values_of(written, own)
        if np.isnan(again).sum() < np.isnan(values).sum():
            warnings.warn(f"{where}: numbers written in another way than in training", stacklevel=2)
            values = again
    if not strange:
        _warn_of_words(cells.texts, np.isnan(values), column, where)
    return values


def _warn_of_words(
    texts: np.ndarray, gone: np.ndarray, column: Mapping[str, Any], where: str
) -> None:
    """Name cells that are no numbers and that training did not have."""
    new = [str(text) for text in texts[gone] if text not in column["words"]] if "words" in column else []  # fmt: skip
    if new:
        shown = ", ".join(map(repr, new[:3])) + (", …" if new[3:] else "")
        what = "dates" if column["kind"] == "date" else "numbers"
        warnings.warn(f"{where}: no {what}, taken as missing: {shown}", stacklevel=3)


def _flags(cells: Cells, column: Mapping[str, Any], where: str) -> np.ndarray:
    values = np.full(len(cells.texts), np.nan)
    for place, text in enumerate(cells.texts):
        plain = _plain(text)
        if plain in column["true"] or plain in column["false"]:
            values[place] = float(plain in column["true"])
    _warn_unseen([t for t, v in zip(cells.texts, values, strict=True) if np.isnan(v)], where)
    return values


def _plain(text: str) -> str:
    """1.0 and 1 are the same flag."""
    lower = str(text).lower()
    return lower[:-2] if lower in ("1.0", "0.0") else lower


def _days(cells: Cells, column: Mapping[str, Any], where: str) -> np.ndarray:
    days, _ = dates.parsed(cells.texts, column["form"])
    if len(days) and np.isnan(days).mean() > 0.5:
        counts = np.ones(len(days), np.int64)
        found = dates.dates_of(cells.texts, counts, column["form"] == "d/m/Y")
        if found is not None:
            warnings.warn(f"{where}: dates written in another way than in training", stacklevel=2)
            return found.days
    _warn_of_words(cells.texts, np.isnan(days), column, where)
    return days


def _codes(cells: Cells, column: Mapping[str, Any], where: str) -> np.ndarray:
    code = {category: float(place) for place, category in enumerate(column["categories"])}
    values = np.array([code.get(str(text), OTHER) for text in cells.texts], dtype=np.float64)
    whole = {_whole(category): place for category, place in code.items()}
    for place in np.flatnonzero(values == OTHER):
        values[place] = whole.get(_whole(str(cells.texts[place])), OTHER)
    if (values == OTHER).any() and column["different"] <= len(code):
        _warn_unseen([t for t, v in zip(cells.texts, values, strict=True) if v == OTHER], where)
    return values


def _whole(text: str) -> str:
    """27.0, as programs write 27 where another cell of the column is missing, is 27."""
    return text.removesuffix(".0") if text[:-2].isdigit() else text


def _warn_unseen(texts: Sequence[str], where: str) -> None:
    if texts:
        shown = ", ".join(map(repr, map(str, texts[:3]))) + (", …" if len(texts) > 3 else "")
        warnings.warn(f"{where}: values that training did not have: {shown}", stacklevel=3)
