"""Reading new inputs for prediction, in the form of the source that a run was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ravine.catalogue import Part
from ravine.data.endings import IMAGES, PARQUET, TABLES
from ravine.data.objects.checks import finite
from ravine.data.objects.convert import images, tensor
from ravine.data.objects.whole import read_all
from ravine.data.read import classes as by_class
from ravine.data.read import formats, idx, npz, parquet, text, texts
from ravine.errors import InputError
from ravine.storage import bounded

FILES = ".npz, .npy or IDX"


def as_rows(x: Any, shape: tuple[int, ...], tokens: bool, *, may_miss: bool = False) -> Tensor:
    """Raw inputs as a tensor [N, *shape]; sequences may have another number of steps, cells of
    tables may miss."""
    rows = tensor(x, "x")
    if not isinstance(rows, Tensor):
        raise InputError(
            "x", got="text", expected=f"numbers of shape [N, {', '.join(map(str, shape))}]"
        )
    rows = images(rows)
    if rows.ndim == len(shape) and rows.ndim and shape == (1,):
        rows = rows[:, None]
    fits = rows.ndim == len(shape) + 1 and (
        tuple(rows.shape[1:]) == shape
        or (_steps_may_differ(shape, tokens) and rows.shape[2:] == torch.Size(shape[1:]))
    )
    if not fits:
        raise InputError(
            "x",
            got=f"shape {list(rows.shape)}",
            expected=f"[N, {', '.join(map(str, shape))}]",
            repair="one sample alone needs a first axis of 1" if tuple(rows.shape) == shape else "",
        )
    if tokens and rows.is_floating_point():
        raise InputError("x", got=str(rows.dtype), expected="tokens as whole numbers")
    if not may_miss:
        finite(rows, "x", padded=True)
    return rows


def given(
    x: Any,
    source: Part,
    facts: Mapping[str, Any],
    shape: tuple[int, ...],
    classes: tuple[str, ...],
) -> Any:
    """What a person has in Python as raw inputs: a path or several, DataFrames and rows by name for a
    run of a table, texts for one of texts, the inputs of a Dataset or DataLoader; anything else as it is."""
    if isinstance(x, Dataset | DataLoader):
        return read_all(x)[0]
    if "columns" in facts:
        from ravine.data.tables.load import rows_of_table  # it brings pandas

        found = rows_of_table(_only_text(x, facts), facts)
        if found is not None:
            return found
    listed = [x] if isinstance(x, str | Path) else listed_texts(x)
    if not isinstance(listed, list | tuple) or not listed:
        return x
    if not all(isinstance(one, str | Path) for one in listed):
        return x
    if source.kind == "texts" and not all(str(one) and bounded.exists(Path(one)) for one in listed):
        return texts.of(listed, facts["texts"])
    return torch.cat([read(Path(one), source, facts, shape, classes)[0] for one in listed])


def listed_texts(x: Any) -> Any:
    """Texts in an array or a column, or a list or tuple of them, as a list; anything else as it is.

    >>> listed_texts(np.array(["a", "b"]))
    ['a', 'b']
    """
    texts = x.tolist() if isinstance(x, np.ndarray) and x.ndim == 1 and x.dtype.kind in "UOT" else x
    if hasattr(x, "to_list") and not hasattr(x, "columns"):  # a Series of pandas or polars
        texts = x.to_list()
    if not isinstance(texts, list | tuple) or not texts:
        return x
    return list(texts) if all(isinstance(one, str) for one in texts) else x


def _only_text(x: Any, facts: Mapping[str, Any]) -> Any:
    """Texts for a run whose only input is a column of them, as rows by name; anything else as it is."""
    names = [one["name"] for one in facts["columns"]]
    kinds = [one["kind"] for one in facts["columns"]]
    listed = [x] if isinstance(x, str) else listed_texts(x)
    if kinds != ["text"] or not isinstance(listed, list) or not listed:
        return x
    if not all(isinstance(one, str) for one in listed) or all(map(_is_file, listed)):
        return x
    return [{names[0]: one} for one in listed]


def _is_file(name: str) -> bool:
    return bool(name) and (bounded.exists(Path(name)) or Path(name).suffix.lower() in TABLES)


def prompt(x: str, task: str, vocabulary: int | None, characters: tuple[str, ...]) -> Tensor:
    """A text as one row of tokens."""
    if task != "sequence" or vocabulary != len(characters):
        raise InputError("x", got="text", expected="numbers: the run was not trained on a text")
    if not x:
        raise InputError("x", got="an empty text", expected="at least one character")
    return text.encode(x, characters).long()[None]


def _steps_may_differ(shape: tuple[int, ...], tokens: bool) -> bool:
    return len(shape) == 2 or (tokens and len(shape) == 1)


def read(
    path: Path,
    source: Part,
    facts: Mapping[str, Any],
    shape: tuple[int, ...],
    classes: tuple[str, ...],
) -> tuple[Tensor, list[str]]:
    """Raw inputs [N, *shape] and a name for each, by what the file is."""
    if not path.exists():
        raise InputError(str(path), expected="a file or folder that exists")
    kind = source.kind
    if "columns" in facts:
        from ravine.data.tables.load import (
            rows_by,  # it brings pandas, which other data do not need
        )

        return _numbered(rows_by(path, facts), path)
    if kind in ("text", "shakespeare"):
        tokens = text.encode(text.read(path), classes).long()
        if not len(tokens):
            raise InputError(str(path), got="an empty file", expected="text")
        return tokens[None], [path.name]
    if kind == "texts":
        return texts.read_new(path, facts["texts"])
    if path.suffix.lower() in PARQUET and "inputs" in facts:
        return _numbered(parquet.read_new(path, facts, shape), path)
    if path.is_dir() or path.suffix.lower() in IMAGES:
        return _images(path, facts, shape)
    if path.suffix.lower() in (".npz", ".npy"):
        stored = {name.lower(): array for name, array in npz.read(path).items()}
        array = stored.get("x", next(iter(stored.values())) if len(stored) == 1 else None)
        if array is None:
            raise InputError(
                path.name, got=f"arrays {', '.join(sorted(stored))}", expected="an array called x"
            )
        return _numbered(tensor(array, path.name), path)
    if path.suffix.lower() in TABLES and len(shape) == 3:
        raise InputError(str(path), got="a table", expected=f"images, or {FILES} of them")
    if path.suffix.lower() in TABLES:
        from ravine.data.tables.load import all_numbers

        return _numbered(all_numbers(path), path)
    data = idx.read_bytes(path)
    if data[:2] == b"\0\0":
        return _numbered(tensor(formats.idx_images(path), path.name), path)
    raise InputError(str(path), expected=f"images, {FILES} of them, or a table")


def _numbered(rows: Any, path: Path) -> tuple[Tensor, list[str]]:
    return rows, [f"{path.name}:{i}" for i in range(len(rows))]


def _images(
    path: Path, facts: Mapping[str, Any], shape: tuple[int, ...]
) -> tuple[Tensor, list[str]]:
    from ravine.data.read import images as pictures

    if len(shape) != 3:
        raise InputError(str(path), got="images", expected=f"samples of shape {list(shape)}")
    found = by_class.files(path) if path.is_dir() else [path]
    mode = facts.get("mode") or ("L" if shape[0] == 1 else "RGB")
    fit, levels = facts.get("fit", "stretch"), pictures.Levels.of(facts.get("levels"))
    x, broken = pictures.load(found, mode, (shape[1], shape[2]), fit, levels)
    if not len(x):
        raise InputError(
            str(path),
            got=f"{len(found)} file(s), none an image that can be read",
            expected="image files",
        )
    root = path if path.is_dir() else path.parent
    pictures.warn_unreadable([found[place] for place in broken], root)
    return x, [
        str(file.relative_to(root)) for place, file in enumerate(found) if place not in set(broken)
    ]
