"""A column of a table while its kind is decided: its cells, and how its numbers are written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from ravine.data.tables import numbers
from ravine.data.tables.file import Cells
from ravine.data.tables.units import Units, units_of

COUNTED = 50_000  # rows in which different numbers are counted


class Column:
    """A column's cells, and what was found out about them so far."""

    def __init__(self, cells: Cells):
        self.cells, self.name = cells, cells.name
        self.written: numbers.Written | None = None
        self.marks: numbers.Marks | None = None
        self.units = Units()
        self.code = False  # digits with zeros in front, which numbers do not have

    @property
    def counts(self) -> np.ndarray:
        """How many rows hold each different text."""
        known = self.cells.codes[self.cells.codes >= 0]
        return np.bincount(known, minlength=len(self.cells.texts))

    def to_texts(self) -> None:
        """Look at numbers that pandas read as they are written."""
        if self.cells.numbers is not None:
            self.cells = self.cells.raw()

    @cached_property
    def needs_texts(self) -> bool:
        """Whether numbers that pandas read must be looked at as they are written."""
        if self.cells.numbers is None:
            return False
        head = [cell for cell in self.cells.head if cell]
        self.code = numbers.leading_zeros(head) > 0.01
        return self.code or self._could_be_thousands(head)

    def number_marks(self) -> numbers.Marks | None:
        """How its numbers are written; None where it holds none."""
        if self.cells.numbers is not None:
            head = [cell for cell in self.cells.head if cell]
            if not self.needs_texts:
                fraction = any("." in cell for cell in head)
                self.marks = numbers.Marks(".", "", True, "fraction" if fraction else "")
                return self.marks
            self.cells = self.cells.raw()
            self.cells.head = head
        if not self._mostly_digits():
            return None
        self.written = numbers.taken_apart(self.cells.texts, self.counts)
        numbers.without_bounds(self.written)
        self.units = units_of(self.written)
        if self.units.unit is None:
            return None
        self.units.apply(self.written)
        self.code = numbers.leading_zeros(self.cells.texts.tolist()) > 0.01
        self.marks = None if self.code else numbers.marks_of([c for c in self.written.cores if c])
        return self.marks

    def _could_be_thousands(self, head: Sequence[str]) -> bool:
        """Whether every fraction could be a group of three digits: 1.004 and 12.500."""
        values = self.cells.numbers
        assert values is not None
        with_mark = [cell for cell in head if "." in cell]
        if not with_mark or not all(
            re.fullmatch(r"[-+]?[1-9]\d{0,2}\.\d{3}", c) for c in with_mark
        ):
            return False
        known = values[~np.isnan(values)]
        thousands = known * 1000
        return bool((np.abs(thousands - np.round(thousands)) < 1e-6).all())

    def _mostly_digits(self) -> bool:
        probe = self.cells.texts[:: max(1, len(self.cells.texts) // 500)]
        if not len(probe):
            return False
        digits = sum(any(map(str.isdigit, text)) and len(text) < 64 for text in probe)
        return digits >= 0.2 * len(probe)

    def numbers_by(self, marks: numbers.Marks) -> np.ndarray:
        """The number of each different text [U], NaN where it is none."""
        assert self.written is not None
        return numbers.values_of(self.written, marks)


def decision(c: Column, kind: str, why: str, **more: Any) -> dict[str, Any]:
    """A decision about a column, as plain data."""
    cells = c.cells
    if cells.numbers is not None:
        more = {"different": pd.Series(cells.numbers[:COUNTED]).nunique()} | more
    return {
        "name": c.name,
        "kind": kind,
        "why": why,
        "missing": int(cells.missing.sum()),
        "different": len(cells.texts),
        **more,
    }
