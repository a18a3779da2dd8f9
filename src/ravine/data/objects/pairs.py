"""Pairs (inputs, targets) of arrays -> a Source, everything checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ravine.data.objects.checks import finite
from ravine.data.objects.convert import PADDED_TARGET, images, tensor
from ravine.data.objects.fields import Fields, several
from ravine.data.objects.targets import interpret
from ravine.data.source import Arrays, Source
from ravine.errors import InputError
from ravine.records import fields_of

_MOST_TOKENS = 1_000_000


def from_pairs(
    pairs: Mapping[str, tuple[Any, Any]],
    task: str = "auto",
    *,
    classes: tuple[str, ...] = (),
    where: str = "x",
    target: str = "y",
    flat: bool = False,
) -> Source:
    """A source from raw (inputs, targets) of each part, everything checked. ``target`` and ``flat``: as in
    ``Fields``."""
    fields, target_fields = None, None
    like: Tensor | None = None  # the inputs beside which targets are read
    if several(pairs["train"][0]):
        fields = Fields.of(pairs["train"][0], target, flat=flat)
        like = _first(pairs["train"][0])
        pairs = {name: (fields.pack(x), y) for name, (x, y) in pairs.items()}
    if several(pairs["train"][1]):
        target_fields, task = Fields.of(pairs["train"][1]), "regression"
        pairs = {name: (x, target_fields.pack(y)) for name, (x, y) in pairs.items()}
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
    found = interpret(ys, first if like is None else like, task, classes)
    padded = any(x.is_floating_point() and bool(torch.isnan(x).any()) for x in xs.values())
    splits = {name: Arrays(x, found.parts[name].to(x.device)) for name, x in xs.items()}
    facts: dict[str, Any] = {"padded": True} if padded else {}
    facts |= {"unlabelled": True} if pairs["train"][1] is None else {}
    facts |= {"one_each": True} if found.one_each else {}
    parted = {"fields": fields, "target_fields": target_fields}
    facts |= {name: each.to_dict() for name, each in parted.items() if each is not None}
    return Source(
        splits,
        found.task,
        found.classes,
        vocabulary_of(xs.values()),
        facts,
        outputs=found.outputs,
    )


def _first(inputs: Any) -> Tensor:
    """The first of several inputs."""
    named = inputs if isinstance(inputs, tuple) else (fields_of(inputs) or {}).values()
    return torch.as_tensor(next(iter(named)))


def vocabulary_of(xs: Iterable[Tensor]) -> int | None:
    """The number of tokens, where whole numbers [N, T] (other than bytes) can be tokens."""
    most = 0
    for x in xs:
        whole = x.dtype in (torch.int8, torch.int16, torch.int32, torch.int64)
        if not whole or x.ndim != 2 or int(x.min()) < 0 or int(x.max()) >= _MOST_TOKENS:
            return None
        most = max(most, int(x.max()) + 1)
    return most


def _inputs(value: Any, part: str, where: str) -> Tensor:
    where = where if part == "train" else f"{where} of {part}"
    x = tensor(value, where)
    if not isinstance(x, Tensor):
        raise InputError(
            where,
            got="text",
            expected="numbers",
            repair="texts alone are data=(texts, labels); for tables with text columns use csv:PATH",
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
