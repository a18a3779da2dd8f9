"""Rows in an order, as the days of a series: the last ones are tested on."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ravine.data.tables.file import Table
from ravine.data.tables.matrix import matrix
from ravine.errors import InputError


def as_order(found: dict[str, Any], place: str) -> dict[str, Any]:
    """The decision for a column that the recipe has as ``order``, from the one that its cells give:
    dates or numbers, running ones too."""
    by = "number" if found["kind"] in ("number", "identifier") else found["kind"]
    if by not in ("number", "date") or (by == "number" and "decimal" not in found):
        got = f"{found['kind']}: {found['why']}"
        raise InputError(place, got=got, expected="dates or numbers to order the rows by")
    return found | {"kind": "order", "by": by, "why": f"set in the recipe; {found['why']}"}


def order_of(table: Table, decisions: Sequence[Mapping[str, Any]]) -> Tensor | None:
    """The time of each row [N] by the column that is the order, NaN where it has none: these rows are
    trained on. None where no column is one. Raises InputError for two of them, or groups beside it."""
    found = [decision for decision in decisions if decision["kind"] == "order"]
    if not found:
        return None
    dividing = [decision for decision in decisions if decision["kind"] in ("order", "group")]
    if len(dividing) > 1:
        raise InputError(
            f"{table.where}: columns",
            got=" and ".join(f"{d['name']!r} as {d['kind']}" for d in dividing),
            expected="one column by which the rows are divided",
        )
    times = matrix(table, [dict(found[0], kind=found[0]["by"])])[:, 0]
    gone = int(times.isnan().sum())
    if gone:
        told = f"{table.where}: {gone} rows have no {found[0]['name']!r}: they are trained on"
        warnings.warn(told, stacklevel=4)
    return times
