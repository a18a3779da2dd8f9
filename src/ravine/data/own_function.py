"""A person's functions where data are read, prepared and augmented: called as the package's own
techniques are, and drawing from global random numbers that are a function of the step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ravine.catalogue import find
from ravine.catalogue.own import PREFIX, RECEIVES, name_of
from ravine.catalogue.part import Part
from ravine.data.augmentation.draw import Draw, Samples
from ravine.data.objects.arrays import from_python
from ravine.data.objects.stream import seeded
from ravine.data.preprocessing.statistics import Rows
from ravine.data.preprocessing.transform import Transform
from ravine.data.source import Source
from ravine.errors import InputError, RavineError, first_line
from ravine.randomness import key


class OwnTransform(Transform):
    """A person's function of inputs [N, ...]; ``settings`` name it, and never bring it: what is not
    in this process is asked for."""

    def forward(self, x: Tensor) -> Tensor:
        settings = self.settings
        name = f"{PREFIX}{str(settings['kind']).removeprefix(PREFIX)}"  # never one of the package's
        found = find("preprocess", name, settings["code"]).function()
        with _explained("data.preprocess", name, x):
            given = found(x, **settings["fields"])
        prepared = _tensor("data.preprocess", name, given)
        if prepared.dim() == 0 or len(prepared) != len(x):
            raise InputError(
                "data.preprocess",
                got=f"{settings['kind']}, which makes {tuple(prepared.shape)} of {tuple(x.shape)}",
                expected=f"as many rows as it was given, [{len(x)}, ...]",
            )
        return prepared


def technique(kind: str, part: Part) -> Callable[..., Any]:
    """The function of a part, called as the techniques of its kind are."""
    function, own = part.technique.function(), getattr(part.technique, "own", None)
    if own is None:
        return function
    if kind == "preprocess" and "fits" not in own.marks:
        return lambda rows, **fields: _transform(part, rows)
    if kind == "augment" and own.takes[1:] != ("draw",):
        return lambda batch, draw, **fields: _augment(function, own.takes, batch, draw, fields)
    if kind == "augment":
        return lambda batch, draw, **fields: _batch(function, batch, draw, fields)
    if kind == "source":
        return lambda root, **fields: _source(function, root, fields)
    return function


def _transform(part: Part, rows: Rows) -> Transform:
    settings = {"kind": part.kind, "code": part.code, "fields": part.arguments}
    return OwnTransform(settings)


def _tensor(where: str, name: str, found: Any) -> Tensor:
    """What a person's function makes of inputs, as a tensor."""
    try:
        return torch.as_tensor(found)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(
            where,
            got=f"{name}, which gives {type(found).__name__}",
            expected="the inputs as a tensor [N, ...]",
            repair="return x",
        ) from None


def _batch(
    function: Callable[..., Any], batch: Samples, draw: Draw, fields: dict[str, Any]
) -> Samples:
    """A function of (batch, draw), as the package's own are."""
    name = name_of(function)
    with seeded(key(*draw.parts)), _explained("data.augment", name, batch.x, batch.y):
        found = function(batch, draw, **fields)
    if not isinstance(found, Samples):
        raise InputError(
            "data.augment",
            got=f"{name}, which gives {type(found).__name__}",
            expected="the batch that it was given, changed",
            repair="return batch.with_x(x), after batch.y = y where targets change; draws come from "
            "draw.uniform and draw.permutation",
        )
    return found


@contextmanager
def _explained(where: str, name: str, *given: Tensor) -> Iterator[None]:
    """What a person's function raises as one message."""
    try:
        yield
    except RavineError:
        raise
    except Exception as error:  # a person's code may fail in any way
        shapes = " and ".join(str(list(each.shape)) for each in given)
        raise InputError(
            where,
            got=f"{name}, which fails on a batch of {shapes} ({type(error).__name__}: {first_line(error)})",
            expected=RECEIVES[where.removeprefix("data.")],
            repair="of (batch, draw): return batch.with_x(x), after batch.y = y where targets change"
            if where == "data.augment"
            else "",
        ) from None


def _augment(
    function: Callable[..., Any],
    takes: tuple[str, ...],
    batch: Samples,
    draw: Draw,
    fields: dict[str, Any],
) -> Samples:
    with seeded(key(*draw.parts)):
        if len(takes) == 1:
            with _explained("data.augment", name_of(function), batch.x):
                found = function(batch.x, **fields)
            x = _tensor("data.augment", name_of(function), found)
            x = x.to(batch.device)
            _check_augmented(function, x, len(batch.x))
            return batch.with_x(x)
        with _explained("data.augment", name_of(function), batch.x, batch.y):
            found = function(batch.x, batch.y, **fields)
        if not isinstance(found, tuple | list) or len(found) != 2:
            raise InputError(
                "data.augment",
                got=f"{name_of(function)}, which gives {type(found).__name__}",
                expected="inputs and targets",
                repair="return x, y",
            )
        x, y = found
    _check_augmented(function, x, len(y))
    batch.y = y
    return batch.with_x(x)


def _check_augmented(function: Any, x: Any, samples: int) -> None:
    if len(x) != samples:
        raise InputError(
            "data.augment",
            got=f"{name_of(function)}, which gives {len(x)} inputs for {samples} targets",
            expected="as many samples as the batch has",
            repair="a function of (x, y) that gives both may change their number",
        )


def _source(function: Callable[..., Any], root: Path, fields: dict[str, Any]) -> Source:
    found = function(root, **fields)
    return found if isinstance(found, Source) else from_python(found)
