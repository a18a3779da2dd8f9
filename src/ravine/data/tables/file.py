"""A delimited text file -> columns of cells: encoding, separator, quotes and header found from the
file itself; everything odd is one InputError."""

from __future__ import annotations

import csv
import io
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ravine.data.read.encoding import decoded
from ravine.data.tables.arrangement import (
    end_of_table,
    in_double_quotes,
    is_header,
    layout_of,
    rows_of,
    second_lines,
    single_quoted,
)
from ravine.data.tables.as_text import text_of
from ravine.errors import InputError

# Cells that count as missing in every column, compared in lower case.
MISSING = ("", "na", "n/a", "n.a.", "nan", "null", "none", "nil", "?", "-", "--", "#n/a", "<na>",
           "#value!", "#div/0!", "#ref!", "#name?", "#num!", "#null!",  # of spreadsheets
           ".", "..", "…", "–", "—", "\\n", "(null)", "<null>", "(blank)", "k.a.")  # fmt: skip
_MISSING = frozenset(MISSING)
MOST_CELL = 1 << 20  # characters of a cell
MOST_COLUMNS = 20_000
_KEPT_AS_TEXT = re.compile(r'="([^"]*)"|\'([\d.,]+)')
_FULL_WIDTH = {code: code - 0xFEE0 for code in range(ord("！"), ord("～") + 1)}
_HEAD = 1_000  # rows that are also read as text, to see how numbers are written
_SNIFFED = 1 << 18  # characters from which the separator is found


@dataclass
class Cells:
    """One column: numbers [N] where pandas could read all of it as such (NaN where missing), else
    different texts and, of each row, which of them it holds (-1 where missing)."""

    name: str
    numbers: np.ndarray | None
    texts: np.ndarray  # [U] str
    codes: np.ndarray  # [N] place in texts
    head: Sequence[str]  # the first cells as they are written
    # the same column with its numbers as they are written; read from the file the first time
    raw: Callable[[], Cells] = field(repr=False, default=lambda: None)  # type: ignore[assignment]

    @property
    def size(self) -> int:
        return len(self.codes) if self.numbers is None else len(self.numbers)

    @property
    def missing(self) -> np.ndarray:
        """Which rows have no value [N] bool."""
        return self.codes < 0 if self.numbers is None else np.isnan(self.numbers)

    def rows_of(self, per_text: np.ndarray, empty: Any) -> np.ndarray:
        """What each row has, from what each different text has."""
        return np.append(per_text, empty)[self.codes]  # -1 takes the last


@dataclass
class Table:
    """The columns of a file, and how the file is written."""

    columns: dict[str, Cells]
    where: str
    encoding: str
    separator: str
    header: bool
    typed: bool = False  # numbers were numbers, not text: they are written as Python writes them
    # reads columns as they are written, all in one pass over the file, so that ``Cells.raw`` has them
    read_texts: Callable[[Sequence[str]], None] = field(repr=False, default=lambda names: None)
    # a column's cells as they stand in the file, those that count as missing too
    written: Callable[[str], np.ndarray] = field(
        repr=False, default=lambda name: np.empty(0, object)
    )

    @property
    def size(self) -> int:
        return next(iter(self.columns.values())).size


def read(given: Path | pd.DataFrame, *, texts: bool = False, header: bool | None = None) -> Table:
    """Read a file, or a DataFrame. ``texts``: no column is turned into numbers, for a file that is read by
    decisions made before. ``header``: whether there is one; None: found from the file.

    Raises InputError where it is not a regular file, too large, not text, without rows, or rows differ
    in their number of cells.
    """
    where = given.name if isinstance(given, Path) else "the DataFrame"
    text, typed = text_of(given)
    data, encoding = _decoded(text, where)
    sample = data[:_SNIFFED].decode("utf-8", "ignore")
    if not sample.strip():
        raise InputError(where, got="an empty file", expected="a header line and rows")
    found = layout_of(sample, len(data) <= _SNIFFED)
    if found.top:
        data = data.split(b"\n", found.top)[-1]
    if found.separator == " ":
        data, found.separator = _tabs_for_spaces(data), "\t"
    if found.top or found.separator == "\t":
        sample = data[:_SNIFFED].decode("utf-8", "ignore")
    if b"'" in data and single_quoted(_first_rows(sample, found.separator, where)):
        data = in_double_quotes(data, found.separator)
        sample = data[:_SNIFFED].decode("utf-8", "ignore")
    data = _without_end(data, found.separator, sample, where, empty=not texts)
    sample = data[:_SNIFFED].decode("utf-8", "ignore")
    rows = _first_rows(sample, found.separator, where)
    if header is None:
        header = found.short_header or is_header(rows)
    names = _names(rows, where) if header else [f"column{i + 1}" for i in range(len(rows[0]))]
    _check_widths(rows, len(names), where, header)
    if header and len(rows) < 2 and len(data) < _SNIFFED:
        raise InputError(where, got="a header without rows", expected="at least one row")
    if header and len(names) > 1:
        data = _without_headers_within(data, where)
    more = second_lines(rows) if header else 0
    if more:
        shown = "; ".join(", ".join(row)[:80] for row in rows[1 : 1 + more])
        warnings.warn(f"{where}: left out, as it says more of the columns: {shown}", stacklevel=3)
    source = _Source(data, where, found.separator, int(header) + more, names)
    columns, texts_of = _columns(source, texts)
    return Table(
        columns, where, encoding, found.separator, header, typed, texts_of.read, texts_of.written
    )


# --- bytes and text -------------------------------------------------------------------------------


def _decoded(data: bytes, where: str) -> tuple[bytes, str]:
    """The text in UTF-8 without a byte order mark, and the encoding that it had."""
    text, encoding = decoded(data, where)
    kept = {"utf-8": 0, "utf-8-sig": 3}.get(encoding)  # bytes to leave out of what is UTF-8 already
    plain = text.encode() if kept is None else data[kept:]
    return (plain if b"\n" in plain else plain.replace(b"\r", b"\n")), encoding


def _without_end(data: bytes, separator: str, sample: str, where: str, *, empty: bool) -> bytes:
    """The table without lines below it, of which a warning tells. ``empty``: without empty rows at its
    end too; rows to predict keep them, each has its answer."""
    rows = rows_of(sample, separator, 3, whole=False)
    width = len(rows[-1]) if len(rows) > 1 else 0
    end, below = end_of_table(data, separator, width, empty=empty)
    if below:
        shown = ", ".join(repr(line[:60]) for line in below[:3]) + (", …" if below[3:] else "")
        warnings.warn(f"{where}: left out, as no rows of the table: {shown}", stacklevel=4)
    return data[:end]


def _without_headers_within(data: bytes, where: str) -> bytes:
    """The table without lines that are its header again, as in files that were put together."""
    line, _, below = data.lstrip(b"\r\n").partition(b"\n")
    again = b"\n" + line + b"\n"
    if not line.strip() or line.count(b'"') % 2 or again not in b"\n" + below + b"\n":
        return data
    rows = below.split(b"\n")
    kept = [row for row in rows if row.rstrip(b"\r") != line.rstrip(b"\r")]
    told = f"the header comes again {len(rows) - len(kept)} times within the table: left out"
    warnings.warn(f"{where}: {told}", stacklevel=4)
    return b"\n".join([line, *kept])


def _first_rows(sample: str, separator: str, where: str) -> list[list[str]]:
    rows = rows_of(sample, separator, 200, len(sample) < _SNIFFED)
    if not rows:
        raise InputError(
            where, got="a cell of over 131,072 characters at its start", expected="a table of text",
            repair="is a quote opened and never closed?",
        )  # fmt: skip
    if len(rows[0]) > MOST_COLUMNS:
        raise InputError(
            where, got=f"{len(rows[0]):,} columns", expected=f"at most {MOST_COLUMNS:,}"
        )
    return rows


def _tabs_for_spaces(data: bytes) -> bytes:
    """Columns between runs of spaces, between tabs."""
    lines = (line.strip() for line in data.decode().splitlines())
    packed = io.StringIO(newline="")
    rows = csv.reader(lines, delimiter=" ", skipinitialspace=True)
    csv.writer(packed, delimiter="\t", lineterminator="\n").writerows(rows)
    return packed.getvalue().encode()


# --- the header -----------------------------------------------------------------------------------


def _names(rows: list[list[str]], where: str) -> list[str]:
    names = [re.sub(r"\s+", " ", name.strip()) for name in rows[0]]
    below = rows[1:]
    if below and all(len(row) == len(names) + 1 for row in below):
        # each row ends with a separator, or begins with a name of its own as R writes it
        ends = not any(row[-1].strip() for row in below)
        if not ends:
            _warn_of_no_names([row[0] for row in below], where)
        names = [*names, ""] if ends else ["row", *names]
        rows[0] = names
    if names[-1] == "" and names.count("") == 1 and len(names) > 1:
        names[-1] = " "  # each line ends with a separator; the column is empty
    names = [name or f"column{place + 1}" for place, name in enumerate(names)]
    return _told_apart(names, where)


def _warn_of_no_names(first: list[str], where: str) -> None:
    """Cells that come again, or have fractions, are no names of rows: decimal commas between commas?"""
    if len(set(first)) < len(first) or any(re.fullmatch(r"\d+\.\d+", cell) for cell in first):
        told = (
            f"the rows have a cell more than the header has names; the first ({first[0]!r:.40}, …)"
        )
        warnings.warn(f"{where}: {told} is taken for the name of its row", stacklevel=5)


def _told_apart(names: list[str], where: str) -> list[str]:
    """Names of which none comes twice: the second a is "a (2)"."""
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        seen[name] += 1
        found.append(f"{name} ({seen[name]})" if seen[name] > 1 else name)
    twice = [name for name, count in seen.items() if count > 1]
    if len(set(found)) < len(found):
        got, expected = f"the column {twice[0]!r} twice", "a different name for each column"
        raise InputError(where, got=got, expected=expected)
    if twice:
        told = ", ".join(repr(name) for name in twice[:8])
        warnings.warn(
            f"{where}: columns of one name: {told}; the next is called {twice[0]} (2)", stacklevel=4
        )
    return found


def _check_widths(rows: list[list[str]], width: int, where: str, header: bool) -> None:
    for line, row in enumerate(rows[1:] if header else rows, 2 if header else 1):
        if len(row) != width:
            raise InputError(
                where,
                got=f"{len(row)} values in row {line}",
                expected=f"{width}, as in the {'header' if header else 'first row'}",
            )


# --- the cells ------------------------------------------------------------------------------------


@dataclass
class _Source:
    """The text of a file and how pandas is to read it."""

    data: bytes
    where: str
    separator: str
    skip: int
    names: list[str]

    def frame(self, **options: Any) -> pd.DataFrame:
        """The rows under the header."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", pd.errors.DtypeWarning)
                return pd.read_csv(
                    io.BytesIO(self.data), sep=self.separator, header=None, index_col=False,
                    names=self.names, skiprows=self._skipped(), skip_blank_lines=True,
                    keep_default_na=False, skipinitialspace=True, encoding="utf-8",
                    low_memory=False, **options,
                )  # fmt: skip
        except (
            pd.errors.ParserError,
            pd.errors.EmptyDataError,
            ValueError,
            OverflowError,
        ) as error:
            raise self._explained(error) from None

    def _skipped(self) -> int:
        """Lines above the first row; blank ones count, and a header may hold line breaks."""
        if not self.skip:
            return 0
        reader = csv.reader(io.StringIO(self.data[:_SNIFFED].decode("utf-8", "ignore"), newline=""),
                            delimiter=self.separator, skipinitialspace=True)  # fmt: skip
        found = 0
        for row in reader:
            if any(cell.strip() for cell in row) or len(row) > 1:
                found += 1
            if found == self.skip:
                break
        return reader.line_num

    def _explained(self, error: Exception) -> InputError:
        text = " ".join(str(error).split())
        ragged = re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", text)
        if ragged:
            return InputError(
                self.where,
                got=f"{ragged[3]} values in row {ragged[2]}",
                expected=f"{ragged[1]}, as in the header",
            )
        if "EOF inside string" in text:
            row = re.search(r"row (\d+)", text)
            return InputError(
                self.where,
                got="a quote that is opened and never closed"
                + (f", in row {int(row[1]) + 1 + bool(self.skip)}" if row else ""),
                expected='quotes in pairs: "a, b"; a quote within one is written twice',
            )
        if isinstance(error, pd.errors.EmptyDataError):
            return InputError(self.where, got="a header without rows", expected="at least one row")
        return InputError(self.where, expected="a table", repair=text)


class _Texts:
    """Columns as they are written, each read from the file once."""

    def __init__(self, source: _Source):
        self.source = source
        self.cells: dict[str, Cells] = {}

    def read(self, names: Sequence[str]) -> None:
        wanted = set(names) - set(self.cells)
        places = [place for place, name in enumerate(self.source.names) if name in wanted]
        if places:
            options = {"na_values": _missing_words(), "dtype": str, "usecols": places}
            for name, column in _freed_one_by_one(self.source.frame(**options)):
                self.cells[name] = _cells(name, column, self.source.where)

    def written(self, name: str) -> np.ndarray:
        """Each row's cell, stripped."""
        place = self.source.names.index(name)
        column = self.source.frame(dtype=str, usecols=[place]).iloc[:, 0]
        return column.fillna("").str.strip().to_numpy(dtype=object)

    def of(self, name: str) -> Cells:
        self.read([name])
        return self.cells[name]


def _missing_words() -> list[str]:
    return sorted({form for w in MISSING for form in (w, w.upper(), w.title(), w.capitalize())})


def _columns(source: _Source, texts: bool) -> tuple[dict[str, Cells], _Texts]:
    frame = source.frame(na_values=_missing_words(), **({"dtype": str} if texts else {}))
    if not len(frame):
        raise InputError(source.where, got="a header without rows", expected="at least one row")
    _check_ends(source, frame)
    head = source.frame(dtype=str, nrows=_HEAD) if not texts else None
    written = _Texts(source)
    found = {}
    columns = _freed_one_by_one(frame)
    del frame
    for name, own in columns:
        cells = _cells(name, own, source.where)
        if head is not None:
            cells.head = head[name].fillna("").tolist()
            cells.raw = partial(written.of, name)
        found[name] = cells
    return {n: c for n, c in found.items() if n.strip() or not c.missing.all()}, written


def _freed_one_by_one(frame: pd.DataFrame) -> Iterator[tuple[str, pd.Series]]:
    """The columns, each free when the next is asked for. ``frame.pop`` would cost time by the frame's
    width for each of them."""
    columns = dict(frame.items())
    del frame
    for name in list(columns):
        yield name, columns.pop(name)


def _cells(name: str, column: pd.Series, where: str) -> Cells:
    if pd.api.types.is_bool_dtype(column.dtype):
        column = column.map({True: "True", False: "False"})
    elif pd.api.types.is_numeric_dtype(column.dtype):
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
        return Cells(name, values, np.empty(0, object), np.empty(0, np.int64), ())
    codes, texts = pd.factorize(column.to_numpy(dtype=object))
    texts = np.array([str(text) for text in texts], dtype=object)
    longest = max(map(len, texts), default=0)
    if longest > MOST_CELL:
        raise InputError(
            f"{where}: column {name}",
            got=f"a cell of {longest:,} characters",
            expected=f"at most {MOST_CELL:,}",
            repair="is a quote opened and never closed?",
        )
    stripped = np.array([_plain(text.strip()) for text in texts], dtype=object)
    gone = np.array([text.lower() in _MISSING for text in stripped], dtype=bool)
    if len(texts) and (gone.any() or len(set(stripped)) < len(texts)):
        places, texts = pd.factorize(np.where(gone, np.array(None), stripped))  # None becomes -1
        codes = np.append(places, -1)[codes]
    elif len(texts):
        texts = stripped
    return Cells(name, None, texts, codes, ())


def _plain(text: str) -> str:
    """A cell without what keeps a spreadsheet from reading it: ="0123", '0123; full-width digits as the
    usual ones."""
    if text[:1] in ("=", "'"):
        kept = _KEPT_AS_TEXT.fullmatch(text)
        return (kept[1] or kept[2]) if kept else text
    if text.isascii():
        return text
    usual = text.translate(_FULL_WIDTH)
    return usual if usual.isascii() else text


def _check_ends(source: _Source, frame: pd.DataFrame) -> None:
    """pandas fills rows that are too short; they are found again where the last cell is missing."""
    if len(source.names) < 2 or not frame.iloc[:, -1].isna().any():
        return
    separator, width = source.separator.encode(), len(source.names)
    if b'"' not in source.data:
        lines = source.data.split(b"\n")
        widths = ((i, line.count(separator) + 1, line) for i, line in enumerate(lines, 1))
        short = next(
            ((i, n) for i, n, line in widths if n != width and line.strip() and i > source.skip),
            None,
        )
    else:
        reader = csv.reader(io.StringIO(source.data.decode(), newline=""),
                            delimiter=source.separator, skipinitialspace=True)  # fmt: skip
        rows = (row for row in reader if len(row) > 1 or (row and row[0].strip()))
        short = next(
            ((i, len(r)) for i, r in enumerate(rows, 1) if len(r) != width and i > source.skip),
            None,
        )
    if short:
        raise InputError(
            source.where, got=f"{short[1]} values in row {short[0]}",
            expected=f"{width}, as in the header",
        )  # fmt: skip
