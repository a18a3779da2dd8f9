"""The data of published cases, from their descriptions in words: tables beside them, MNIST,
CIFAR-10, and what is generated."""

from __future__ import annotations

import csv
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ravine.errors import InputError


@cache
def data_folder() -> Path:
    """``RAVINE_DATA``, or the data of a folder beside the checkout that holds published cases."""
    beside = sorted(Path(__file__).resolve().parents[2].glob("*/doctor/cases.json"))
    return Path(
        os.environ.get("RAVINE_DATA") or (beside[0].parents[1] / "data" if beside else "data")
    )


def published(words: str, root: Path) -> tuple[Any, ...]:
    """Arrays (x, y) or (x, y, x_val, y_val) for a description; an unknown one is an
    ``InputError``."""
    text = words.lower()
    for pattern, make in _TABLE:
        if re.search(pattern, text):
            return make(words, root)
    raise InputError("data", got=words, expected="a description that is known here, or a data_file")


def _rows(path: Path) -> list[list[str]]:
    with path.open(newline=None, encoding="utf-8-sig") as file:
        return [[cell.strip() for cell in row] for row in csv.reader(file) if row]


def _numbers(path: Path, header: int = 0) -> np.ndarray:
    return np.array(
        [[float(cell or "nan") for cell in row] for row in _rows(path)[header:]], dtype=np.float64
    )


def _codes(column: list[str]) -> np.ndarray:
    """Numbers stay numbers, everything else becomes the place in alphabetical order (label
    encoding)."""
    try:
        return np.array([float(cell) if cell else np.nan for cell in column])
    except ValueError:
        return np.unique(column, return_inverse=True)[1].astype(np.float64)


def _one_hot(labels: np.ndarray, classes: int | None = None) -> np.ndarray:
    return np.eye(classes or int(labels.max()) + 1, dtype=np.int64)[labels.astype(np.int64)]


def _f(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x, dtype=np.float32)


@cache
def _images(name: str) -> tuple[np.ndarray, ...]:
    from ravine.data.download.published import cifar10, mnist

    root = data_folder()
    found = (mnist if name == "mnist" else cifar10)(root)
    return tuple(np.asarray(part) for split in ("train", "test") for part in found[split])


def _image_set(words: str, root: Path) -> tuple[Any, ...]:
    x, y, x_val, y_val = _images("mnist" if "mnist" in words.lower() else "cifar10")

    def shaped(images: np.ndarray) -> np.ndarray:
        images = images.reshape(len(images), -1) if "flatten" in words.lower() else images
        return _f(images) / 255 if "/255" in words else _f(images)

    return shaped(x), y.astype(np.int64), shaped(x_val), y_val.astype(np.int64)


def _npz(name: str) -> Any:
    def make(words: str, root: Path) -> tuple[Any, ...]:
        with np.load(root / name, allow_pickle=False) as held:
            x, y, x_val, y_val = (held[key] for key in ("x", "y", "x_val", "y_val"))
        y, y_val = y.astype(np.int64), y_val.astype(np.int64)
        return _f(x), y, _f(x_val), y_val

    return make


def _two_squares(words: str, root: Path) -> tuple[Any, ...]:
    drawn = np.random.default_rng(0)
    x = np.concatenate([drawn.uniform(0.2, 0.4, (100, 2)), drawn.uniform(0.5, 0.7, (100, 2))])
    return _f(x), _one_hot(np.repeat([0, 1], 100))


def _multilabel(words: str, root: Path) -> tuple[Any, ...]:
    from sklearn.datasets import make_multilabel_classification

    rows, features, labels = 60_000, 20, 3
    found = re.search(r"(\d+)\s*x\s*(\d+)\D+(\d+) labels", words)
    if found:
        rows, features, labels = map(int, found.groups())
    x, y = make_multilabel_classification(
        n_samples=rows, n_features=features, n_classes=labels, random_state=0
    )
    cut = int(0.8 * rows)
    return _f(x[:cut]), y[:cut], _f(x[cut:]), y[cut:]


def _xor(words: str, root: Path) -> tuple[Any, ...]:
    return _f(np.array([[1, 1], [0, 0], [1, 0], [0, 1], [1, 1], [0, 0]])), np.array(
        [0, 0, 1, 1, 0, 0]
    )


def _line(words: str, root: Path) -> tuple[Any, ...]:
    x = np.linspace(1, 2, 100)
    return _f(x[:, None]), _f(5 * x[:, None])


def _adult(words: str, root: Path) -> tuple[Any, ...]:
    rows = [row for row in _rows(root / "adult.data") if len(row) == 15]
    table = np.column_stack([_codes(list(column)) for column in zip(*rows, strict=True)])
    return _cut(_f(table[:, :-1]), _one_hot(table[:, -1]))


def _titanic(words: str, root: Path) -> tuple[Any, ...]:
    header, *rows = _rows(root / "31627380_titanic.csv")
    columns = dict(
        zip(header, (_codes(list(column)) for column in zip(*rows, strict=True)), strict=True)
    )
    label = columns.pop("Survived").astype(np.int64)
    columns.pop("PassengerId")
    x = np.column_stack(
        [np.nan_to_num(column, nan=float(np.nanmean(column))) for column in columns.values()]
    )
    return _cut(_f(x), _one_hot(label))


def _iris(words: str, root: Path) -> tuple[Any, ...]:
    rows = _rows(root / "iris.data")
    x = np.array([[float(cell) for cell in row[:4]] for row in rows])
    labels = np.unique([row[4] for row in rows], return_inverse=True)[1]
    return _cut(_f(x), _one_hot(labels))


def _mpg(words: str, root: Path) -> tuple[Any, ...]:
    table = _numbers(root / "auto-mpg.csv", header=1)
    low, high = table.min(0), table.max(0)
    table = (table - low) / (high - low)
    return _cut(_f(table[:, 1:]), _f(table[:, :1]))


def _people(words: str, root: Path) -> tuple[Any, ...]:
    rows = _rows(root / "34673164.csv")
    labels = np.unique([row[-1] for row in rows], return_inverse=True)[1]
    return _f(np.array([[float(cell) for cell in row[:-1]] for row in rows])), _one_hot(labels, 2)


def _table(
    name: str,
    *,
    header: int = 0,
    features: int | None = None,
    target: int = -1,
    real: bool = False,
    classes: int | None = None,
) -> Any:
    def make(words: str, root: Path) -> tuple[Any, ...]:
        found = _numbers(root / name, header)
        y = found[:, target]
        if classes:
            y = _one_hot(np.unique(y, return_inverse=True)[1], classes)
        elif real:
            y = _f(y[:, None])
        else:
            y = y.astype(np.int64)
        return _f(found[:, : features or found.shape[1] - 1]), y

    return make


def _cut(x: np.ndarray, y: np.ndarray, part: float = 0.7) -> tuple[Any, ...]:
    """Shuffled once; the first 70 % are for training."""
    order = np.random.default_rng(0).permutation(len(x))
    x, y, n = x[order], y[order], int(part * len(x))
    return x[:n], y[:n], x[n:], y[n:]


_TABLE: list[tuple[str, Any]] = [
    (r"mnist|cifar", _image_set),
    (r"circle", _npz("circle.npz")),
    (r"blob", _npz("blob.npz")),
    (r"multilabel", _multilabel),
    (r"xor", _xor),
    (r"linspace\(1,2,100\)", _line),
    (r"class1 both coords", _two_squares),
    (r"adult", _adult),
    (r"titanic", _titanic),
    (r"iris", _iris),
    (r"auto-?mpg", _mpg),
    (r"book1", _table("48251943.csv", features=2, target=2, real=True)),
    (r"sorted output", _table("39525358.csv")),
    (r"sin\.csv", _table("41372874.csv", header=1)),
    (r"census", _people),
    (r"linear_data", _table("48221692.csv", real=True)),
    (r"networkpackets", _table("44066044.csv")),
    (r"dataset\.csv 1 feature", _table("45442843.csv")),
    (r"export78", _table("58609115.csv", classes=69)),
]
