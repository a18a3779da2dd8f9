"""A source's parts made complete: validation and test split off the training part where the source does not bring them."""

from __future__ import annotations

from typing import Any

from ravine import recipe
from ravine.data.source import Source
from ravine.data.splits import hold_out
from ravine.data.text import Text
from ravine.errors import InputError


def divide(source: Source, data: recipe.Data) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The parts by name, and the characters where the source is a text.

    A test part is split off first, then the validation part off the rest. Where the source brings a validation part of its own, no test part
    is made unless ``data.test`` is set.
    """
    whole = source.parts.get("all")
    if isinstance(whole, Text):
        return whole.cut(data.validation, data.test, data.seed)
    parts = dict(source.parts)
    wanted = {"test": data.test, "validation": data.validation}
    if "validation" in parts and "test" not in data.model_fields_set:
        wanted["test"] = 0.0
    for name, fraction in wanted.items():
        if name not in parts and fraction > 0:
            train = parts["train"]
            labels = train.y if source.task == "classification" and train.y.ndim == 1 else None
            kept, held = hold_out(len(train), fraction, labels, data.seed, name)
            parts["train"], parts[name] = train.rows(kept), train.rows(held)
    if not len(parts["train"]):
        raise InputError("data", got="no training samples", expected="at least one")
    return {name: parts[name] for name in ("train", "validation", "test") if name in parts}, ()
