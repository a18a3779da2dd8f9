"""New data with their targets, to hold a trained run against: a file or a folder in the form of the
data that it was trained on, a DataFrame, or what is in memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ravine.catalogue import Part
from ravine.data.objects.whole import pair_of
from ravine.data.read import npz, reading, text
from ravine.data.source import Windows
from ravine.errors import InputError


def examples(
    given: Any,
    source: Part,
    facts: Mapping[str, Any],
    shape: tuple[int, ...],
    classes: tuple[str, ...],
) -> tuple[Any, Any]:
    """Inputs and targets. Of a table the target's column is read; a folder has one folder for each
    class, as for training; a text is cut into windows; of arrays the file holds x and y."""
    if hasattr(given, "columns") and "columns" in facts:
        return _of_table(given, facts, classes)
    if not isinstance(given, str | Path):
        return pair_of(given)
    path = Path(given)
    if not path.exists():
        raise InputError("data", got=str(path), expected="a file or folder that exists")
    if "columns" in facts:
        return _of_table(path, facts, classes)
    if source.kind in ("text", "shakespeare"):
        return _windows(path, shape[0], classes)
    if path.is_dir():
        x, names = reading.read(path, source, facts, shape, classes)
        return x, torch.tensor([_class_of(name, path, classes) for name in names])
    if path.suffix.lower() == ".npz":
        stored = {name.lower(): array for name, array in npz.read(path).items()}
        if {"x", "y"} <= set(stored):
            return stored["x"], stored["y"]
        got, expected = f"arrays {', '.join(sorted(stored))}", "arrays called x and y"
        raise InputError(path.name, got=got, expected=expected)
    expected = (
        "data with their targets: a table, a folder with a folder for each class, a text, or .npz"
    )
    raise InputError(str(path), expected=expected, repair="in Python: run.evaluate(data=(x, y))")


def _of_table(given: Any, facts: Mapping[str, Any], classes: tuple[str, ...]) -> tuple[Any, Any]:
    from ravine.data.tables.as_text import pandas_of
    from ravine.data.tables.load import rows_with_targets  # it brings pandas

    frame = given if isinstance(given, Path) else pandas_of(given)
    return rows_with_targets(frame, facts, classes)


def _windows(path: Path, length: int, characters: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    windows = Windows(text.encode(text.read(path), characters), length, 0)
    if not len(windows):
        got, expected = f"{len(windows.tokens)} characters", f"at least {length + 1}"
        raise InputError(str(path), got=got, expected=expected)
    return windows.take(torch.arange(len(windows)))


def _class_of(name: str, path: Path, classes: tuple[str, ...]) -> int:
    """The class that a file's folders name, the innermost first."""
    for folder in reversed(Path(name).parts[:-1]):
        if folder in classes:
            return classes.index(folder)
    expected = f"a folder for each class in {path}: {', '.join(classes[:10])}"
    raise InputError(name, got="no folder of a class", expected=expected)
