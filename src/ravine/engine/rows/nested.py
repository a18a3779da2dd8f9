"""Nested dictionaries and lists with tensors in them, as tensors by name and plain data: what
snapshots store, without pickle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ravine.errors import InputError


def pack(
    value: Any, place: str = "", found: dict[str, Tensor] | None = None
) -> tuple[Any, dict[str, Tensor]]:
    """Plain data, and the tensors of a nested value by their places in it.

    >>> import torch
    >>> plain, tensors = pack({"state": {0: {"step": 3, "m": torch.ones(2)}}})
    >>> plain, list(tensors)
    ({'dict': [['state', {'dict': [[0, {'dict': [['step', 3], ['m', {'tensor': 'state.0.m'}]]}]]}]]}, ['state.0.m'])
    >>> unpack(plain, tensors)["state"][0]["step"]
    3

    Errors: anything but dictionaries, lists, tuples, tensors, numbers, text and None.
    """
    found = {} if found is None else found
    if isinstance(value, Tensor):
        found[place] = value
        return {"tensor": place}, found
    if value is None or type(value) in (bool, int, float, str):
        return value, found
    if isinstance(value, Mapping):
        items = [[key, pack(each, _inside(place, key), found)[0]] for key, each in value.items()]
        return {"dict": items}, found
    if type(value) in (list, tuple):
        items = [pack(each, _inside(place, i), found)[0] for i, each in enumerate(value)]
        return {"list" if type(value) is list else "tuple": items}, found
    raise InputError(
        place,
        got=f"a {type(value).__name__}",
        expected="numbers, text, tensors, lists and dictionaries, which can be stored",
    )


def unpack(plain: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The nested value that ``pack`` took apart."""
    if not isinstance(plain, dict):
        return plain
    ((kind, held),) = plain.items()
    if kind == "tensor":
        return tensors[held]
    if kind == "dict":
        return {key: unpack(value, tensors) for key, value in held}
    items = [unpack(item, tensors) for item in held]
    return items if kind == "list" else tuple(items)


def _inside(place: str, key: Any) -> str:
    return f"{place}.{key}" if place else str(key)
