"""What the targets say: the task, its classes, and the targets as tensors.

In this order, unless ``task`` says otherwise: text and whole numbers [N] are classes; whole numbers
[N, T] beside sequences of T steps are a class per step; rows of 0 and 1 are several labels each, or
one class where every row has a single 1; rows of floats that are shares (>= 0, sum 1) are soft
classes; all other floats are the targets of a regression. Whole numbers of more axes, as a class for
each pixel, stay whole numbers, for a loss of one's own. Under the task ``binary``, that of PyTorch's binary
cross-entropies, one column of floats 0 and 1 alone is two classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ravine.data.objects.convert import PADDED_TARGET, tensor
from ravine.errors import InputError, unknown


@dataclass
class Targets:
    """Targets of every part, in one encoding."""

    parts: dict[str, Tensor]
    task: str
    classes: tuple[str, ...]
    outputs: int
    one_each: bool = False  # whether numbers came as [N], and are [N, 1] here


def interpret(
    parts: dict[str, Any], inputs: Tensor, task: str = "auto", classes: tuple[str, ...] = ()
) -> Targets:
    """Encode the targets of all parts by what those for training say; ``inputs`` are the training
    inputs."""
    for name, y in parts.items():
        _check_finite(y, name)
    first = parts["train"]
    if isinstance(first, np.ndarray):
        return _named(parts)
    if task == "binary" and _column(first) and all(map(_binary, parts.values())):
        task = "classification"
    if task in ("auto", "binary"):
        task = _infer(first, inputs)
    if task == "regression":
        return _regression(parts)
    if task == "multilabel":
        return _multilabel(parts)
    if task == "sequence":
        return _steps(parts, inputs, classes)
    return _classes(parts, classes)


def _infer(y: Tensor, inputs: Tensor) -> str:
    if _column(y):
        return "regression" if y.is_floating_point() else "classification"
    if y.ndim == 2 and _binary(y):
        if _per_step(y, inputs):
            return "sequence"
        return "classification" if bool((y.sum(1) == 1).all()) else "multilabel"
    if y.is_floating_point():
        return "classification" if y.ndim == 2 and _shares(y) else "regression"
    if _per_step(y, inputs):
        return "sequence"
    if y.ndim > 2:
        return "regression"  # a class of each place, as of each pixel, for a loss of one's own
    raise InputError(
        "y",
        got=f"whole numbers of shape {list(y.shape)}",
        expected="[N] classes, [N, K] of 0 and 1, or [N, T] beside inputs of T steps",
        repair="give floats for a regression",
    )


def _per_step(y: Tensor, inputs: Tensor) -> bool:
    steps = inputs.ndim == 3 or (
        inputs.ndim == 2 and not inputs.is_floating_point() and inputs.dtype != torch.uint8
    )
    return not y.is_floating_point() and y.ndim == 2 and steps and y.shape[1] == inputs.shape[1]


def _column(y: Tensor) -> bool:
    return y.ndim == 1 or (y.ndim == 2 and y.shape[1] == 1)


def _binary(y: Tensor) -> bool:
    return bool(((y == 0) | (y == 1)).all())


def _shares(y: Tensor) -> bool:
    return (
        y.is_floating_point()
        and bool((y >= 0).all())
        and bool(((y.double().sum(1) - 1).abs() < 1e-5).all())
    )


def _classes(parts: dict[str, Tensor], classes: tuple[str, ...]) -> Targets:
    first = parts["train"]
    if first.ndim == 2 and first.shape[1] > 1:
        return _rows_of_classes(parts, classes)
    labels = {
        name: whole(
            y.flatten() if y.ndim == 2 and y.shape[1] == 1 else y,
            "y" if name == "train" else f"y of {name}",
        )
        for name, y in parts.items()
    }
    for name, y in labels.items():
        if y.ndim != 1:
            raise InputError("y", got=f"shape {list(y.shape)} ({name})", expected="[N] classes")
    count = len(classes) or int(labels["train"].max()) + 1
    for name, y in labels.items():
        in_range(y, count, name)
    seen = labels["train"].unique()
    if len(seen) < count:
        missing = next(k for k in range(count) if k not in set(seen.tolist()))
        called = f" ({classes[missing]})" if classes else ""
        raise InputError(
            "y",
            got=f"no training sample of class {missing}{called}",
            expected=f"samples of each of the classes 0 to {count - 1}",
            repair="number the classes from 0 without gaps; for a regression give floats",
        )
    if count < 2:
        raise InputError("y", got="one class", expected="at least two classes")
    return Targets(labels, "classification", classes or tuple(map(str, range(count))), count)


def _rows_of_classes(parts: dict[str, Tensor], classes: tuple[str, ...]) -> Targets:
    count = parts["train"].shape[1]
    for name, y in parts.items():
        if y.ndim != 2 or y.shape[1] != count or not (_shares(y.double())):
            raise InputError(
                "y",
                got=f"shape {list(y.shape)} ({name})",
                expected=f"rows of {count} shares that sum to 1",
            )
    hard = all(_binary(y) for y in parts.values())
    encoded = {
        name: y.argmax(1) if hard else y.float() if y.dtype != torch.float64 else y
        for name, y in parts.items()
    }
    return Targets(encoded, "classification", classes or tuple(map(str, range(count))), count)


def _multilabel(parts: dict[str, Tensor]) -> Targets:
    count = parts["train"].shape[1] if parts["train"].ndim == 2 else 0
    for name, y in parts.items():
        if y.ndim != 2 or y.shape[1] != count or not _binary(y):
            raise InputError(
                "y",
                got=f"shape {list(y.shape)} ({name})",
                expected=f"rows of {count or 'K'} labels, each 0 or 1",
            )
    return Targets(
        {name: y.float() for name, y in parts.items()},
        "multilabel",
        tuple(map(str, range(count))),
        count,
    )


def _steps(parts: dict[str, Tensor], inputs: Tensor, classes: tuple[str, ...]) -> Targets:
    labels = {name: whole(y, "y") for name, y in parts.items()}
    count = len(classes) or int(labels["train"].max()) + 1
    for name, y in labels.items():
        if y.ndim != 2:
            raise InputError(
                "y",
                got=f"shape {list(y.shape)} ({name})",
                expected="[N, T], a class for each time step",
            )
        in_range(y[y != PADDED_TARGET], count, name)
    return Targets(labels, "sequence", classes or tuple(map(str, range(count))), count)


def _regression(parts: dict[str, Tensor]) -> Targets:
    width = parts["train"].shape[1:].numel() if parts["train"].ndim > 1 else 1
    shaped = {}
    for name, y in parts.items():
        y = y.double() if not y.is_floating_point() and y.ndim < 3 else y
        y = y[:, None] if y.ndim == 1 else y
        if y.shape[1:].numel() != width:
            raise InputError(
                "y",
                got=f"shape {list(y.shape)} ({name})",
                expected=f"{width} target(s) a row, as in training",
            )
        shaped[name] = y
    return Targets(shaped, "regression", (), width, one_each=parts["train"].ndim == 1)


def _named(parts: dict[str, Any]) -> Targets:
    """Classes given as text, in alphabetical order."""
    if any(not isinstance(y, np.ndarray) or y.ndim != 1 for y in parts.values()):
        raise InputError("y", got="text in some parts", expected="class names [N] in every part")
    names = np.unique(parts["train"])
    if len(names) < 2:
        raise InputError("y", got=f"one class ({names[0]})", expected="at least two classes")
    encoded = {}
    for name, y in parts.items():
        strange = set(y.tolist()) - set(names.tolist())
        if strange:
            raise unknown(f"y of {name}", min(strange), names.tolist())
        encoded[name] = torch.from_numpy(np.searchsorted(names, y))
    return Targets(encoded, "classification", tuple(names.tolist()), len(names))


def as_targets(y: Any, *, task: str, classes: tuple[str, ...], outputs: int) -> Tensor:
    """Targets of new data, in the encoding that the training part has."""
    given = tensor(y, "y", padding=PADDED_TARGET)
    if not isinstance(given, Tensor):
        strange = sorted(set(given.tolist()) - set(classes))
        if strange:
            raise unknown("y", strange[0], classes)
        return torch.tensor([classes.index(name) for name in given.tolist()])
    _check_finite(given, "train")
    if task == "regression":
        kept = given.is_floating_point() or given.ndim > 2
        return (given[:, None] if given.ndim == 1 else given).to(
            given.dtype if kept else torch.float64
        )
    if task == "multilabel" or (
        task == "classification" and given.ndim == 2 and given.shape[1] == outputs > 1
    ):
        return given if given.is_floating_point() else given.float()
    labels = whole(given.flatten() if task == "classification" else given, "y")
    in_range(labels[labels != PADDED_TARGET], outputs, "train")
    return labels


def whole(y: Tensor, where: str) -> Tensor:
    """int64 from whole numbers of any type; anything else is an error."""
    if y.is_floating_point():
        odd = (y != y.round()).nonzero()
        if len(odd):
            place = tuple(odd[0].tolist())
            raise InputError(
                where,
                got=f"{y[place].item()} at row {place[0]}",
                expected="whole numbers, the classes 0, 1, …",
                repair="for a regression, set task = 'regression'",
            )
    return y.long()


def in_range(labels: Tensor, count: int, part: str) -> None:
    """Labels must be 0 to count - 1."""
    wrong = ((labels < 0) | (labels >= count)).nonzero()
    if len(wrong):
        place = tuple(wrong[0].tolist())
        where = "y" if part == "train" else f"y of {part}"
        signs = count == 2 and bool((labels.abs() == 1).all())
        raise InputError(
            where,
            got=f"label {labels[place].item()} at row {place[0]} ({len(wrong)} out of range)",
            expected=f"classes 0 to {count - 1}",
            repair="labels -1 and 1 are made classes by (y > 0)"
            if signs
            else "leave out samples without a class; in sequences [B, T] steps of -100 do not count",
        )


def _check_finite(y: Any, part: str) -> None:
    if isinstance(y, Tensor) and y.is_floating_point() and not bool(torch.isfinite(y).all()):
        bad = ~torch.isfinite(y)
        raise InputError(
            "y" if part == "train" else f"y of {part}",
            got=f"{int(bad.sum())} value(s) that are NaN or infinite, first at row {int(bad.nonzero()[0, 0])}",
            expected="finite targets",
        )
