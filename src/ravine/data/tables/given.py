"""Rows of a table given as values by column name, read by the decisions made for the training file."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ravine.data.tables.file import Cells, Table
from ravine.data.tables.matrix import matrix
from ravine.errors import InputError, unknown

Value = str | float | int | bool | None


def rows_given(rows: Sequence[Mapping[str, Value]], facts: Mapping[str, Any]) -> Tensor:
    """The raw matrix of rows: numbers as numbers or as they are written in the training file, all else as
    it is written there; a column that is not given, or None, is missing.

    Errors: a name that is no column; a value that is no number or text; no rows.
    """
    columns = list(facts["columns"])
    names = [column["name"] for column in columns]
    known = {*names, *(one["name"] for one in facts.get("decisions", ())), *facts["targets"]}
    if not rows or not all(isinstance(row, Mapping) for row in rows):
        raise InputError("rows", got="no rows", expected="objects {column: value}")
    for row in rows:
        for name in row:
            if name not in known:
                raise unknown("rows", name, names)
    cells, plain = {}, []
    for column in columns:
        name = column["name"]
        cells[name] = _cells(column, [row.get(name) for row in rows])
        # numbers that are given as such are not written with marks of thousands
        plain.append(column | {"thousands": ""} if cells[name].numbers is not None else column)
    return matrix(Table(cells, "rows", "utf-8", ",", True), plain)


def _cells(column: Mapping[str, Any], values: list[Value]) -> Cells:
    name = column["name"]
    values = [_plain(value) for value in values]
    numeric = all(
        v is None or (isinstance(v, int | float) and not isinstance(v, bool)) for v in values
    )
    if numeric and column["kind"] in ("number", "flag"):
        numbers = np.array([np.nan if v is None else float(v) for v in values])
        return Cells(name, numbers, np.array([], dtype=str), np.zeros(0, int), ())
    texts = [_text(name, column, value) for value in values]
    different = sorted({text for text in texts if text is not None})
    codes = np.array([-1 if text is None else different.index(text) for text in texts])
    return Cells(name, None, np.array(different, dtype=str), codes, different[:8])


def _plain(value: Any) -> Any:
    """A value as Python's own number or text; None where it is missing (NaN, NaT, an empty text)."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, datetime.date):  # pandas' Timestamp and NaT are some too
        return str(value) if value == value else None
    missing = isinstance(value, float) and math.isnan(value)
    return None if missing or (isinstance(value, str) and not value.strip()) else value


def _text(name: str, column: Mapping[str, Any], value: Value) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool) and column["kind"] == "flag":
        words = column["true"] if value else column["false"]
        return str(words[0]) if words else None
    if isinstance(value, bool | int | str):
        return str(value).strip()
    if isinstance(value, float):
        return f"{value:g}"
    raise InputError(f"rows: {name}", got=type(value).__name__, expected="a number, a text or null")
