"""The form of the decisions about a table's columns: what every part that reads them needs, without
pandas, so that a run of other data does not import it.

A decision is plain data: ``name``, ``kind``, ``why``, ``missing``, ``different``, and what reading
the column again needs (marks of numbers, the form of dates, categories, …).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

LEFT_OUT = ("identifier", "constant", "leak", "group", "order")  # kinds that are no inputs
WIDE = ("numbers", "text")  # kinds that take several places of the raw matrix
DATE_PARTS = ("year", "month", "weekday", "days")  # and the hour, where there are times


def width_of(column: Mapping[str, Any]) -> int:
    """How many raw numbers a column has."""
    return column.get("width", 1)


def places_of(columns: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], slice]]:
    """Each column and its place in the raw matrix.

    >>> [place for _, place in places_of([{"name": "a"}, {"name": "b", "width": 3}])]
    [slice(0, 1, None), slice(1, 4, None)]
    """
    start = 0
    for column in columns:
        yield column, slice(start, start + width_of(column))
        start += width_of(column)


def used(columns: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The decisions for columns that are inputs."""
    return [column for column in columns if column["kind"] not in LEFT_OUT]
