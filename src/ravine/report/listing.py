"""A recipe as TOML lines, each marked where it differs from the default."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import tomli_w
from pydantic import BaseModel

from ravine.recipe import Recipe


@dataclass(frozen=True)
class Line:
    """One line of the listing: ``own`` where it is not the default, ``brief`` where the short form
    shows it too."""

    text: str
    own: bool = False
    brief: bool = False
    head: bool = False  # a table's name


def listing(recipe: Recipe) -> list[Line]:
    """Every field of a recipe, table by table; the short form is what was chosen, and the kind of
    each part.

    >>> [line.text for line in listing(Recipe(seed=3)) if line.own]
    ['seed = 3']
    """
    return list(_table(recipe, "", False))


def _table(part: BaseModel, path: str, other_kind: bool) -> Iterator[Line]:
    lines: list[Line] = []
    inner: list[Line] = []
    for name, field in sorted(type(part).model_fields.items(), key=lambda item: item[0] != "kind"):
        value, default = getattr(part, name), field.get_default(call_default_factory=True)
        if isinstance(value, BaseModel):
            inner += _table(
                value, f"{path}.{name}" if path else name, _kind(value) != _kind(default)
            )
        elif value is not None:
            own = other_kind if name == "kind" else _plain(value) != _plain(default)
            lines += [Line(text, own, own or name == "kind") for text in _assign(name, value)]
    if path and lines:
        yield Line(
            f"[{path}]",
            any(line.own for line in lines),
            any(line.brief for line in lines),
            head=True,
        )
    yield from lines
    yield from inner


def _kind(value: Any) -> str | None:
    return value.partition(":")[0] if isinstance(value, str) else getattr(value, "kind", None)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_none=True)
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _assign(name: str, value: Any) -> list[str]:
    if (
        isinstance(value, tuple)
        and len(value) > 1
        and any(isinstance(item, BaseModel) for item in value)
    ):
        return [f"{name} = [", *(f"  {inline(item)}," for item in value), "]"]
    return [f"{name} = {inline(value)}"]


def inline(value: Any) -> str:
    """A value as TOML on one line."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", exclude_none=True, exclude_defaults=True) | {
            "kind": _kind(value)
        }
        value = {"kind": value.pop("kind"), **value}
    if isinstance(value, dict):
        return (
            "{ "
            + ", ".join(
                f"{key} = {inline(item)}" for key, item in value.items() if item is not None
            )
            + " }"
        )
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(inline, value)) + "]"
    return tomli_w.dumps({"x": value}).removeprefix("x =").strip()
