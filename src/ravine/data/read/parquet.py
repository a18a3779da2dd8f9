"""Parquet and Arrow files: numbers, lists of numbers or images by column, of any size.

A file is read some rows at a time. What does not fit into memory is written once as rows of numbers
(``row_file.py``), since a Parquet file has no way to a single row: an epoch in random order would
decode a whole group of rows for each.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ravine.data.endings import PARQUET
from ravine.data.objects.checks import finite
from ravine.data.objects.convert import tensor
from ravine.data.objects.pairs import vocabulary_of
from ravine.data.objects.targets import interpret
from ravine.data.read import arrow_messages, images, parquet_footer
from ravine.data.read.levels import Levels
from ravine.data.read.parts_by_name import files_by_part
from ravine.data.read.row_file import hold, part_of, state_of
from ravine.data.source import TARGET_NAMES, Source
from ravine.errors import InputError, first_line, unknown
from ravine.storage.bounded import ALLOWANCE, allowance, amount, open_file, too_much

PACKED = 1000  # bytes that a byte of a table may hold: columns of zeros and ones pack well
ROWS = 4096  # that are decoded together
MOST_ROWS, ROWS_A_BYTE = 1_000_000, 8  # of a file: a flag that differs by row takes a bit
_BUFFER = 1 << 18  # bytes of a column that are read at a time
LONGEST_NAME = 256  # letters of a class
_LEARNED = 256  # rows by which the form of lists and the size of images are known


@dataclass
class Form:
    """What the inputs of a row are."""

    names: list[str]
    kind: str  # numbers, lists or images
    shape: tuple[int, ...]
    dtype: torch.dtype
    mode: str = ""
    fit: str = ""
    levels: Levels = field(default_factory=Levels)

    def facts(self) -> dict[str, Any]:
        """By which new files are read alike."""
        found: dict[str, Any] = {"inputs": self.names}
        if self.kind == "images":
            found |= {"size": list(self.shape[1:]), "mode": self.mode, "fit": self.fit}
            found["levels"] = self.levels.facts()
        return found


def load(
    root: Path,
    target: str | None,
    drop: Sequence[str],
    task: str,
    size: int | tuple[int, int] | None,
    fit: str,
) -> Source:
    """Read PATH, or the files of a folder by part."""
    files = files_by_part(root, PARQUET)
    names = _columns(files["train"][0])
    target = _target(target, names, root)
    for name in drop:
        if name not in names:
            raise unknown("data.source.drop", name, names)
    inputs = [name for name in names if name != target and name not in drop]
    if not inputs:
        raise InputError(str(root), got="a target alone", expected="at least one more column")
    form = _form(files["train"][0], inputs, size, fit)
    if form.kind == "images":
        form.levels = _levels(files["train"][0], inputs)
    ys = {name: _targets(listed, target) for name, listed in files.items()}
    held = {name: _inputs(listed, form, len(ys[name])) for name, listed in files.items()}
    ys = {name: _without(y, held[name][1]) for name, y in ys.items()}
    like = torch.zeros(1, *form.shape, dtype=form.dtype)
    found = interpret(ys, like, task)
    parts = {name: part_of(x, found.parts[name]) for name, (x, _) in held.items()}
    whole = form.kind == "lists" and not form.dtype.is_floating_point and len(form.shape) == 1
    xs = (x for part in parts.values() for x, _ in part.chunks())
    vocabulary = vocabulary_of(xs) if whole and form.dtype != torch.uint8 else None
    facts = form.facts() | {"target": target}
    return Source(parts, found.task, found.classes, vocabulary, facts, outputs=found.outputs)


def read_new(path: Path, facts: Mapping[str, Any], shape: tuple[int, ...]) -> Tensor:
    """The inputs of new rows, read as those of training were."""
    names = _columns(path)
    for name in facts["inputs"]:
        if name not in names:
            raise unknown(f"{path}: column", name, names)
    size = tuple(facts["size"]) if "size" in facts else None
    form = _form(path, facts["inputs"], size, facts.get("fit", "stretch"))
    if form.kind == "images":
        form.mode, form.shape = facts["mode"], shape
        form.levels = Levels.of(facts.get("levels"))
    rows = [x for batch in _batches(path, form.names) for x in [_rows(batch, form, path, [], 0)]]
    return torch.cat(rows)


# --- columns --------------------------------------------------------------------------------------


def _target(asked: str | None, names: list[str], root: Path) -> str:
    if asked is not None and asked not in names:
        raise unknown("data.source.target", asked, names)
    called = next((name for name in names if name.lower() in TARGET_NAMES), names[-1])
    return asked or called


def _form(file: Path, names: list[str], size: int | tuple[int, int] | None, fit: str) -> Form:
    """What the inputs are, by the columns' types and the first rows."""
    import pyarrow

    batch = next(_batches(file, names, _LEARNED), None)
    if batch is None:
        raise InputError(str(file), got="no rows", expected="at least one")
    types = pyarrow.types
    kinds = {name: batch.schema.field(name).type for name in names}
    for name, kind in kinds.items():
        if _images_of(batch.column(name)) is not None and len(names) == 1:
            return _pictures(name, _images_of(batch.column(name)) or [], size, fit)
        lists = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
        if lists and len(names) == 1:
            first = _first_list(batch.column(name)[0].as_py(), f"{file}: column {name}")
            return Form(names, "lists", first.shape, _dtype([first.dtype]))
        if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)):
            raise InputError(
                f"{file}: column {name}",
                got=f"{kind}{' beside other columns' if lists else ''}",
                expected="numbers, or one column alone of lists of numbers or of images",
                repair=f"leave it out (drop = [{name!r}]), or name the file as csv:{file.name}, which "
                "reads text, dates and missing values",
            )
    dtypes = [np.dtype(kind.to_pandas_dtype()) for kind in kinds.values()]
    wide = any(one.itemsize > (2 if one.kind in "iu" else 4) for one in dtypes)
    return Form(names, "numbers", (len(names),), torch.float64 if wide else torch.float32)


def _first_list(value: Any, where: str) -> np.ndarray:
    try:
        found = np.array(value)
    except ValueError:  # lists of different lengths within one
        found = np.empty(0)
    if not found.size:
        raise InputError(where, got=f"{value!r:.80}", expected="lists of numbers of one length")
    return found


def _dtype(found: list[np.dtype]) -> torch.dtype:
    whole = np.result_type(*found)
    if whole.kind not in "iufb":
        raise InputError("data", got=f"lists of {whole}", expected="lists of numbers of one length")
    return torch.from_numpy(np.zeros(1, np.float32 if whole == np.float16 else whole)).dtype


def _images_of(column: Any) -> list[bytes] | None:
    """Encoded images: bytes, or as Hugging Face writes them, a structure that holds bytes."""
    import pyarrow

    kind = column.type
    if pyarrow.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        column = column.field(kind.get_field_index("bytes"))
        kind = column.type
    binary = pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)
    return [value or b"" for value in column.to_pylist()] if binary else None


def _pictures(name: str, first: list[bytes], size: int | tuple[int, int] | None, fit: str) -> Form:
    found = [seen for each in first if (seen := images.header(each))]
    if not found:
        raise InputError(f"column {name}", got="bytes", expected="images in a known format")
    mode = "L" if all(header.gray for header in found) else "RGB"
    median = np.median([header.size for header in found], axis=0).round().astype(int).tolist()
    height, width = images.chosen(size) or median
    shape = (1 if mode == "L" else 3, height, width)
    return Form([name], "images", shape, torch.uint8, mode, fit)


def _levels(file: Path, names: list[str]) -> Levels:
    """What more than 8 bits and transparency become, by the first rows."""
    first = _images_of(next(_batches(file, names, _LEARNED)).column(names[0])) or []
    found = images.measure(first)
    images.warn_deep(found, filter(None, map(images.header, first)), str(file))
    return found


# --- rows -----------------------------------------------------------------------------------------


def _inputs(files: Sequence[Path], form: Form, count: int) -> Any:
    """The inputs of a part, in memory or in a file, and the rows that could not be read."""

    def chunks(lost: list[int]) -> Iterator[Tensor]:
        start = 0
        for file in files:
            for batch in _batches(file, form.names):
                yield _rows(batch, form, file, lost, start)
                start += batch.num_rows

    about = {**form.facts(), "kind": form.kind, "files": state_of(files)}
    return hold(about, count, form.shape, form.dtype, chunks)


def _without(y: Tensor | np.ndarray, lost: list[int]) -> Tensor | np.ndarray:
    """Targets but for those of rows that could not be read."""
    stay = np.delete(np.arange(len(y)), lost)
    return y[torch.from_numpy(stay)] if isinstance(y, Tensor) else y[stay]


def _rows(batch: Any, form: Form, file: Path, lost: list[int], start: int) -> Tensor:
    """The inputs of some rows [n, ...]."""
    if form.kind == "images":
        height, width = form.shape[1:]
        encoded = _images_of(batch.column(form.names[0])) or []
        x, broken = images.load(encoded, form.mode, (height, width), form.fit, form.levels)
        lost += [start + place for place in broken]
        return x
    for name in form.names:
        if batch.column(name).null_count:
            raise InputError(
                f"{file}: column {name}",
                got="missing values",
                expected="a number in every row",
                repair=f"fill them, or name the file as csv:{file.name}, which fills them",
            )
    if form.kind == "lists":
        found = _lists(batch.column(form.names[0]), form, file)
    else:
        kind = torch.empty(0, dtype=form.dtype).numpy().dtype
        columns = [batch.column(name).to_numpy(zero_copy_only=False) for name in form.names]
        found = np.stack([column.astype(kind) for column in columns], 1)
    x = torch.from_numpy(np.ascontiguousarray(found))
    finite(x, str(file), tuple(form.names))
    return x


def _lists(column: Any, form: Form, file: Path) -> np.ndarray:
    values, depth = column, len(form.shape)
    for _ in range(depth):
        values = values.flatten()
    kind = torch.empty(0, dtype=form.dtype).numpy().dtype
    found = values.to_numpy(zero_copy_only=False).astype(kind)
    if found.size != len(column) * int(np.prod(form.shape)):
        expected = f"lists of shape {list(form.shape)}, as in the first row"
        raise InputError(f"{file}: column {form.names[0]}", got="other lengths", expected=expected)
    return found.reshape(len(column), *form.shape)


def _targets(files: Sequence[Path], name: str) -> Tensor | np.ndarray:
    """The targets of a part: numbers, or names of classes."""
    found: list[Any] = []
    for file in files:
        where = f"{file}: column {name}"
        for batch in _batches(file, [name]):
            column = batch.column(0)
            if column.null_count:
                expected = "a target in every row"
                raise InputError(where, got="missing values", expected=expected)
            found += _values(column, where)
    if not found:
        raise InputError(str(files[0]), got="no rows", expected="at least one")
    if len({isinstance(value, str) for value in found}) > 1:
        raise InputError(f"column {name}", got="text and numbers", expected="one of them")
    y = tensor(found, f"{files[0]}: column {name}")
    return y.long() if isinstance(y, Tensor) and y.dtype == torch.bool else y


def _values(column: Any, where: str) -> list[Any]:
    """Python's numbers, texts or lists of numbers of a column."""
    import pyarrow

    kind, types = column.type, pyarrow.types
    kind = kind.value_type if types.is_dictionary(kind) else kind
    while types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        kind = kind.value_type
    text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    number = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
    if not (text or number or types.is_boolean(kind)):
        repair = "store it as numbers or as text"
        raise InputError(where, got=str(kind), expected="numbers or names", repair=repair)
    values = column.to_pylist()
    longest = max((len(each) for each in values if isinstance(each, str)), default=0)
    if longest > LONGEST_NAME:
        expected = f"names of classes, of at most {LONGEST_NAME} letters"
        raise InputError(where, got=f"a text of {longest:,} letters", expected=expected)
    return [float(each) for each in values] if types.is_decimal(column.type) else values


# --- files ----------------------------------------------------------------------------------------


def _columns(file: Path) -> list[str]:
    with opened(file) as table:
        return list(table.names)


def _batches(file: Path, names: Sequence[str], rows: int = ROWS) -> Iterator[Any]:
    """Record batches of some columns, in order."""
    with opened(file) as table:
        yield from table.batches(list(names), rows)


class opened:
    """A Parquet or Arrow file: its columns, and its rows some at a time."""

    def __init__(self, file: Path):
        self.file = file

    def __enter__(self) -> opened:
        open_file(self.file).close()  # a pipe would be waited for
        # the other allocators reserve a gigabyte of addresses, which may be limited
        os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
        try:
            import pyarrow
            from pyarrow import ipc, parquet
        except ImportError:
            repair = "pip install 'ravine[parquet]'"
            raise InputError(str(self.file), expected="pyarrow", repair=repair) from None
        try:
            if self.file.suffix.lower() == ".parquet":
                # unless told otherwise, it reads all of the file at once
                self.reader: Any = parquet.ParquetFile(
                    self.file, pre_buffer=False, buffer_size=_BUFFER
                )
                schema = self.reader.schema_arrow
            else:
                arrow_messages.check(self.file)
                self.handle = pyarrow.OSFile(str(self.file))
                # a file is a stream within marks, and is read as one: its index could lead anywhere
                magic = arrow_messages.MAGIC
                self.handle.seek(len(magic) if self.handle.read(len(magic)) == magic else 0)
                self.reader = ipc.open_stream(self.handle)
                schema = self.reader.schema
            self.names, self.kinds = list(schema.names), list(schema.types)
        # names that are no UTF-8 are ValueErrors, figures that do not fit together RuntimeErrors
        except (pyarrow.ArrowException, OSError, ValueError, RuntimeError, MemoryError) as error:
            if isinstance(error, InputError):
                raise
            expected = "a Parquet or Arrow file"
            repair = first_line(error)
            raise InputError(str(self.file), expected=expected, repair=repair) from None
        if len(set(self.names)) < max(1, len(self.names)):
            got = "two columns of one name" if self.names else "no columns"
            raise InputError(str(self.file), got=got, expected="columns, each of another name")
        return self

    def __exit__(self, *_: object) -> None:
        close = getattr(self.reader, "close", None)
        if close is not None:
            close()

    def batches(self, names: list[str], rows: int) -> Iterator[Any]:
        import pyarrow

        self._check_rows()

        for name in names:
            if name not in self.names:
                raise unknown(f"{self.file}: column", name, self.names)
        try:
            if self.file.suffix.lower() == ".parquet":
                rows = self._rows_at_once(names, rows)
                yield from self._counted(
                    self.reader.iter_batches(rows, columns=names, use_threads=False)
                )
                return
            for batch in self._counted(self.reader):
                batch.validate(full=True)  # offsets could lead out of the file, into other memory
                for start in range(0, batch.num_rows, rows):
                    yield batch.select(names).slice(start, rows)
        # damaged pages are OSErrors
        except (pyarrow.ArrowException, OSError, MemoryError, ValueError, RuntimeError) as error:
            if isinstance(error, InputError):
                raise
            expected, repair = "a whole file", first_line(error)
            raise InputError(str(self.file), expected=expected, repair=repair) from None

    @property
    def cells(self) -> int:
        """How many values it holds; of an Arrow file, which does not say, an estimate by its size."""
        if self.file.suffix.lower() == ".parquet":
            return int(self.reader.metadata.num_rows) * len(self.names)
        return self.file.stat().st_size // 8

    def _check_rows(self) -> None:
        """Refuse more rows than so small a file may hold: one value that stands in millions of rows takes a
        few bytes, and minutes to be read."""
        if self.file.suffix.lower() != ".parquet":
            return
        rows, size = self.reader.metadata.num_rows, self.file.stat().st_size
        most = MOST_ROWS + ROWS_A_BYTE * size
        if rows > most:
            got = f"{rows:,} rows in a file of {amount(size)}"
            raise InputError(str(self.file), got=got, expected=f"at most {most:,}")

    def _rows_at_once(self, names: list[str], rows: int) -> int:
        """Of texts, bytes and lists so many rows that they take no more memory than the file may: a
        value that is stored once may stand in every row."""
        most = allowance(self.file.stat().st_size)
        for chunk in parquet_footer.chunks(self.file):
            if chunk.column not in names:
                continue
            if chunk.size > most:  # a page may be all of it
                raise too_much(str(self.file), self.file.stat().st_size, most)
            if chunk.is_bytes:
                rows = min(rows, max(1, most // max(1, chunk.size)))
            elif chunk.values > chunk.rows:  # lists
                each = 8 * chunk.values // max(1, chunk.rows)
                rows = min(rows, max(1, most // max(1, each)))
        return rows

    def _counted(self, batches: Iterable[Any]) -> Iterator[Any]:
        """The batches, as long as they hold no more in all than PACKED times the size of the file: a few
        bytes may say "zero, 300 million times"."""
        size, total = self.file.stat().st_size, 0
        limit = ALLOWANCE + PACKED * size
        for batch in batches:
            total += batch.nbytes
            if total > limit:
                raise too_much(str(self.file), size, limit, PACKED)
            yield batch
