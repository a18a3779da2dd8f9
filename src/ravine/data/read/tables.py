"""CSV files -> raw matrices [N, columns] in float64: numbers as they are, texts as codes, NaN where
a value is missing.

What is fitted (medians, modes, which categories occur) is a Transform, ``Encoder``, fitted to the
training part alone.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ravine.data.transform import Transform
from ravine.errors import InputError, unknown

MISSING = frozenset(
    {"", "na", "n/a", "nan", "null", "none", "?", "#n/a", "<na>"}
)  # compared in lower case
_TARGETS = ("target", "label", "class", "y")
_MOST_CATEGORIES = 100
_DECIMAL_COMMA = re.compile(r"[-+]?[0-9]*,[0-9]+(?:[eE][-+]?[0-9]+)?")


@dataclass
class Table:
    """The cells of a CSV file by column."""

    columns: dict[str, list[str]]
    where: str

    @property
    def size(self) -> int:
        return len(next(iter(self.columns.values())))


def read(path: Path) -> Table:
    """Read a CSV file: its first line is the header, its separator that of ``, ; tab |`` which cuts
    the first rows into the most columns, equally many in each. Where a comma does not separate, it
    may be a decimal point."""
    where = path.name
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            where, expected="text in UTF-8", repair=f"save it as UTF-8 ({error})"
        ) from None
    lines = text.splitlines()
    if not lines or not lines[0].strip():
        raise InputError(where, got="an empty file", expected="a header line and rows")
    separator = _separator(text, lines[0])
    rows = _rows(text, separator)
    header = [name.strip() for name in rows[0]]
    if all(number(name) is not None for name in header):
        header, body, first = [f"column{i + 1}" for i in range(len(header))], rows, 1
    else:
        body, first = rows[1:], 2
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise InputError(
            where, got=f"the column {twice[0]!r} twice", expected="a different name for each column"
        )
    for line, row in enumerate(body, first):
        if len(row) != len(header):
            raise InputError(
                where,
                got=f"{len(row)} values in row {line}",
                expected=f"{len(header)}, as in the header",
            )
    if not body:
        raise InputError(where, got="a header without rows", expected="at least one row")
    columns = {name: [row[i].strip() for row in body] for i, name in enumerate(header)}
    if separator != ",":
        columns = {name: _with_points(cells) for name, cells in columns.items()}
    return Table(columns, where)


def _rows(text: str, separator: str, most: int | None = None) -> list[list[str]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    return [row for row in itertools.islice(reader, most) if row]


def _separator(text: str, header: str) -> str:
    widths = {separator: {len(row) for row in _rows(text, separator, 20)} for separator in ",;\t|"}
    fits = {separator: max(found) for separator, found in widths.items() if len(found) == 1}
    if max(fits.values(), default=1) > 1:
        return max(fits, key=lambda separator: fits[separator])
    return max(",;\t|", key=header.count)


def _with_points(cells: list[str]) -> list[str]:
    """A column of numbers with a comma as their decimal point."""
    if not any(_DECIMAL_COMMA.fullmatch(cell) for cell in cells):
        return cells
    pointed = [cell.replace(",", ".") if _DECIMAL_COMMA.fullmatch(cell) else cell for cell in cells]
    return pointed if all(missing(cell) or number(cell) is not None for cell in pointed) else cells


def number(cell: str) -> float | None:
    """The number in a cell, or None where it is text."""
    try:
        return float(cell)
    except ValueError:
        return None


def missing(cell: str) -> bool:
    return cell.lower() in MISSING


def targets_of(table: Table, target: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """The target columns: those named, else one called target, label, class or y, else the last."""
    if target is None:
        called = [name for name in table.columns if name.lower() in _TARGETS]
        return (called[0] if called else list(table.columns)[-1],)
    names = (target,) if isinstance(target, str) else target
    for name in names:
        if name not in table.columns:
            raise unknown(f"{table.where}: target", name, table.columns)
    return names


def describe(table: Table, names: Sequence[str]) -> list[dict[str, Any]]:
    """What each input column holds: numbers, or texts with their categories; columns of too many
    texts are left out."""
    described: list[dict[str, Any]] = []
    left_out = []
    for name in names:
        known = [cell for cell in table.columns[name] if not missing(cell)]
        if not known:
            left_out.append(f"{name!r} (empty)")
        elif all(number(cell) is not None for cell in known):
            described.append({"name": name, "kind": "number"})
        elif len(categories := sorted(set(known))) > _MOST_CATEGORIES:
            left_out.append(
                f"{name!r} ({len(categories)} different texts, more than {_MOST_CATEGORIES})"
            )
        else:
            described.append({"name": name, "kind": "category", "categories": categories})
    if not described:
        raise InputError(
            table.where,
            got="no usable input column",
            expected="columns of numbers or categories beside the target",
            repair=f"left out: {', '.join(left_out)}" if left_out else "",
        )
    if left_out:
        warnings.warn(f"{table.where}: columns left out: {', '.join(left_out)}", stacklevel=2)
    return described


def matrix(table: Table, columns: Sequence[dict[str, Any]]) -> Tensor:
    """The raw matrix [N, columns]: a number, a category's code (-1 where it is not known), NaN
    where missing."""
    raw = torch.empty(table.size, len(columns), dtype=torch.float64)
    for place, column in enumerate(columns):
        name = column["name"]
        if name not in table.columns:
            raise unknown(f"{table.where}: column", name, table.columns)
        cells = table.columns[name]
        raw[:, place] = torch.tensor(
            _codes(cells, column["categories"])
            if column["kind"] == "category"
            else numbers(cells, f"{table.where}: column {name}"),
            dtype=torch.float64,
        )
    return raw


def _codes(cells: Sequence[str], categories: Sequence[str]) -> list[float]:
    code = {category: float(place) for place, category in enumerate(categories)}
    return [math.nan if missing(cell) else code.get(cell, -1.0) for cell in cells]


def numbers(cells: Sequence[str], where: str) -> list[float]:
    """The numbers of a column; NaN where missing; text and infinity are errors."""
    values = [math.nan if missing(cell) else number(cell) for cell in cells]
    for row, value in enumerate(values):
        if value is None:
            raise InputError(
                where, got=cells[row], expected="a number", repair=f"see data row {row + 1}"
            )
    infinite = sum(math.isinf(value) for value in values)  # type: ignore[arg-type]
    if infinite:
        raise InputError(
            where,
            got=f"{infinite} infinite value(s)",
            expected="finite numbers, or empty cells where a value is missing",
        )
    return values  # type: ignore[return-value]


class Encoder(Transform):
    """Raw matrix -> features: numbers (missing ones filled with the median), an indicator for each
    numeric column that has missing values in the training part, categories one-hot or as an index
    (missing ones filled with the mode).

    A category that the training part does not have gives zeros (one-hot) or the next free index.
    """

    fill: Tensor  # [columns] median or mode
    code: (
        Tensor  # [columns, categories] raw code -> index among those seen in training, -1 if unseen
    )

    def forward(self, x: Tensor) -> Tensor:
        gaps = torch.isnan(x)
        filled = torch.where(gaps, self.fill, x)
        features = []
        for place, column in enumerate(self.settings["columns"]):
            value = filled[:, place]
            if column["kind"] == "number":
                features.append(value[:, None])
                if column["indicator"]:
                    features.append(gaps[:, place, None].to(x.dtype))
                continue
            codes = value.long()
            index = torch.where(codes < 0, -1, self.code[place].long()[codes.clamp(min=0)])
            if self.settings["categorical"] == "index":
                features.append(torch.where(index < 0, column["seen"], index)[:, None].to(x.dtype))
            else:
                features.append(
                    (index[:, None] == torch.arange(column["seen"], device=x.device)).to(x.dtype)
                )
        return torch.cat(features, 1)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the features."""
        names: list[str] = []
        for column in self.settings["columns"]:
            name = column["name"]
            if column["kind"] == "number":
                names += [name, f"{name} missing"] if column["indicator"] else [name]
            else:
                names += (
                    [name]
                    if self.settings["categorical"] == "index"
                    else [f"{name}={c}" for c in column["kept"]]
                )
        return tuple(names)


def fit_encoder(
    raw: Tensor, columns: Sequence[dict[str, Any]], categorical: str, where: str
) -> Encoder:
    """Medians, modes and categories of the training rows."""
    most = max([len(column.get("categories", ())) for column in columns] + [1])
    fill = torch.zeros(len(columns), dtype=torch.float64)
    code = torch.full((len(columns), most), -1.0, dtype=torch.float64)
    kept_columns = []
    for place, column in enumerate(columns):
        values = raw[:, place]
        known = values[~torch.isnan(values)]
        if not len(known):
            raise InputError(
                f"{where}: column {column['name']}",
                got="no value in the training part",
                expected="at least one",
                repair="leave the column out",
            )
        if column["kind"] == "number":
            fill[place] = known.quantile(0.5) if len(known) < 10_000_000 else known.median()
            kept_columns.append(
                {"name": column["name"], "kind": "number", "indicator": len(known) < len(values)}
            )
            continue
        seen, counts = known.unique(return_counts=True)
        fill[place] = seen[counts.argmax()]
        code[place, seen.long()] = torch.arange(len(seen), dtype=torch.float64)
        kept = [column["categories"][int(c)] for c in seen]
        kept_columns.append(
            {"name": column["name"], "kind": "category", "seen": len(seen), "kept": kept}
        )
    return Encoder({"columns": kept_columns, "categorical": categorical}, fill=fill, code=code)
