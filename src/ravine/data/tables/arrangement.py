"""How a file of text is laid out as a table: its separator, lines above the table, its header."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from itertools import pairwise

from ravine.data.tables.words import TOTALS, UNIT_WORDS

_SEPARATORS = ",;\t|^"
_MOST_TOP = 20  # lines above the table
_MOST_BELOW = 12  # lines under it
_LONGEST = 50_000  # characters of such a line
_NUMBER = re.compile(r"[-+]?(\d+([.,]\d*)*|[.,]\d+)([eE][-+]?\d+)?")

_BEGINS = re.compile(r"[-+(]?[^\w\s]?[0-9]")  # of a cell that holds a number
_NOTE = re.compile(
    r'["(]?(\*|©|--|source|note|quelle|anm|hinweis|stand|fuente|nota|data from|last updated)', re.I
)


@dataclass
class Arrangement:
    """``separator`` (" " for runs of spaces); ``top``: lines above the table; ``short_header``: the
    header has one name fewer than the rows have cells."""

    separator: str
    top: int = 0
    short_header: bool = False


def layout_of(sample: str, whole: bool = True) -> Arrangement:
    """The separator that cuts the first rows into the most cells, equally many in each, titles and
    comments above them aside.

    >>> layout_of("# made in May\\na;b\\n1,5;2\\n")
    Arrangement(separator=';', top=1, short_header=False)
    """
    named = re.match(r"sep=(.)\r?\n", sample)
    if named and named[1] in (*_SEPARATORS, ":"):
        return Arrangement(named[1], 1)  # as Excel writes and reads it
    found = {}
    for separator in _SEPARATORS:
        rows, ends = _numbered_rows(sample, separator, 100, whole)
        while len(rows) > 3 and sum(map(bool, map(str.strip, rows[-1]))) < 2:
            rows, ends = rows[:-1], ends[:-1]  # a line under the table, perhaps
        fit = _fit(rows, ends)
        if fit is not None:
            found[separator] = (len(rows[-1]), Arrangement(separator, *fit))
    if found:
        return max(found.values(), key=lambda one: (one[0], -one[1].top))[1]
    stripped = "\n".join(line.strip() for line in sample.splitlines())
    rows, ends = _numbered_rows(stripped, " ", 100, whole)
    fit = _fit(rows, ends)
    if fit is not None and len(rows) > 2:
        return Arrangement(" ", *fit)
    rows, ends = _numbered_rows(sample, ":", 100, whole)
    if len(rows) > 2 and _fit(rows, ends) == (0, False):  # last: times have colons too
        return Arrangement(":")
    line = next(line for line in sample.splitlines() if line.strip())
    return Arrangement(max(_SEPARATORS, key=line.count))


def _fit(rows: list[list[str]], ends: list[int]) -> tuple[int, bool] | None:
    """The number of lines above the table and whether its header is one short; None where rows
    differ in another way, or have one cell."""
    width = len(rows[-1]) if rows else 0
    if width < 2:
        return None
    start = next(place for place, row in enumerate(rows) if len(row) == width)
    if any(len(row) != width for row in rows[start:]) or start > _MOST_TOP:
        return None
    few = start and len(rows) - start < 3 and not rows[0][0].startswith("#")
    if few or any(len(row) > width for row in rows[:start]):
        return None
    while width > 2 and start + 2 < len(rows) and sum(bool(c.strip()) for c in rows[start]) <= 1:
        start += 1  # a title and empty cells after it, an empty row
    above = rows[start - 1] if start else []
    short = len(rows) - start > 1 and len(above) == width - 1 > 1 and all(map(str.strip, above))
    top = start - short
    return (ends[top - 1] if top else 0), short


def rows_of(sample: str, separator: str, most: int, whole: bool) -> list[list[str]]:
    """The first rows of a sample; blank lines are left out, and the last row where the sample may
    end within it."""
    return _numbered_rows(sample, separator, most, whole)[0]


def _numbered_rows(
    sample: str, separator: str, most: int, whole: bool
) -> tuple[list[list[str]], list[int]]:
    """The rows, and the number of lines up to the end of each."""
    rows: list[list[str]] = []
    ends: list[int] = []
    reader = csv.reader(io.StringIO(sample, newline=""), delimiter=separator, skipinitialspace=True)
    try:
        for row in reader:
            if len(row) > 1 or (row and row[0].strip()):
                rows.append(row)
                ends.append(reader.line_num)
            if len(rows) == most:
                return rows, ends
    except csv.Error:
        pass  # a huge cell; what came before it is sample enough
    if whole or len(rows) < 2:
        return rows, ends
    return rows[:-1], ends[:-1]


def is_header(rows: list[list[str]]) -> bool:
    """Whether the first row names the columns: not where it holds numbers as the rows below do
    (other than years or 0, 1, 2, …), nor where most of its words come again below it."""
    first = [cell.strip() for cell in rows[0]]
    below = [row for row in rows[1:] if row != rows[0]] or rows[1:]  # files put together repeat it
    plain = [place for place, cell in enumerate(first) if _NUMBER.fullmatch(cell)]
    if not plain:
        again = [
            sum(place < len(row) and row[place].strip() == cell for row in below) > 1
            for place, cell in enumerate(first)
            if cell
        ]
        return len(again) < 2 or sum(again) <= len(again) / 2
    values = [first[place] for place in plain]
    counted = len(values) > 1 and values in (
        [str(i) for i in range(len(values))], [str(i + 1) for i in range(len(values))]
    )  # fmt: skip
    years = all(re.fullmatch(r"(19|20)\d\d", value) for value in values)
    if (counted or years) and len(set(first)) == len(first) and below:
        return True
    if len(plain) == len(first):
        return False
    alike = [
        sum(bool(_NUMBER.fullmatch(row[place].strip())) for row in below if place < len(row))
        for place in plain
    ]
    return not any(count >= 0.9 * len(below) for count in alike)


def second_lines(rows: list[list[str]]) -> int:
    """How many rows right below the header say more of the columns: units, types, what was asked. In
    every column of numbers they hold words: different ones, or units.

    >>> second_lines([["a", "b"], ["m²", "km"], ["50", "1.5"], ["61", "2.5"], ["49", "0.5"]])
    1
    """
    found = 0
    while found < 2 and len(rows) > found + 3:
        first, below = rows[found + 1], rows[found + 2 :]
        cells = [
            cell.strip()
            for place, cell in enumerate(first)
            if _of_numbers([row[place].strip() for row in below if place < len(row)])
        ]
        filled = [cell for cell in cells if cell]
        if not filled or any(map(_BEGINS.match, filled)) or len(filled) < len(cells) / 2:
            break
        named = [cell.strip("[]()").lower() in UNIT_WORDS or cell[0] in "[({" for cell in filled]
        asked = len(filled) > 2 or all(len(cell.split()) > 1 for cell in filled)
        if not (all(named) or (asked and len(set(filled)) == len(filled) > 1)):
            break
        found += 1
    return found


def _of_numbers(cells: list[str]) -> bool:
    """Whether nearly all cells that hold something are numbers."""
    filled = [cell for cell in cells if cell]
    return len(filled) > 1 and sum(bool(_NUMBER.fullmatch(c)) for c in filled) >= 0.9 * len(filled)


def single_quoted(rows: list[list[str]]) -> bool:
    """Whether cells in single quotes hold the separator: a cell that begins with one, and the next to end
    with one.

    >>> single_quoted([["a", "b"], ["1", "'Bonn", "Rhine'"], ["2", "'Ulm", "Danube'"]])
    True
    """
    cut = [
        any(a.strip()[:1] == "'" and a.strip()[-1:] != "'" and b.strip()[-1:] == "'" for a, b in pairwise(row))
        for row in rows[1:]
    ]  # fmt: skip
    return sum(cut) > 0.5 * len(cut)


def in_double_quotes(data: bytes, separator: str) -> bytes:
    """Cells in single quotes, in double ones."""
    mark = re.escape(separator.encode())
    cell = rb"(?:(?<=" + mark + rb")|(?<=\n)|^)[ ]*'([^'\"\n]*)'[ ]*(?=" + mark + rb"|\r?\n|$)"
    return re.sub(cell, rb'"\1"', data)


def end_of_table(
    data: bytes, separator: str, width: int, *, empty: bool = True
) -> tuple[int, list[str]]:
    """Where the rows of a table end in its file, and the lines below that say something: a row
    that sums up, notes of one cell. Rows without any value are below it too, if ``empty``.

    >>> end_of_table(b"a;b;c\\nx;1;2\\ny;3;4\\nTotal;4;6\\n", ";", 3)
    (18, ['Total;4;6'])
    """
    end, below = len(data), []
    for _ in range(_MOST_BELOW):
        start = data.rfind(b"\n", 0, len(data[:end].rstrip(b"\r\n"))) + 1
        line = data[start:end].decode("utf-8", "ignore").strip("\r\n")
        says = bool(line.strip(separator + " "))
        if start == 0 or not (_is_below(line, separator, width, data) if says else empty):
            break
        if says:
            below.append(line.strip())
        end = start
    return end, below[::-1]


def _is_below(line: str, separator: str, width: int, data: bytes) -> bool:
    """Whether a line that holds something is none of the table's rows: one text alone, in three columns or more; or
    a first value such as Total, which no other row has in its place."""
    if line.count('"') % 2 or len(line) > _LONGEST:
        return False  # the end of a cell with line breaks; no note
    cells = next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
    filled = [place for place, cell in enumerate(cells) if cell.strip()]
    if not filled:
        return False  # an empty cell in quotes, the only one of its row
    first = cells[filled[0]].strip()
    if len(cells) < width and width > 2 and _NOTE.match(first):
        return True
    if len(filled) == 1:
        short = len(cells) == 1 or filled[0] == 0
        return width > 2 and short and not _NUMBER.fullmatch(first)
    word = first.lower().rstrip(" :.")
    if word not in TOTALS or width < 2:
        return False
    before = re.escape(separator) * filled[0]
    again = rf'\n{before} *"? *{re.escape(first.rstrip(" :."))}[ :.]*"?{re.escape(separator)}'
    return len(re.findall(again.encode(), data, re.I)) == 1
