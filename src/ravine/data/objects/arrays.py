"""Data given in Python -> a Source: arrays and tensors, in parts or not, PyTorch Datasets and
DataLoaders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from ravine.data.objects.checks import finite
from ravine.data.objects.convert import PADDED_TARGET, images, tensor
from ravine.data.objects.targets import interpret
from ravine.data.source import Arrays, Source
from ravine.errors import InputError, unknown

_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
}
_MOST_TOKENS = 1_000_000
_ORDER = ("train", "validation", "test")


def from_python(given: Any, task: str = "auto", *, seed: int = 0, batch: int = 128) -> Source:
    """The source that a person's own objects are.

    ``x``; ``(x, y)``; ``(x, y, x_val, y_val)``, with ``x_test, y_test`` after it; a Dataset or
    DataLoader; a tuple of up to three of any of those (training, validation, test); or a dict with
    the keys ``train``, ``validation``, ``test``. Of a DataLoader its dataset, collate_fn, workers
    and batch size are taken; the order is the recipe's, unless it has a sampler of its own.
    ``batch`` is that of an IterableDataset.

    Bytes [N, H, W] and [N, H, W, C] are images and become [N, C, H, W]; whole numbers [N, T] of
    other types are tokens unless something is preprocessed; text, bool and whole numbers as targets
    are classes, floats a regression.
    """
    pairs = {name: _pair(part, name) for name, part in _by_part(given).items()}
    if all(isinstance(pair, tuple) for pair in pairs.values()):
        return from_pairs(pairs, task, given=len(pairs) > 1)
    from ravine.data.objects.stream import from_streams

    return from_streams(pairs, task, seed, batch)


def from_pairs(
    pairs: Mapping[str, tuple[Any, Any]],
    task: str = "auto",
    *,
    given: bool = False,
    classes: tuple[str, ...] = (),
    where: str = "x",
) -> Source:
    """A source from raw (inputs, targets) of each part, everything checked."""
    xs = {name: _inputs(x, name, where) for name, (x, _) in pairs.items()}
    ys = {
        name: torch.zeros(len(xs[name])) if y is None else _targets(y)
        for name, (_, y) in pairs.items()
    }
    if any(isinstance(x, (list, tuple)) for x, _ in pairs.values()):
        xs = _equally_long(xs)
        ys = {name: _as_long(y, xs[name]) for name, y in ys.items()}
    first = xs["train"]
    for name, x in xs.items():
        if x.shape[1:] != first.shape[1:]:
            raise InputError(
                f"{where} of {name}",
                got=f"rows of shape {list(x.shape[1:])}",
                expected=f"{list(first.shape[1:])}, as in training",
            )
    for name, x in xs.items():
        if ys[name].ndim == 0 or len(x) != len(ys[name]):
            raise InputError(
                "y" if name == "train" else f"y of {name}",
                got=f"{len(ys[name]) if ys[name].ndim else 'one'} target(s) for {len(x)} inputs",
                expected="as many targets as inputs",
            )
    found = interpret(ys, first, task, classes)
    padded = any(x.is_floating_point() and bool(torch.isnan(x).any()) for x in xs.values())
    splits = {name: Arrays(x, found.parts[name].to(x.device)) for name, x in xs.items()}
    facts = {"padded": True} if padded else {}
    return Source(
        splits,
        found.task,
        found.classes,
        vocabulary_of(xs.values()),
        facts,
        outputs=found.outputs,
        given=given,
    )


def vocabulary_of(xs: Iterable[Tensor]) -> int | None:
    """The number of tokens, where whole numbers [N, T] (other than bytes) can be tokens."""
    most = 0
    for x in xs:
        whole = x.dtype in (torch.int8, torch.int16, torch.int32, torch.int64)
        if not whole or x.ndim != 2 or int(x.min()) < 0 or int(x.max()) >= _MOST_TOKENS:
            return None
        most = max(most, int(x.max()) + 1)
    return most


def _by_part(given: Any) -> dict[str, Any]:
    if isinstance(given, Mapping):
        for name in given:
            if name not in _NAMES:
                raise unknown("data", str(name), _NAMES)
        parts = {_NAMES[name]: part for name, part in given.items()}
        if "train" not in parts:
            raise InputError("data", got=sorted(given), expected="a part called train")
        return parts
    if isinstance(given, (Dataset, DataLoader)) or not isinstance(given, (tuple, list)):
        return {"train": given}
    whole = [
        isinstance(item, (Dataset, DataLoader)) or (isinstance(item, tuple) and len(item) == 2)
        for item in given
    ]
    if given and all(whole) and len(given) <= 3:
        return dict(zip(_ORDER, given, strict=False))
    if len(given) in (2, 4, 6) and not any(whole):
        return {
            name: (given[2 * i], given[2 * i + 1])
            for i, name in enumerate(_ORDER[: len(given) // 2])
        }
    raise InputError(
        "data",
        got=f"{len(given)} objects",
        expected="(x, y), (x, y, x_val, y_val), up to three Datasets or pairs, or a dict of parts",
    )


def _pair(part: Any, name: str) -> Any:
    """(x, y) where the part is arrays or holds tensors; else the Dataset or DataLoader itself."""
    if isinstance(part, DataLoader) or (isinstance(part, Dataset) and not isinstance(part, Tensor)):
        return _tensors_of(part) or part
    if isinstance(part, (tuple, list)) and len(part) == 2:
        return tuple(part)
    if isinstance(part, (Tensor, np.ndarray)):
        return part, None
    raise InputError(
        f"data ({name})",
        got=type(part).__name__,
        expected="arrays (x, y), a Dataset or a DataLoader",
    )


def _tensors_of(data: Any) -> tuple[Tensor, Tensor] | None:
    if isinstance(data, TensorDataset) and len(data.tensors) == 2:
        return data.tensors[0], data.tensors[1]
    if isinstance(data, Subset):
        whole = _tensors_of(data.dataset)
        rows = torch.as_tensor(data.indices)
        return (whole[0][rows], whole[1][rows]) if whole else None
    return None


def _inputs(value: Any, part: str, where: str) -> Tensor:
    where = where if part == "train" else f"{where} of {part}"
    x = tensor(value, where)
    if not isinstance(x, Tensor):
        raise InputError(
            where,
            got="text",
            expected="numbers",
            repair="for tables with text columns use csv:PATH",
        )
    x = x.to(torch.uint8) if x.dtype == torch.bool else images(x)
    if x.ndim == 1:
        x = x[:, None]
    if x.ndim == 0 or len(x) == 0:
        raise InputError(
            where, got=f"shape {list(x.shape)}", expected="at least one sample [N, ...]"
        )
    if x.shape[1:].numel() == 0:
        raise InputError(
            where, got=f"shape {list(x.shape)}", expected="at least one number a sample"
        )
    finite(x, where, padded=True)
    return x


def _equally_long(xs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Sequences [N, T, ...] of all parts padded to the longest."""
    ranks = {x.ndim for x in xs.values()}
    if ranks != {2} and ranks != {3}:
        return xs
    steps = max(x.shape[1] for x in xs.values())
    return {
        name: _padded_to(x, steps) if x.ndim == 3 or not x.is_floating_point() else x
        for name, x in xs.items()
    }


def _padded_to(x: Tensor, steps: int) -> Tensor:
    if x.shape[1] == steps:
        return x
    return _longer(x, steps, float("nan") if x.is_floating_point() else 0)


def _targets(y: Any) -> Tensor | np.ndarray:
    return tensor(y, "y", padding=PADDED_TARGET)


def _as_long(y: Tensor | np.ndarray, x: Tensor) -> Tensor | np.ndarray:
    """Targets by step padded as far as their inputs."""
    by_step = (
        isinstance(y, Tensor)
        and y.ndim == 2
        and not y.is_floating_point()
        and 1 < y.shape[1] < x.shape[1]
    )
    return _longer(y, x.shape[1], PADDED_TARGET) if by_step else y  # type: ignore[arg-type]


def _longer(x: Tensor, steps: int, fill: float) -> Tensor:
    return torch.cat([x, x.new_full((len(x), steps - x.shape[1], *x.shape[2:]), fill)], 1)
