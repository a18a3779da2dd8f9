"""Objects whose fields have names, besides dictionaries: dataclasses, named tuples, classes of attrs and
pydantic, plain objects that hold tensors. Their fields by name, and objects of their class again.

A person's class is held in this process alone, from the first object on that their data give. What is
stored of it is a name; in a process that has not met the class, a `Record` has its place.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

_CONTAINERS = ("__len__", "__getitem__", "__iter__", "__call__", "toarray")
_OF_TORCH = ("Dataset", "DataLoader", "Module")
_EMPTY: dict[str, Any] = {}  # name of a class -> an object of it, all of whose fields are None


class Record(dict[str, Any]):
    """Fields by name, as keys and as attributes."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name not in self:
            raise AttributeError(f"no field {name!r} among {', '.join(self)}")
        return self[name]


def fields_of(value: Any) -> Mapping[str, Any] | None:
    """The fields of a dictionary or of such an object by name, those that are None left out; None of
    anything else.

    >>> from typing import NamedTuple
    >>> class Point(NamedTuple):
    ...     x: float
    ...     label: int | None = None
    >>> fields_of(Point(1.0)), fields_of({"a": 2}), fields_of((1, 2))
    ({'x': 1.0}, {'a': 2}, None)
    """
    if isinstance(value, Mapping):
        return value
    names = _names(value)
    if names is None:
        return None
    held = {name: getattr(value, name, None) for name in names}
    return {name: each for name, each in held.items() if each is not None}


def is_record(value: Any) -> bool:
    """Whether a value is such an object, and no dictionary."""
    return not isinstance(value, Mapping) and _names(value) is not None


def is_named_tuple(value: Any) -> bool:
    """Whether a value is a tuple whose places have names."""
    return isinstance(value, tuple) and hasattr(value, "_fields") and hasattr(value, "_replace")


def class_of(value: Any) -> str:
    """The name of the class of such an object, which is held from now on; of anything else none."""
    if not is_record(value):
        return ""
    kind = type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    _EMPTY[name] = _with(value, dict.fromkeys(_names(value) or ()))
    return name


def made(name: str, values: Mapping[str, Any] | Sequence[Any]) -> Any:
    """An object of the class of that name with these fields, by name or in order; all others are None.
    Without the class a `Record`, or the values as they are."""
    empty = _EMPTY.get(name)
    if empty is None:
        return Record(values) if isinstance(values, Mapping) else values
    named = values if isinstance(values, Mapping) else dict(zip(empty._fields, values, strict=True))
    return _with(empty, named)


def _with(value: Any, fields: Mapping[str, Any]) -> Any:
    """A copy of an object with these values in place of its own, whatever its class checks."""
    if is_named_tuple(value):
        return value._replace(**fields)
    other = copy.copy(value)
    for name, each in fields.items():
        object.__setattr__(other, name, each)
    return other


def _names(value: Any) -> list[str] | None:
    """The names of the fields of an object; None where it has none, or is no such object."""
    if isinstance(value, type) or hasattr(value, "__array__") or _gives_samples(value):
        return None
    if is_named_tuple(value):
        return list(value._fields)
    declared = _declared(value)
    if declared is not None or any(hasattr(value, name) for name in _CONTAINERS):
        return declared
    held = vars(value) if hasattr(value, "__dict__") else {}
    public = [name for name in held if not name.startswith("_")]
    return public if any(hasattr(held[name], "__array__") for name in public) else None


def _gives_samples(value: Any) -> bool:
    """Whether an object is a Dataset, a DataLoader or a module of PyTorch, whatever else it is."""
    kinds = type(value).__mro__
    return any(c.__name__ in _OF_TORCH and c.__module__.startswith("torch.") for c in kinds)


def _declared(value: Any) -> list[str] | None:
    """The fields that a class declares: of dataclasses, attrs, pydantic."""
    if dataclasses.is_dataclass(value):
        return [field.name for field in dataclasses.fields(value)]
    kind = type(value)
    if hasattr(kind, "__attrs_attrs__"):
        return [field.name for field in kind.__attrs_attrs__]
    if hasattr(kind, "model_fields") and hasattr(kind, "model_dump"):
        return list(kind.model_fields)
    return None
