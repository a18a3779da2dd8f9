"""A source's parts made complete: what it does not bring is split off the training part."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from ravine import recipe
from ravine.data.holdout import hold_out
from ravine.data.objects.stream import Items, Ordered
from ravine.data.read.text import Text
from ravine.data.source import PARTS, Arrays, Source
from ravine.errors import InputError


def divide(source: Source, data: recipe.Data) -> Source:
    """The source with all its parts: the test part is split off first, the validation part off the
    rest.

    Where the source brings a validation part of its own, its parts are used as they are, and no
    test part is made unless ``data.test`` is set. A text is cut into contiguous pieces.
    """
    whole = source.parts.get("all")
    if isinstance(whole, Text):
        pieces, characters = whole.cut(data.validation, data.test, data.seed)
        return replace(
            source,
            parts=pieces,
            classes=characters,
            vocabulary=len(characters),
            outputs=len(characters),
        )
    parts, groups, order = dict(source.parts), source.groups, source.order
    for name, fraction in _fractions(source, data).items():
        if name not in parts and fraction > 0:
            train = parts["train"]
            labels = _labels(train) if source.task == "classification" else None
            kept, held = hold_out(len(train), fraction, labels, data.seed, name, groups, order)
            groups = None if groups is None else groups[kept]
            order = None if order is None else order[kept]
            parts["train"], parts[name] = train.rows(kept), train.rows(held)
    for name, part in parts.items():
        if not len(part):
            raise InputError(f"data ({name})", got="no samples", expected="at least one")
    whole_parts = {name: parts[name] for name in PARTS if name in parts}
    return replace(source, parts=whole_parts, groups=None, order=None)


def is_set(data: recipe.Data, name: str) -> bool:
    """Whether a field has another value than its default (a stored recipe names all fields)."""
    return getattr(data, name) != recipe.Data.model_fields[name].default


def _labels(train: Arrays | Items) -> Tensor | None:
    labels = train.labels
    return labels if labels is not None and labels.ndim == 1 else None


def _fractions(source: Source, data: recipe.Data) -> dict[str, float]:
    wanted = {"test": data.test, "validation": data.validation}
    if "validation" in source.parts and not is_set(data, "test"):
        wanted["test"] = 0.0
    # it has no rows to choose from, so only what was asked for is an error
    if isinstance(source.parts["train"], Ordered):
        wanted = {
            name: fraction if is_set(data, name) else 0.0 for name, fraction in wanted.items()
        }
    return wanted
