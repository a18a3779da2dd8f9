"""Tables of other libraries with a column for the target: ``datasets`` of Hugging Face, frames of pandas
and polars. They are recognised by what they can do; none of these libraries is imported."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset, IterableDataset

from ravine.data.objects.fields import TARGETS
from ravine.errors import InputError

WIDE = 5  # names of columns in a message


def is_labelled(given: Any) -> bool:
    """Whether an object is such a table, and one of its columns is called as targets are."""
    if isinstance(given, np.ndarray | Dataset) and not _of_datasets(given):
        return False
    return len(_columns(given)) > 1 and _target(_columns(given)) is not None


def is_table(given: Any) -> bool:
    """Whether an object is such a table at all."""
    return len(_columns(given)) > 1


def labelled(given: Any) -> Any:
    """``(x, y)`` of such a table: one column as it is, several of single numbers side by side [N, columns],
    others by name. A stream becomes an IterableDataset of such samples.

    Errors: no column called as targets are; text that nobody has encoded; pictures of different sizes.
    """
    columns = _columns(given)
    target = _target(columns)
    if target is None:
        raise InputError(
            "data",
            got=f"a table with the columns {_listed(columns)}",
            expected=f"one that is called {', '.join(TARGETS)}",
            repair="rename the column that is to be predicted",
        )
    inputs = [name for name in columns if name != target]
    if _of_datasets(given) and not hasattr(given, "__len__"):
        return _Samples(given.with_format("torch"), inputs, target)
    read = _read_dataset if _of_datasets(given) else _read_frame
    found = read(given, [*inputs, target])
    y = _named(given, target, found.pop(target))
    return _arranged(found), y


class _Samples(IterableDataset):
    """A stream of dictionaries as pairs."""

    def __init__(self, stream: Any, inputs: Sequence[str], target: str):
        self.stream, self.inputs, self.target = stream, inputs, target

    def __iter__(self) -> Iterator[Any]:
        for sample in self.stream:
            given = {name: sample[name] for name in self.inputs}
            alone = given[self.inputs[0]] if len(self.inputs) == 1 else None
            yield (given if alone is None else alone), sample[self.target]


def _of_datasets(given: Any) -> bool:
    return hasattr(given, "with_format") and hasattr(given, "features")


def _columns(given: Any) -> list[str]:
    """The names of a table's columns; none of anything else."""
    if _of_datasets(given):
        return list(given.column_names or ())
    if hasattr(given, "columns") and hasattr(given, "to_numpy"):
        return [str(name) for name in given.columns]
    return []


def _target(columns: Sequence[str]) -> str | None:
    return next((name for name in TARGETS if name in columns), None)


def _listed(columns: Sequence[str]) -> str:
    return ", ".join(columns[:WIDE]) + (", …" if len(columns) > WIDE else "")


def _read_dataset(given: Any, columns: Sequence[str]) -> dict[str, np.ndarray]:
    rows = given.with_format("numpy")[:]
    return {name: _array(name, rows[name]) for name in columns}


def _read_frame(given: Any, columns: Sequence[str]) -> dict[str, np.ndarray]:
    return {name: _array(name, given[name].to_numpy()) for name in columns}


def _array(name: str, values: Any) -> np.ndarray:
    """A column as one array; of lists of different lengths, as objects."""
    array = values if isinstance(values, np.ndarray) else np.asarray(values)
    if array.dtype.kind != "O":
        return array
    rows = [np.asarray(row) for row in array]
    if any(row.ndim == 3 for row in rows) and len({row.shape for row in rows}) > 1:
        sizes = sorted({f"{row.shape[0]} x {row.shape[1]}" for row in rows})
        raise InputError(
            f"data: {name}",
            got=f"pictures of {len(sizes)} sizes ({_listed(sizes)})",
            expected="pictures of one size",
            repair="resize them with map(), or read the folder: data='folder:PATH'",
        )
    return np.stack(rows) if len({row.shape for row in rows}) == 1 else array


def _named(given: Any, target: str, y: np.ndarray) -> Any:
    """Classes by their names, where a dataset has them."""
    feature = given.features[target] if _of_datasets(given) else None
    names = getattr(feature, "names", None)
    if names is None or y.dtype.kind not in "iu":
        return y.astype(str) if y.dtype.kind == "O" else y
    return np.array(names)[y]


def _arranged(columns: dict[str, np.ndarray]) -> Any:
    """One input, single numbers side by side, or a dictionary of inputs."""
    texts = [name for name, values in columns.items() if _is_text(values)]
    if texts:
        raise InputError(
            "data",
            got=f"{len(texts)} column(s) of text: {_listed(texts)}",
            expected="numbers",
            repair="tokenise or encode them first, or save a CSV file: data='csv:PATH'",
        )
    if len(columns) == 1:
        (values,) = columns.values()
        return list(values) if values.dtype.kind == "O" else values
    if all(values.ndim == 1 and values.dtype.kind != "O" for values in columns.values()):
        return np.stack([values.astype(np.float64) for values in columns.values()], 1).astype(
            np.float32
        )
    return columns


def _is_text(values: np.ndarray) -> bool:
    return values.dtype.kind in "US" or (
        values.dtype.kind == "O" and any(isinstance(value, str) for value in values[:100])
    )
