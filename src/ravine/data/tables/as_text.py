"""A table as the text of a CSV file, whatever its form: gzip, a sheet of Excel, Parquet and Arrow files,
JSON Lines, a DataFrame in Python. What a column holds is decided from the text, for all of them alike."""

from __future__ import annotations

import csv
import datetime
import io
import json
import re
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ravine.data.endings import JSON_LINES, PARQUET
from ravine.errors import InputError, first_line
from ravine.storage import bounded

MOST_BYTES = 4 << 30
MOST_CELLS = 5_000_000  # of a Parquet file that is read as text: some seconds
MOST_ROWS = 1 << 20  # of a sheet, as Excel has them
_INDEX = re.compile(r"__index_level_\d+__")  # a column that pandas adds to a Parquet file
_ZIP = b"PK\x03\x04"
_FOREIGN = {
    b"\xd0\xcf\x11\xe0": "a spreadsheet of Excel before 2007, or one with a password",
    b"PAR1": "a Parquet file of another ending than .parquet",
}
_NAMED = b"sep=,\n"  # the first line that names the separator, as Excel writes it


def text_of(source: Path | pd.DataFrame) -> tuple[bytes, bool]:
    """The bytes of a table's text, and whether its numbers are known to be written as Python writes
    them (they were numbers, not text); of other files an InputError says what they are."""
    if isinstance(source, pd.DataFrame):
        return of_frame(source, "the DataFrame"), True
    where = source.name
    if source.suffix.lower() in PARQUET:
        return _of_parquet(source), True
    data = bounded.unpacked(bounded.read_bytes(source, MOST_BYTES, where), where, MOST_BYTES)
    if data.startswith(_ZIP):
        return _of_excel(source), True
    foreign = next((name for mark, name in _FOREIGN.items() if data.startswith(mark)), "")
    if foreign:
        repair = "save it as .xlsx or as CSV"
        raise InputError(where, got=foreign, expected="a table", repair=repair)
    if where.lower().removesuffix(".gz").endswith(JSON_LINES):
        return _of_json(data, where), True
    return data, False


# --- DataFrames -----------------------------------------------------------------------------------


def pandas_of(given: Any) -> pd.DataFrame | None:
    """A DataFrame of pandas, also from what turns into one (polars, Arrow, datasets); None for what
    is no table."""
    found = given.to_pandas() if hasattr(given, "to_pandas") else given
    return found if isinstance(found, pd.DataFrame) else None


def of_frame(frame: pd.DataFrame, where: str) -> bytes:
    """The text of a DataFrame without its index. Names that are no texts, or only digits, get
    ``column`` before them, so that the first line is seen to be names."""
    if not len(frame.columns) or not len(frame):
        got = f"a table of {len(frame)} rows and {len(frame.columns)} columns"
        raise InputError(where, got=got, expected="at least one of each")
    frame = frame.set_axis([name_of(name) for name in frame.columns], axis=1)
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        raise InputError(where, got=f"two columns called {twice[0]!r}", expected="one of each name")
    plain = {name: _plain(frame[name], f"{where}: column {name!r}") for name in frame.columns}
    text = pd.DataFrame(plain).to_csv(index=False, lineterminator="\n")
    return _NAMED + text.encode("utf-8", "replace")


def name_of(name: Any) -> str:
    """What a column of a DataFrame is called in its text."""
    if isinstance(name, tuple):  # of columns in several levels
        return " ".join(str(part) for part in name if str(part))
    return name if isinstance(name, str) and not name.strip().isdigit() else f"column {name}"


def _plain(column: pd.Series, where: str) -> pd.Series:
    """A column whose cells are written as people write them: durations in days, days without 0:00,
    whole numbers without .0."""
    if pd.api.types.is_timedelta64_dtype(column.dtype):
        return column.dt.total_seconds() / 86400
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        known = column.dropna()
        days = bool((known == known.dt.normalize()).all())
        return column.dt.strftime("%Y-%m-%d") if days else column
    if pd.api.types.is_float_dtype(column.dtype):
        known = column.dropna().to_numpy(dtype=np.float64)
        whole = bool((np.abs(known) < 2**53).all() and (known == np.round(known)).all())
        return column.astype("Int64") if whole else column
    if column.dtype == object:
        strange = next(
            (v for v in column if isinstance(v, list | tuple | dict | set | bytes)), None
        )
        if strange is None:
            strange = next((v for v in column if hasattr(v, "shape") and v.shape), None)
        if strange is not None:
            got = f"a cell that holds a {type(strange).__name__}"
            raise InputError(where, got=got, expected="one number, text or date in a cell")
    return column


# --- Parquet --------------------------------------------------------------------------------------


def is_plain(path: Path) -> bool:
    """Whether a Parquet or Arrow file is a table of numbers, texts and dates of at most MOST_CELLS;
    False where it cannot be read: its own reader says what is wrong."""
    from ravine.data.read import parquet

    try:
        with parquet.opened(path) as table:
            return table.cells <= MOST_CELLS and all(map(_is_cell, table.kinds))
    except InputError:
        return False


def _is_cell(kind: Any) -> bool:
    """Whether a column of Arrow's has one value in a row that a CSV file could hold."""
    from pyarrow import types

    kind = kind.value_type if types.is_dictionary(kind) else kind
    texts = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    numbers = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
    return texts or numbers or types.is_boolean(kind) or types.is_temporal(kind)


def _of_parquet(path: Path) -> bytes:
    from ravine.data.read import parquet

    with parquet.opened(path) as table:
        names = [name for name in table.names if not _INDEX.fullmatch(name)]
        kinds = dict(zip(table.names, table.kinds, strict=True))
        strange = [name for name in names if not _is_cell(kinds[name])]
        if strange:
            got = f"lists or bytes in column {strange[0]!r}"
            expected = "numbers, texts and dates"
            raise InputError(
                path.name, got=got, expected=expected, repair="leave it out of the file"
            )
        # what pandas wrote of the columns is not needed, and may be damaged
        batches = (b.replace_schema_metadata() for b in table.batches(names, parquet.ROWS))
        frames = [batch.to_pandas(types_mapper=pd.ArrowDtype) for batch in batches]
    if not frames:
        raise InputError(path.name, got="no rows", expected="at least one")
    return of_frame(pd.concat(frames, ignore_index=True), path.name)


# --- JSON Lines -----------------------------------------------------------------------------------


def _of_json(data: bytes, where: str) -> bytes:
    """One object a line, whose fields are columns; a field within a field is named with a point
    between."""
    rows = []
    for number, line in enumerate(data.decode("utf-8-sig", "replace").split("\n"), 1):
        if line.strip():
            rows.append(_object(line, f"{where}: line {number}"))
    return of_frame(pd.DataFrame(rows), where)


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
        if isinstance(found, dict):
            return dict(_fields(found))
    except json.JSONDecodeError as error:
        got = f"{error.msg} at character {error.colno}"
        raise InputError(where, got=got, expected="one JSON object a line") from None
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, deep nesting
        raise InputError(where, got=first_line(error), expected="one JSON object a line") from None
    raise InputError(where, got=found, expected="one JSON object a line")


def _fields(found: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in found.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{inner}", one) for inner, one in _fields(value))
        else:
            yield name, value


# --- Excel ----------------------------------------------------------------------------------------


def _of_excel(path: Path) -> bytes:
    """The first sheet that holds a table, as text; a warning names others."""
    where = path.name
    with bounded.open_file(path, MOST_BYTES, where) as file:
        if not zipfile.is_zipfile(file):
            raise _damaged(where, "it is cut off")
        members = bounded.open_zip(file, where).namelist()
        size = path.stat().st_size
        if "xl/workbook.xml" not in members:
            raise InputError(
                where, got="a zip file", expected="a table, or a spreadsheet (.xlsx)",
                repair="save it as .xlsx or as CSV" if "mimetype" in members else "unpack it",
            )  # fmt: skip
        try:
            found = _sheets(file, where, size)
        except InputError:
            raise
        except Exception as error:  # damaged parts fail in many ways
            raise _damaged(where, first_line(error)) from None
    if not found:
        raise InputError(where, got="no sheet with rows", expected="a header and rows in one sheet")
    (name, rows), *others = found.items()
    if others:
        left = ", ".join(repr(other) for other, _ in others)
        told = f"{where}: its sheet {name!r} is read, {left} not; save another one as a file of its own"
        warnings.warn(told, stacklevel=6)
    text = io.StringIO(newline="")
    lines = csv.writer(text, delimiter="\t", lineterminator="\n")  # no cell holds a tab
    for row in rows:
        lines.writerow(row)
        if text.tell() > bounded.allowance(
            size
        ):  # a text is stored once, and may stand in each cell
            raise bounded.too_much(where, size, bounded.allowance(size))
    return text.getvalue().encode("utf-8", "replace")


def _damaged(where: str, why: str) -> InputError:
    return InputError(
        where, got=f"a damaged spreadsheet ({why})", expected="one that Excel opens",
        repair="save it again, or as CSV",
    )  # fmt: skip


def _sheets(file: Any, where: str, size: int) -> dict[str, list[list[str]]]:
    """The sheets that people see and that have two rows or more: of the first its rows, of others two."""
    import openpyxl

    found: dict[str, list[list[str]]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of styles and validations, which are not read
        book = openpyxl.load_workbook(file, read_only=True, data_only=True)
        for sheet in book.worksheets:
            if sheet.sheet_state == "visible":
                sheet.reset_dimensions()  # some programs write wrong ones
                rows = list(islice(_rows(sheet, where, size), 2 if found else None))
                if len(rows) > 1:
                    found[sheet.title] = _of_one_width(rows)
    return found


def _rows(sheet: Any, where: str, size: int) -> Iterator[list[str]]:
    """The rows of a sheet that hold something. A cell far to the right or below comes with all the
    empty ones before it: no more of them than the file's size allows."""
    cells, most = 0, bounded.allowance(size) // 8
    for number, values in enumerate(sheet.iter_rows(values_only=True)):
        cells += len(values)
        if number >= MOST_ROWS or cells > most:
            raise InputError(
                where, got=f"a sheet of more than {number:,} rows and {cells:,} cells, some of them empty",
                expected=f"at most {MOST_ROWS:,} and {most:,}",
                repair="delete cells far from the table, or save it as CSV",
            )  # fmt: skip
        row = [_cell(value) for value in values]
        if any(cell.strip() for cell in row):
            yield row


def _cell(value: Any) -> str:
    """A cell's value as a person would write it in a CSV file."""
    if value is None:
        return ""
    if isinstance(value, datetime.datetime):
        return value.isoformat(" ") if value.time() != datetime.time() else value.date().isoformat()
    if isinstance(value, datetime.timedelta):  # the hours of formats such as [h]:mm
        return repr(value.total_seconds() / 3600)
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value).replace("\t", " ")


def _of_one_width(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """The rows from the first column that holds anything to the last."""
    used = [place for row in rows for place, cell in enumerate(row) if cell.strip()]
    first, end = min(used), max(used) + 1
    return [[*row, *[""] * (end - len(row))][first:end] for row in rows]
